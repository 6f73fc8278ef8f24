//! Entry point of `push0`; all code is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    push0_cli::main()
}
