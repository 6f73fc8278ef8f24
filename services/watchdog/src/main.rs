//! Binary of the `push0_watchdog` library.

use std::process::ExitCode;

fn main() -> ExitCode {
    push0_runtime::run("watchdog", env!("CARGO_PKG_VERSION"), push0_watchdog::run)
}
