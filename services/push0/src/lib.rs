//! `push0`: runs a deployment on one machine, and shows and steers any deployment.
//!
//! Every command but `up` is a client of the broker: it reads what the services stored and publishes
//! what they understand. It holds no state and is never needed for the work to go on. `up` is the
//! embedded default: a broker and every service as child processes that never outlive it.

mod audit;
mod block_range;
mod cli;
mod command;
mod context;
mod endpoint;
mod failure;
mod graph;
mod known;
mod letters;
mod output;
mod overrides;
mod pipeline_file;
mod probe;
mod records;
mod table;
mod up;
mod work_in_flight;

use clap::Parser as _;
use failure::Failure;
use std::process::ExitCode;

/// The whole of the process.
pub fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A closed stdout or stderr leaves nobody to tell.
            let _ = error.print();
            let code = if error.use_stderr() {
                push0_runtime::exit::CONFIG
            } else {
                push0_runtime::exit::OK
            };
            return ExitCode::from(code);
        }
    };
    match run(cli) {
        Ok(()) => ExitCode::from(push0_runtime::exit::OK),
        Err(failure) => failure.tell(),
    }
}

fn run(cli: cli::Cli) -> Result<(), Failure> {
    let command = match cli.command {
        // Before a runtime starts threads: the process becomes another program.
        cli::Command::Child(args) => return command::child::run(&args),
        other => other,
    };
    // One thread. `up` needs it: a child is told to die with the thread that started it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (context, refused) = context::Context::new(cli.global);
    let outcome = runtime.block_on(async {
        tokio::select! {
            biased;
            outcome = command::run(context, command) => outcome,
            refusal = refused.text() => Err(Failure::failed(refusal)),
        }
    });
    runtime.shutdown_background();
    outcome
}
