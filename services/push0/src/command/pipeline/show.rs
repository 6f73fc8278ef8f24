//! `push0 pipeline show NAME`: shows the current definition of a pipeline.

use super::selection::Named;
use crate::context::Context;
use crate::failure::Failure;
use crate::secrets::Secrets;
use crate::{graph, output};
use clap::Args;
use push0_bus::Pipelines;

#[derive(Args, Debug)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    secrets: Secrets,
}

pub(super) async fn run(context: &Context, args: &ShowArgs) -> Result<(), Failure> {
    let bus = context.bus().await?;
    let current = Pipelines::bind(&bus).await?.current().await?;
    let Some(pipeline) = current.iter().find(|p| p.name == args.named.name) else {
        return Err(Failure::failed(format!(
            "there is no pipeline `{}`: see `push0 pipeline list`",
            args.named.name
        )));
    };
    if context.json {
        return output::json(&args.secrets.of(pipeline));
    }
    output::line(&format!(
        "revision {}\n{}",
        pipeline.revision,
        graph::render(pipeline)
    ))
}
