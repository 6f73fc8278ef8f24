//! Entry point of the exec adapter.

use push0_prover_exec::{Config, Exec};
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(code) = push0_prover_exec::helper(std::env::args_os()) {
        return code;
    }
    // A program runs as the same user. Other processes of this user then read neither the adapter's environment nor
    // its memory, where seeds are. The setting ends with `exec`, so keepers and programs are as usual.
    #[cfg(target_os = "linux")]
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        eprintln!("prover-exec: programs can read this process: {error}");
    }
    let mut programs = None;
    let code = push0_prover_sdk::main(
        "prover-exec",
        env!("CARGO_PKG_VERSION"),
        "exec",
        |config: &Config, role| {
            let exec = Exec::new(config, role, None)?;
            programs = Some(exec.programs());
            Ok(exec)
        },
    );
    // The runtime has gone; programs that were told to end may still clean up.
    if let Some(programs) = programs {
        programs.end();
    }
    code
}
