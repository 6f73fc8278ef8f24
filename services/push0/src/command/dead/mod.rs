//! `push0 dead …`: commands about dead letters.

mod drop;
mod list;
mod retry;
mod show;

use crate::cli::Of;
use crate::context::Context;
use crate::failure::Failure;
use crate::letters::Which;
use clap::{Args, Subcommand};
use push0_domain::PipelineId;

#[derive(Debug, Subcommand)]
pub(crate) enum DeadCommand {
    /// List dead letters: of all pipelines, or of the one named with --pipeline.
    List(Of),
    /// Show one dead letter and the history of its attempts.
    Show(One),
    /// Delete dead letters.
    Drop(Chosen),
    /// Give the tasks of dead letters one more attempt, and delete the letters.
    Retry(Chosen),
}

/// Selection of one dead letter.
#[derive(Args, Debug)]
pub(crate) struct One {
    /// Id of the dead letter.
    #[arg(value_name = "ID")]
    id: String,
}

/// Selection of one or more dead letters.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct Chosen {
    /// Id of the dead letter.
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// All dead letters of this pipeline.
    #[arg(long, value_name = "NAME")]
    pipeline: Option<PipelineId>,
    /// All dead letters of all pipelines.
    #[arg(long)]
    all: bool,
}

impl Chosen {
    fn which(&self) -> Which {
        match (&self.id, &self.pipeline) {
            (Some(id), _) => Which::One(id.clone()),
            (None, Some(pipeline)) => Which::OfPipeline(pipeline.clone()),
            (None, None) => Which::All,
        }
    }
}

pub(crate) async fn run(context: &Context, command: &DeadCommand) -> Result<(), Failure> {
    let bus = context.bus().await?;
    match command {
        DeadCommand::List(of) => list::run(context, &bus, of).await,
        DeadCommand::Show(one) => show::run(context, &bus, one).await,
        DeadCommand::Drop(chosen) => drop::run(context, &bus, chosen).await,
        DeadCommand::Retry(chosen) => retry::run(context, &bus, chosen).await,
    }
}
