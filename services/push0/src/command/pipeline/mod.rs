//! `push0 pipeline …`: commands about pipelines.

mod apply;
mod check;
mod list;
mod remove;
mod selection;
mod show;

use crate::context::Context;
use crate::failure::Failure;
use crate::pipeline_file::FileArgs;
use clap::Subcommand;
use selection::Named;

#[derive(Debug, Subcommand)]
pub(crate) enum PipelineCommand {
    /// Check a file and draw its stages. Needs no broker.
    Check(FileArgs),
    /// Make a file the current definition of its pipeline. An unchanged definition keeps its revision.
    Apply(FileArgs),
    /// List the current pipelines.
    List,
    /// Show the current definition of a pipeline.
    Show(Named),
    /// Stop ingesting blocks for a pipeline. Blocks in flight continue.
    Remove(Named),
}

pub(crate) async fn run(context: &Context, command: &PipelineCommand) -> Result<(), Failure> {
    match command {
        PipelineCommand::Check(args) => check::run(context, args),
        PipelineCommand::Apply(args) => apply::run(context, args).await,
        PipelineCommand::List => list::run(context).await,
        PipelineCommand::Show(args) => show::run(context, args).await,
        PipelineCommand::Remove(args) => remove::run(context, args).await,
    }
}
