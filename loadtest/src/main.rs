//! Measures push0: `push0-loadtest SCENARIO [--profile quick|full] [--seed N]`.
//!
//! Every scenario starts real processes on a broker of its own and prints one JSON object per
//! result. docs/performance.md says what each measures and what was found.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "results go to stdout, what is being done to stderr"
)]

mod floor;
mod monitor;
mod record;
mod report;
mod scenario;
mod stand;
mod stats;

use clap::Parser;
use futures::FutureExt;
use record::{Context, Profile};
use scenario::Scenario;
use std::{panic::AssertUnwindSafe, process::ExitCode};

/// Measures push0 with real processes.
#[derive(Debug, Parser)]
#[command(name = "push0-loadtest", version)]
struct Cli {
    /// What to run.
    scenario: Scenario,
    /// How much.
    #[arg(long, default_value = "quick")]
    profile: Profile,
    /// What all that is random follows from.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long chaos goes on.
    #[arg(long)]
    seconds: Option<u64>,
    #[arg(long, hide = true, default_value = "")]
    url: String,
    #[arg(long, hide = true, default_value_t = 0)]
    hop: usize,
    #[arg(long, hide = true, default_value_t = 0)]
    bytes: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    let context = Context {
        profile: cli.profile,
        seed: cli.seed,
        seconds: cli.seconds.unwrap_or(cli.profile.pick(60, 600)),
    };
    if cli.scenario == Scenario::Relay {
        let relay = floor::Relay {
            url: cli.url,
            hop: cli.hop,
            bytes: cli.bytes,
        };
        let ended = floor::relay(&relay).await;
        eprintln!("relay {}: {ended:?}", relay.hop);
        return ExitCode::FAILURE;
    }
    let mut failed = false;
    for scenario in cli.scenario.expand() {
        eprintln!("--- {scenario:?}");
        // The harness panics; the scenarios after a failed one are still worth running.
        let run = AssertUnwindSafe(scenario.run(&context)).catch_unwind().await;
        match run {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                eprintln!("{scenario:?} failed: {error:#}");
                failed = true;
            }
            Err(_) => {
                eprintln!("{scenario:?} panicked");
                failed = true;
            }
        }
    }
    if let Err(error) = report::write() {
        eprintln!("no report: {error}");
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
