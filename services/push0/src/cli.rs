//! Definition of the command line.

use crate::command::{
    auth, block, blocks, cancel, child, completions, dead, events, logs, pipeline, proof, provers, provision,
    repair, report, retry, status, sweep, up,
};
use crate::options::Global;
use clap::{Parser, Subcommand};

/// Orchestrates zero-knowledge proofs.
///
/// Exit codes: 0 success, 1 failure, 64 wrong command line, file or environment variable.
#[derive(Debug, Parser)]
#[command(name = "push0", version)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a broker and all services on this machine until Ctrl-C; continues where the last run stopped.
    Up(up::UpArgs),
    /// Create or update the streams and buckets on the broker. Safe to repeat; does not touch messages.
    Provision(provision::ProvisionArgs),
    /// Make and change keys and the broker's accounts, in a directory of files.
    #[command(subcommand)]
    Auth(auth::AuthCommand),
    /// Check, apply, list, show, remove and reset pipelines.
    #[command(subcommand)]
    Pipeline(pipeline::PipelineCommand),
    /// Say whether the deployment is well, and show leaders, services, streams, pipelines and provers.
    Status(status::StatusArgs),
    /// List emitted blocks, with the time spent on each.
    Blocks(blocks::BlocksArgs),
    /// Show the deployment live, on the whole terminal; q quits.
    Top,
    /// Show the work that each prover and verifier has done, its times, and the work in hand.
    Provers(provers::ProversArgs),
    /// Show the events of the last hour, such as lost provers, held queues and dead letters.
    Events(events::EventsArgs),
    /// Show everything known about one block, and the reason why it waits.
    Block(block::BlockArgs),
    /// Print the output of the programs of a block's attempts (adapter `exec`), as far as this machine has it.
    Logs(logs::LogsArgs),
    /// Fetch and verify proofs.
    #[command(subcommand)]
    Proof(proof::ProofCommand),
    /// List, show, retry and drop dead letters.
    #[command(subcommand)]
    Dead(dead::DeadCommand),
    /// Prove dead blocks again, whatever they died of, and show the progress.
    Retry(retry::RetryArgs),
    /// Stop work on blocks that no longer need a proof.
    Cancel(cancel::CancelArgs),
    /// Remove what a banned participant stored, or messages of a pipeline that does not exist.
    Sweep(sweep::SweepArgs),
    /// Wait until blocks are emitted, then check them: complete, in order, once, proved, verified.
    Report(report::ReportArgs),
    /// Show stored state that cannot be read, and mend it.
    Repair(repair::RepairArgs),
    /// Print completions for a shell, such as `push0 completions bash >/etc/bash_completion.d/push0`.
    Completions(completions::CompletionsArgs),
    /// Write manual pages.
    Man(completions::ManArgs),
    /// Print the broker's URL of the `push0 up` that runs in DIR, with its secret, for other clients.
    Endpoint,
    /// Replace this process by a program that dies with its parent.
    #[command(name = "__child", hide = true)]
    Child(child::ChildArgs),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;
    use std::path::PathBuf;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_may_stand_before_and_after_the_command() {
        for line in [
            &["push0", "--dir", "x", "--json", "status"][..],
            &["push0", "status", "--dir", "x", "--json"][..],
        ] {
            let cli = Cli::try_parse_from(line).expect("it parses");
            assert_eq!((cli.global.dir, cli.global.json), (PathBuf::from("x"), true));
        }
    }
}
