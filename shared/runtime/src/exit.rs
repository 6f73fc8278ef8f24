//! Exit codes, and how an error is told in one line.

use std::error::Error;
use std::fmt::Write as _;

/// Any error that can end a service. `anyhow::Error` converts into it and keeps its causes.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The service did its work, or stopped in order when it was asked to.
pub const OK: u8 = 0;
/// The service failed; its last log line says why.
pub const FAILURE: u8 = 1;
/// The command line or the configuration is wrong: a restart does not help (`EX_USAGE`).
pub const CONFIG: u8 = 64;
/// A second signal cut the orderly stop short (128 + `SIGINT`).
pub const SECOND_SIGNAL: u8 = 130;

/// The error and its causes on one line, outermost first.
///
/// A cause that the text before it already contains is left out, since many libraries repeat the
/// cause in their own message.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            // Writing into a String cannot fail.
            let _ = write!(line, ": {text}");
        }
        cause = error.source();
    }
    line
}
