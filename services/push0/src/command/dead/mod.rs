//! `push0 dead …`: commands about dead letters.

mod drop;
mod list;
mod retry;
mod selection;
mod show;

use crate::context::Context;
use crate::failure::Failure;
use crate::options::Of;
use clap::Subcommand;
use selection::{Chosen, One};

#[derive(Debug, Subcommand)]
pub(crate) enum DeadCommand {
    /// List dead letters: of all pipelines, or of the one named with --pipeline.
    List(Of),
    /// Show one dead letter and the history of its attempts.
    Show(One),
    /// Delete dead letters.
    Drop(Chosen),
    /// Prove the blocks of dead letters again, and delete the letters. `push0 retry` does so by block number.
    Retry(Chosen),
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
