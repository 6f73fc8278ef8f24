//! `push0`: runs a deployment on one machine, and inspects and controls any deployment.
//!
//! Every command except `up` is a client of the broker: it reads data stored by the services and publishes
//! messages for them. It holds no state, and proving never depends on it. `up` runs a broker and all
//! services as child processes that never outlive it.

mod account;
mod audit;
mod block_arg;
mod block_range;
mod cli;
mod colour;
mod command;
mod context;
mod damage;
mod endpoint;
mod explain;
mod failure;
mod graph;
mod leases;
mod options;
mod output;
mod overrides;
mod pipeline_file;
mod probe;
mod progress;
mod record;
mod records;
mod retrying;
mod secrets;
mod status;
mod table;
mod times;
mod top;
mod unverified;
mod up;
mod waits;
mod watch;
mod work_in_flight;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser as _};
use failure::Failure;
use std::process::ExitCode;

/// Parses the command line, runs the command and returns the exit code.
pub fn main() -> ExitCode {
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.kind() == ErrorKind::MissingSubcommand => {
            // The error's own text would list commands that are not for people.
            output::note(&cli::Cli::command().render_help().to_string());
            return ExitCode::from(push0_runtime::exit::CONFIG);
        }
        Err(error) => {
            // There is no way to report an error if stdout or stderr is closed.
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
        // The process becomes another program here, before the runtime starts any thread.
        cli::Command::Child(args) => return command::child::run(&args),
        cli::Command::Completions(args) => {
            return command::completions::completions(cli::Cli::command(), &args);
        }
        cli::Command::Man(args) => return command::completions::man(cli::Cli::command(), &args),
        other => other,
    };
    // `up` needs a single-threaded runtime: its children die with the thread that started them.
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
