//! Entry point of the mock prover.

use push0_prover_mock::{Config, Mock};
use std::process::ExitCode;

fn main() -> ExitCode {
    push0_prover_sdk::main(
        "prover-mock",
        env!("CARGO_PKG_VERSION"),
        "mock",
        |config: &Config, _role| Ok(Mock::new(&config.mock)),
    )
}
