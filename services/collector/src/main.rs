//! Binary of the `push0_collector` library.

use std::process::ExitCode;

fn main() -> ExitCode {
    push0_runtime::run("collector", env!("CARGO_PKG_VERSION"), push0_collector::run)
}
