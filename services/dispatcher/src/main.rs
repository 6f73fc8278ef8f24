//! Binary of the `push0_dispatcher` library.

use std::process::ExitCode;

fn main() -> ExitCode {
    push0_runtime::run("dispatcher", env!("CARGO_PKG_VERSION"), push0_dispatcher::run)
}
