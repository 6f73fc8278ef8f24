//! Binary of the `push0_enroller` library.

use std::process::ExitCode;

fn main() -> ExitCode {
    push0_runtime::run("enroller", env!("CARGO_PKG_VERSION"), push0_enroller::run)
}
