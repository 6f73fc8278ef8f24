//! `push0 pipeline …`

mod apply;
mod check;
mod list;
mod remove;
mod show;

use crate::context::Context;
use crate::failure::Failure;
use crate::pipeline_file::FileArgs;
use clap::{Args, Subcommand};
use push0_domain::PipelineId;

#[derive(Debug, Subcommand)]
pub(crate) enum PipelineCommand {
    /// Check a file and draw its stages; needs no broker.
    Check(FileArgs),
    /// Make a file the current definition of its pipeline. The same definition keeps its revision.
    Apply(FileArgs),
    /// The pipelines of this deployment.
    List,
    /// One pipeline as it stands now.
    Show(Named),
    /// Ingest no more blocks for a pipeline; those in flight go on.
    Remove(Named),
}

/// A pipeline by name.
#[derive(Args, Debug)]
pub(crate) struct Named {
    /// The pipeline's name.
    #[arg(value_name = "NAME")]
    name: PipelineId,
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
