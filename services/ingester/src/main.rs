//! Entry point of the ingester's process.

use std::process::ExitCode;

fn main() -> ExitCode {
    push0_runtime::run("ingester", env!("CARGO_PKG_VERSION"), push0_ingester::run)
}
