//! Colours of texts on a terminal. Only words of push0 are coloured, in texts that are plain already.

use anstyle::{AnsiColor, Style};

/// Separates the cells of a row.
const GAP: &str = "  ";

/// Returns a plain text with colours: the verdict of `push0 status`, the headers of tables, and cells that are a state.
pub(crate) fn paint(text: &str) -> String {
    let lines: Vec<String> = text.split('\n').map(line).collect();
    lines.join("\n")
}

fn line(text: &str) -> String {
    for (word, style) in [("NOT OK", red().bold()), ("OK", green().bold())] {
        if let Some(rest) = text.strip_prefix(word)
            && (rest.is_empty() || rest.starts_with(':'))
        {
            return format!("{}{rest}", styled(word, style));
        }
    }
    if is_header(text) {
        return styled(text, Style::new().bold());
    }
    let cells: Vec<String> = text.split(GAP).map(cell).collect();
    cells.join(GAP)
}

fn is_header(text: &str) -> bool {
    let is_upper = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == ' ';
    text.contains(GAP)
        && text.starts_with(|c: char| c.is_ascii_uppercase() || c == ' ')
        && text.chars().all(is_upper)
}

fn cell(text: &str) -> String {
    let word = text.trim();
    let style = match word {
        "proved" | "ready" | "active" => green(),
        "dead" | "lost" | "nobody" | "does not answer" => red(),
        "cancelled" | "too late" | "draining" | "quarantined" | "left" | "reorged" => yellow(),
        word if word.starts_with("not ready: ") => red(),
        _ => return text.to_owned(),
    };
    text.replacen(word, &styled(word, style), 1)
}

fn red() -> Style {
    AnsiColor::Red.on_default()
}

fn green() -> Style {
    AnsiColor::Green.on_default()
}

fn yellow() -> Style {
    AnsiColor::Yellow.on_default()
}

fn styled(text: &str, style: Style) -> String {
    format!("{style}{text}{style:#}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_headers_and_states_have_colours_and_other_words_have_none() {
        let painted =
            paint("NOT OK: no disk\n  more\nBLOCK  OUTCOME\n12     proved   mock\nit was dead before");
        let lines: Vec<&str> = painted.lines().collect();
        assert!(
            lines[0].starts_with("\u{1b}[1m\u{1b}[31mNOT OK\u{1b}[0m: no disk"),
            "{painted:?}"
        );
        assert_eq!(lines[1], "  more");
        assert_eq!(lines[2], "\u{1b}[1mBLOCK  OUTCOME\u{1b}[0m");
        assert_eq!(lines[3], "12     \u{1b}[32mproved\u{1b}[0m   mock");
        assert_eq!(lines[4], "it was dead before");
        assert_eq!(paint("OKAY"), "OKAY");
    }
}
