//! `push0 pipeline remove NAME`: stops the ingestion of blocks for a pipeline.

use super::{reset::position, selection::Named};
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use push0_bus::Pipelines;
use serde_json::json;

pub(super) async fn run(context: &Context, args: &Named) -> Result<(), Failure> {
    let bus = context.bus().await?;
    let pipelines = Pipelines::bind(&bus).await?;
    if !pipelines.current().await?.iter().any(|p| p.name == args.name) {
        return Err(Failure::failed(format!(
            "there is no pipeline `{}`: see `push0 pipeline list`",
            args.name
        )));
    }
    pipelines.remove(&args.name).await?;
    let next = position(&bus, &args.name).await?.next();
    if context.json {
        return output::json(&json!({ "removed": args.name, "goes_on_at": next }));
    }
    let kept = next.map_or(String::new(), |next| {
        format!("; applied again, the pipeline goes on at block {next}")
    });
    output::line(&format!(
        "{}: removed; blocks in flight go on, `push0 cancel` stops them{kept}",
        args.name
    ))
}
