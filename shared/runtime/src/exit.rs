//! Exit codes, and the formatting of an error as one line.

use std::error::Error;
use std::fmt::Write as _;

/// Any error that can end a service. `anyhow::Error` converts into this type and keeps its causes.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// The service finished its work, or stopped in order when asked to.
pub const OK: u8 = 0;
/// The service failed; its last log line gives the reason.
pub const FAILURE: u8 = 1;
/// The command line or the configuration is wrong, so a restart does not help (`EX_USAGE`).
pub const CONFIG: u8 = 64;
/// Begin of the line on stdout with which a program says, asked by `--check-start`, why it would refuse to start. Another
/// program may end with [`CONFIG`] because it does not know that flag.
pub const REFUSED: &str = "push0: refused: ";
/// A second signal cut the orderly stop short (128 + `SIGINT`).
pub const SECOND_SIGNAL: u8 = 130;

/// Formats the error and its causes on one line, outermost first.
///
/// A cause already contained in the text before is skipped, since many libraries repeat the cause in
/// their own message.
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
