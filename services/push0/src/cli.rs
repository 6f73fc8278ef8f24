//! Definition of the command line.

use crate::command::{block, blocks, cancel, child, dead, pipeline, proof, provision, report, status, up};
use clap::{Args, Parser, Subcommand};
use push0_domain::PipelineId;
use std::path::PathBuf;

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

/// Options common to all commands.
#[derive(Args, Clone, Debug)]
pub(crate) struct Global {
    /// Broker URL [default: the broker of the `push0 up` that runs in DIR, else nats://127.0.0.1:4222].
    ///
    /// Credentials and TLS files come from PUSH0_NATS__CREDENTIALS, PUSH0_NATS__NKEY_SEED,
    /// PUSH0_NATS__TLS_CA, PUSH0_NATS__TLS_CERT and PUSH0_NATS__TLS_KEY, as for the services.
    #[arg(long, global = true, env = "PUSH0_NATS__URL", value_name = "URL")]
    pub(crate) nats: Option<String>,
    /// State directory of `push0 up`.
    #[arg(long, global = true, default_value = "./.push0", value_name = "DIR")]
    pub(crate) dir: PathBuf,
    /// Print JSON instead of text.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Selection of a pipeline.
#[derive(Args, Clone, Debug)]
pub(crate) struct Of {
    /// Name of the pipeline. May be omitted if there is only one.
    #[arg(long, value_name = "NAME")]
    pub(crate) pipeline: Option<PipelineId>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a broker and all services on this machine until Ctrl-C; continues where the last run stopped.
    Up(up::UpArgs),
    /// Create or update the streams and buckets on the broker. Safe to repeat; does not touch messages.
    Provision(provision::ProvisionArgs),
    /// Check, apply, list, show and remove pipelines.
    #[command(subcommand)]
    Pipeline(pipeline::PipelineCommand),
    /// Show services, streams, pipelines and provers, and the number of dead letters.
    Status(status::StatusArgs),
    /// List emitted blocks, with the time spent on each.
    Blocks(blocks::BlocksArgs),
    /// Show everything known about one block.
    Block(block::BlockArgs),
    /// Fetch and verify proofs.
    #[command(subcommand)]
    Proof(proof::ProofCommand),
    /// List, show, retry and drop dead letters.
    #[command(subcommand)]
    Dead(dead::DeadCommand),
    /// Stop work on blocks that no longer need a proof.
    Cancel(cancel::CancelArgs),
    /// Wait until blocks are emitted, then check them: complete, in order, once, proved, verified.
    Report(report::ReportArgs),
    /// Replace this process by a program that dies with its parent.
    #[command(name = "__child", hide = true)]
    Child(child::ChildArgs),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

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
