//! Writing to the terminal. A reader that went away (`push0 blocks | head`) ends the process quietly.

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

/// Writes a line to stderr; if nobody reads it, nobody misses it.
pub(crate) fn note(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}
