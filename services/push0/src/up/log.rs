//! Log lines of several processes on one terminal, each with the name of its process in front.

use crate::output;
use std::io::IsTerminal as _;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Maximum length of a line in bytes; longer lines are split.
const LINE_MAX: usize = 16 * 1024;
/// ANSI colour codes of the names, without red: it looks like an error.
const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 96];

/// Prefix of the lines of one process: its name, in colour on a terminal.
#[derive(Clone, Debug)]
pub(crate) struct Prefix(String);

impl Prefix {
    /// Returns a prefix for each name, all of the same width.
    pub(crate) fn all(names: &[&str]) -> Vec<Self> {
        let colourful = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let width = names.iter().map(|name| name.len()).max().unwrap_or(0);
        let each = |(name, colour): (&&str, &u8)| {
            let text = format!("{name:<width$} |");
            Self(if colourful {
                format!("\x1b[{colour}m{text}\x1b[0m")
            } else {
                text
            })
        };
        names.iter().zip(COLOURS.iter().cycle()).map(each).collect()
    }

    /// Writes one line to stderr, with the prefix.
    pub(crate) fn line(&self, text: &str) {
        output::note_behind(&format!("{} ", self.0), text);
    }

    /// Writes the lines from a pipe until the process closes its end.
    pub(crate) async fn lines_of(self, mut pipe: impl AsyncRead + Unpin) {
        let mut lines = Lines::default();
        let mut chunk = [0; 4096];
        while let Ok(read @ 1..) = pipe.read(&mut chunk).await {
            for line in lines.push(chunk.get(..read).unwrap_or_default()) {
                self.line(&line);
            }
        }
        if let Some(line) = lines.rest() {
            self.line(&line);
        }
    }
}

/// Splits a stream of bytes into lines.
#[derive(Debug, Default)]
struct Lines(Vec<u8>);

impl Lines {
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        let mut lines = Vec::new();
        for byte in bytes {
            if *byte == b'\n' || self.0.len() == LINE_MAX {
                lines.push(self.take());
            }
            if *byte != b'\n' {
                self.0.push(*byte);
            }
        }
        lines
    }

    fn rest(&mut self) -> Option<String> {
        (!self.0.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.0))
            .trim_end_matches('\r')
            .to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_line_without_an_end_is_cut() {
        let mut lines = Lines::default();
        let cut = lines.push(&vec![b'x'; LINE_MAX * 2 + 1]);
        assert_eq!(
            cut.iter().map(String::len).collect::<Vec<_>>(),
            [LINE_MAX, LINE_MAX]
        );
        assert_eq!(lines.rest().as_deref(), Some("x"));
    }

    proptest! {
        #[test]
        fn lines_do_not_depend_on_how_the_bytes_arrive(text in "[a-zä\n]{0,200}", at: prop::sample::Index) {
            let bytes = text.as_bytes();
            let (one, two) = bytes.split_at(at.index(bytes.len() + 1));
            let mut lines = Lines::default();
            let mut found = lines.push(one);
            found.extend(lines.push(two));
            found.extend(lines.rest());
            prop_assert_eq!(found, text.lines().map(str::to_owned).collect::<Vec<_>>());
        }
    }
}
