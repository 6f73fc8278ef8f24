//! Entry point of the Miden prover.

use push0_prover_miden::{Config, Miden};
use std::process::ExitCode;

fn main() -> ExitCode {
    push0_prover_sdk::main(
        "prover-miden",
        env!("CARGO_PKG_VERSION"),
        "miden",
        |config: &Config, role| Ok(Miden::new(config, role)?),
    )
}
