//! The command line of every adapter.

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use push0_domain::BlockHash;
use push0_runtime::{RunArgs, exit};
use std::{ffi::OsString, path::PathBuf, process::ExitCode};

#[derive(Debug, Parser)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) run: RunArgs,
    /// Verify what provers completed, instead of proving.
    #[arg(long)]
    pub(crate) verify: bool,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// What an adapter does without a broker.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Verify a proof in a file: prints `valid` and exits 0; exits 1 with the reason on stderr if it is
    /// false, 2 if that could not be told.
    VerifyFile(VerifyFile),
    /// Print the id of the program that this build proves, for pipelines to pin.
    ProgramId,
}

#[derive(Debug, Args)]
pub(crate) struct VerifyFile {
    /// The proof.
    #[arg(long, value_name = "FILE")]
    pub(crate) proof: PathBuf,
    /// The number of the block that it must be about.
    #[arg(long, value_name = "N")]
    pub(crate) block_number: u64,
    /// The hash of that block.
    #[arg(long, value_name = "0x..")]
    pub(crate) block_hash: BlockHash,
    /// The hash of its parent; of a range, that of the parent of its first block.
    #[arg(long, value_name = "0x..")]
    pub(crate) parent_hash: BlockHash,
    /// The number of the first block, if the proof is about a range that ends with that block.
    #[arg(long, value_name = "N", requires = "first_hash")]
    pub(crate) first_number: Option<u64>,
    /// The hash of the first block of a range.
    #[arg(long, value_name = "0x..", requires = "first_number")]
    pub(crate) first_hash: Option<BlockHash>,
    /// The program that the pipeline pins; without it, this build's own.
    #[arg(long, value_name = "ID")]
    pub(crate) program_id: Option<String>,
}

/// `--help` and `--version` are answered here, as in every service: they come back as the code to
/// exit with.
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
        .try_get_matches_from(args)
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map_err(|error| {
            // A closed stdout or stderr leaves nobody to tell.
            let _ = error.print();
            ExitCode::from(if error.use_stderr() {
                exit::CONFIG
            } else {
                exit::OK
            })
        })
}
