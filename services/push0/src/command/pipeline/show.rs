//! `push0 pipeline show NAME`: shows the current definition of a pipeline.

use super::selection::Named;
use crate::context::Context;
use crate::failure::Failure;
use crate::{graph, output};
use push0_bus::Pipelines;

pub(super) async fn run(context: &Context, args: &Named) -> Result<(), Failure> {
    let bus = context.bus().await?;
    let current = Pipelines::bind(&bus).await?.current().await?;
    let Some(pipeline) = current.iter().find(|p| p.name == args.name) else {
        return Err(Failure::failed(format!(
            "there is no pipeline `{}`: see `push0 pipeline list`",
            args.name
        )));
    };
    if context.json {
        return output::json(pipeline.as_ref());
    }
    output::line(&format!(
        "revision {}\n{}",
        pipeline.revision,
        graph::render(pipeline)
    ))
}
