//! Texts of programs, made safe for a terminal.

/// Returns a text without terminal escapes and control characters, which could rewrite an operator's screen.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\u{1b}' => match chars.next() {
                // A control sequence ends with a byte from `@` to `~`.
                Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
                // A command to the terminal ends with BEL or ESC `\`.
                Some(']' | 'P' | '_' | '^' | 'X') => {
                    while let Some(c) = chars.next() {
                        if c == '\u{7}' || (c == '\u{1b}' && chars.next_if_eq(&'\\').is_some()) {
                            break;
                        }
                    }
                }
                _ => {}
            },
            // Progress bars write over their line.
            '\r' if chars.peek() != Some(&'\n') => plain.push('\n'),
            '\n' | '\t' => plain.push(c),
            c if c.is_control() || is_direction(c) => {}
            c => plain.push(c),
        }
    }
    plain
}

/// Returns a text like [`plain`], on one line.
pub fn one_line(text: &str) -> String {
    plain(text).replace(['\n', '\t'], " ")
}

/// Returns whether a character changes the direction of the text around it or breaks its line, so that a text reads as
/// another one.
pub fn is_direction(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_escapes_and_control_characters_are_removed() {
        assert_eq!(
            plain("\u{1b}[1;31mERROR\u{1b}[0m a\tb\u{7}\nc\u{1b}]0;title\u{7}d"),
            "ERROR a\tb\ncd"
        );
        assert_eq!(plain("a\u{202e}b\u{2066}c\u{9b}2J"), "abc2J");
        assert_eq!(one_line("a\n\u{1b}[2Jb"), "a b");
        assert_eq!(plain("10 %\r20 %\r\nend\u{1b}"), "10 %\n20 %\nend");
        assert_eq!(plain("\u{1b}[2J\u{1b}]8;;http://x\u{1b}\\link"), "link");
    }
}
