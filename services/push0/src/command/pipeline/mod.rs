//! `push0 pipeline …`: commands about pipelines.

mod apply;
mod check;
mod list;
mod remove;
mod reset;
mod selection;
mod show;

use crate::context::Context;
use crate::failure::Failure;
use crate::pipeline_file::FileArgs;
use crate::secrets::Secrets;
use apply::ApplyArgs;
use clap::Subcommand;
use reset::ResetArgs;
use selection::Named;
use show::ShowArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum PipelineCommand {
    /// Check a file and draw its stages. Needs no broker.
    Check(FileArgs),
    /// Make a file the current definition of its pipeline. An unchanged definition keeps its revision.
    Apply(ApplyArgs),
    /// List the current pipelines.
    List(Secrets),
    /// Show the current definition of a pipeline.
    Show(ShowArgs),
    /// Stop ingesting blocks for a pipeline. Blocks in flight continue.
    Remove(Named),
    /// Accept the node's chain from a block on, in place of the ingested blocks from there.
    Reset(ResetArgs),
}

pub(crate) async fn run(context: &Context, command: &PipelineCommand) -> Result<(), Failure> {
    match command {
        PipelineCommand::Check(args) => check::run(context, args),
        PipelineCommand::Apply(args) => apply::run(context, args).await,
        PipelineCommand::List(secrets) => list::run(context, *secrets).await,
        PipelineCommand::Show(args) => show::run(context, args).await,
        PipelineCommand::Remove(args) => remove::run(context, args).await,
        PipelineCommand::Reset(args) => reset::run(context, args).await,
    }
}
