//! Output to the terminal. The process ends quietly when the reader of stdout closes the pipe, as
//! in `push0 blocks | head`.

use crate::colour::paint;
use crate::failure::Failure;
use crate::progress::beside_bars;
use push0_domain::plain::plain;
use serde::Serialize;
use std::io::{ErrorKind, Write as _};

/// Writes a text and a newline to stdout. Participants and chains choose parts of texts, so everything that could
/// rewrite the operator's screen is left out.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    let text = plain(text);
    let shown = if has_colours() { paint(&text) } else { text };
    raw(format!("{shown}\n").as_bytes())
}

/// Writes a text like [`line`], or JSON as it is.
pub(crate) fn text(is_json: bool, text: &str) -> Result<(), Failure> {
    if is_json {
        raw(format!("{text}\n").as_bytes())
    } else {
        line(text)
    }
}

/// Returns whether stdout is a terminal with colours, and NO_COLOR and the like do not ask for none.
fn has_colours() -> bool {
    anstream::AutoStream::choice(&std::io::stdout()) != anstream::ColorChoice::Never
}

/// Writes a value as one line of JSON to stdout.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<(), Failure> {
    raw(format!("{}\n", serde_json::to_string(value)?).as_bytes())
}

/// Writes bytes to stdout.
pub(crate) fn raw(bytes: &[u8]) -> Result<(), Failure> {
    let written = beside_bars(|| {
        let mut out = std::io::stdout().lock();
        out.write_all(bytes).and_then(|()| out.flush())
    });
    match written {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        outcome => Ok(outcome?),
    }
}

/// Writes a text to stderr like [`line`]. Errors are ignored: a closed stderr must not end the command.
pub(crate) fn note(text: &str) {
    note_behind("", text);
}

/// Writes a text to stderr, behind a prefix that is left as it is.
pub(crate) fn note_behind(prefix: &str, text: &str) {
    let _ = beside_bars(|| writeln!(std::io::stderr().lock(), "{prefix}{}", plain(text)));
}
