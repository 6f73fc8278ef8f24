//! Load test of push0: `push0-loadtest SCENARIO [--profile quick|full] [--seed N]`.
//!
//! Every scenario starts real processes on its own broker and prints one JSON object per result.
//! docs/performance.md describes the measurements and the results.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "results go to stdout, progress and errors to stderr"
)]

mod baseline;
mod compare;
mod floor;
mod monitor;
mod record;
mod report;
mod rounding;
mod scenario;
mod stand;
mod stats;
mod usage;

use clap::Parser;
use futures::FutureExt;
use record::{Context, Profile};
use scenario::{Fault, Scenario};
use std::{panic::AssertUnwindSafe, path::PathBuf, process::ExitCode, time::Duration};

/// Measures push0 with real processes.
#[derive(Debug, Parser)]
#[command(name = "push0-loadtest", version)]
struct Cli {
    /// The scenario to run.
    scenario: Scenario,
    /// The amount of work.
    #[arg(long, default_value = "quick")]
    profile: Profile,
    /// Seed of all random choices.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Duration of the chaos scenario in seconds. The default is 60 (quick) or 600 (full).
    #[arg(long)]
    seconds: Option<u64>,
    /// Scaling: measure this many provers only, up to 64 or a multiple of 128.
    #[arg(long)]
    provers: Option<u32>,
    /// Scaling: measure proofs of this many milliseconds only.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    prove_ms: Option<u64>,
    /// Chaos: the number of brokers, 1 or 3.
    #[arg(long, default_value_t = 1, value_parser = brokers)]
    brokers: usize,
    /// Brokers: inject this fault only.
    #[arg(long)]
    fault: Option<Fault>,
    /// Brokers: repetitions of each fault. The default is 2 (quick) or 20 (full).
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    times: Option<u32>,
    #[command(flatten)]
    part: Part,
}

fn brokers(text: &str) -> Result<usize, String> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("expected 1 or 3".into()),
    }
}

/// Hidden arguments of the processes that scenarios start.
#[derive(Debug, clap::Args)]
struct Part {
    #[arg(long, hide = true, default_value = "")]
    url: String,
    #[arg(long, hide = true)]
    nkey: Option<PathBuf>,
    #[arg(long, hide = true, default_value_t = 0)]
    hop: usize,
    #[arg(long, hide = true, default_value_t = 0)]
    bytes: usize,
    #[arg(long, hide = true, default_value = "fifo")]
    queue: baseline::Kind,
    #[arg(long, hide = true, default_value = "")]
    id: String,
    #[arg(long, hide = true, default_value_t = 1)]
    slots: u32,
    #[arg(long, hide = true, default_value_t = 0)]
    time_us: u64,
}

impl Part {
    /// Runs until the process is killed; returns only with an error.
    async fn run(self, scenario: Scenario) -> anyhow::Result<()> {
        if scenario == Scenario::Worker {
            let worker = baseline::Worker {
                id: self.id,
                slots: self.slots,
                time: Duration::from_micros(self.time_us),
            };
            return baseline::work(self.queue, &self.url, worker).await;
        }
        let relay = floor::Relay {
            url: self.url,
            nkey: self.nkey,
            hop: self.hop,
            bytes: self.bytes,
        };
        floor::relay(&relay).await
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // Relays and workers run on one thread, as push0's services do, so that a comparison does not charge
    // push0 for more threads.
    let mut runtime = if cli.scenario.is_part() {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    match runtime.enable_all().build() {
        Ok(runtime) => runtime.block_on(run(cli)),
        Err(error) => {
            eprintln!("no runtime: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(cli: Cli) -> ExitCode {
    let context = Context {
        profile: cli.profile,
        seed: cli.seed,
        seconds: cli.seconds.unwrap_or(cli.profile.pick(60, 600)),
        provers: cli.provers,
        prove_ms: cli.prove_ms,
        brokers: cli.brokers,
        fault: cli.fault,
        times: cli.times,
    };
    if cli.scenario.is_part() {
        let ended = cli.part.run(cli.scenario).await;
        eprintln!("{:?}: {ended:?}", cli.scenario);
        return ExitCode::FAILURE;
    }
    let mut failed = false;
    if cli.scenario == Scenario::All
        && let Err(error) = record::begin(&context)
    {
        eprintln!("cannot set earlier results aside, so new results are added to them: {error}");
    }
    for scenario in cli.scenario.expand() {
        eprintln!("--- {scenario:?}");
        // The harness panics on failure. The scenarios after a failed one are still worth running.
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
        eprintln!("cannot write the report: {error}");
    }
    if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
