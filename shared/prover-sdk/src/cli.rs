//! Command line of all adapters.

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use push0_domain::BlockHash;
use push0_runtime::{RunArgs, exit};
use std::{ffi::OsString, path::PathBuf, process::ExitCode};

/// The opening of `--help`. The derived text would be the documentation of [`RunArgs`], which is for programmers.
const ABOUT: &str = "Runs an adapter of push0, which proves the tasks of one zkVM, or verifies proofs (--verify). \
                     docs/configure.md has its settings.";

#[derive(Debug, Parser)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// Verify completed attempts instead of proving tasks.
    #[arg(long)]
    pub(crate) verify: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// Commands that need no broker.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Verify a proof in a file: prints `push0: valid` and exits with 0, or prints `push0: invalid: REASON` and exits
    /// with 65. Without a verdict, exits with 2 and the reason on stderr.
    VerifyFile(VerifyFile),
    /// Print the id of the program proved by this build, for pipelines to pin.
    ProgramId,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyFile {
    /// The file with the proof.
    #[arg(long, value_name = "FILE")]
    pub(crate) proof: PathBuf,
    /// The number of the proved block; for a range, of its last block.
    #[arg(long, value_name = "N")]
    pub(crate) block_number: u64,
    /// The hash of the block.
    #[arg(long, value_name = "0x..")]
    pub(crate) block_hash: BlockHash,
    /// The hash of the block's parent; for a range, of the parent of its first block.
    #[arg(long, value_name = "0x..")]
    pub(crate) parent_hash: BlockHash,
    /// The number of the first block, if the proof is about a range.
    #[arg(long, value_name = "N", requires = "first_hash")]
    pub(crate) first_number: Option<u64>,
    /// The hash of the first block of a range.
    #[arg(long, value_name = "0x..", requires = "first_number")]
    pub(crate) first_hash: Option<BlockHash>,
    /// The program pinned by the pipeline; without it, this build's own.
    #[arg(long, value_name = "ID")]
    pub(crate) program_id: Option<String>,
}

/// Parses the command line. `--help` and `--version` are answered here, as in every service; the error is
/// then the exit code of the process.
pub(crate) fn parse(
    name: &'static str,
    version: &'static str,
    args: impl IntoIterator<Item = OsString>,
) -> Result<Cli, ExitCode> {
    Cli::command()
        .name(name)
        .bin_name(name)
        .display_name(format!("push0-{name}"))
        .version(version)
        .about(ABOUT)
        .long_about(None)
        .try_get_matches_from(args)
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map_err(|error| {
            // Printing fails only if stdout or stderr is closed, and then there is no place to report it.
            let _ = error.print();
            ExitCode::from(if error.use_stderr() {
                exit::CONFIG
            } else {
                exit::OK
            })
        })
}
