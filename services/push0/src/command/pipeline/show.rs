//! `push0 pipeline show NAME`: shows the current definition of a pipeline.

use super::selection::Named;
use crate::context::Context;
use crate::failure::Failure;
use crate::secrets::Secrets;
use crate::{graph, output};
use clap::Args;

#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    secrets: Secrets,
}

pub(super) async fn run(context: &Context, args: &ShowArgs) -> Result<(), Failure> {
    let bus = context.bus().await?;
    let pipeline = args.named.current(&bus).await?;
    if context.json {
        return output::json(&args.secrets.of(&pipeline));
    }
    output::line(&format!(
        "revision {}\n{}",
        pipeline.revision,
        graph::render(&pipeline)
    ))
}
