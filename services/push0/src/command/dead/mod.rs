//! `push0 dead …`

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
    /// The dead letters.
    List(Of),
    /// One dead letter with all that is known about it.
    Show(One),
    /// Forget dead letters.
    Drop(Chosen),
    /// Give the tasks of dead letters one more attempt, and forget the letters.
    Retry(Chosen),
}

/// One letter.
#[derive(Args, Debug)]
pub(crate) struct One {
    /// Its id.
    #[arg(value_name = "ID")]
    id: String,
}

/// Some letters.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct Chosen {
    /// The one of this id.
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// All of this pipeline.
    #[arg(long, value_name = "NAME")]
    pipeline: Option<PipelineId>,
    /// All.
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
