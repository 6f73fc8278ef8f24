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
    let (current, unreadable) = pipelines.all().await?;
    let is_readable = current.iter().any(|pipeline| pipeline.name == args.name);
    // A definition that cannot be read is removed like any other.
    if !is_readable && !unreadable.iter().any(|(name, _)| *name == args.name) {
        return Err(args.missing());
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
