//! Binary of the `push0_gateway` library.

use std::process::ExitCode;

fn main() -> ExitCode {
    push0_runtime::run("gateway", env!("CARGO_PKG_VERSION"), push0_gateway::run)
}
