//! Output to the terminal. The process ends quietly when the reader of stdout closes the pipe, as
//! in `push0 blocks | head`.

use crate::failure::Failure;
use serde::Serialize;
use std::io::{ErrorKind, Write as _};

/// Writes a text and a newline to stdout.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    raw(format!("{text}\n").as_bytes())
}

/// Writes a value as one line of JSON to stdout.
pub(crate) fn json<T: Serialize>(value: &T) -> Result<(), Failure> {
    line(&serde_json::to_string(value)?)
}

/// Writes bytes to stdout.
pub(crate) fn raw(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => std::process::exit(0),
        outcome => Ok(outcome?),
    }
}

/// Writes a line to stderr. Errors are ignored: a closed stderr must not end the command.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
