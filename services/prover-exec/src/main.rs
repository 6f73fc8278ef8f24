//! Entry point of the exec adapter.

use push0_prover_exec::{Config, Exec};
use std::process::ExitCode;

fn main() -> ExitCode {
    push0_prover_sdk::main(
        "prover-exec",
        env!("CARGO_PKG_VERSION"),
        "exec",
        |config: &Config, role| Ok(Exec::new(&config.exec, role)?),
    )
}
