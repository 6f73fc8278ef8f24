//! `push0 pipeline apply FILE`: makes a file the current definition of its pipeline.

use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::pipeline_file::FileArgs;
use push0_bus::Pipelines;
use serde_json::json;

pub(super) async fn run(context: &Context, args: &FileArgs) -> Result<(), Failure> {
    let pipeline = args.load()?;
    let name = pipeline.name.clone();
    let bus = context.bus().await?;
    let revision = Pipelines::bind(&bus).await?.apply(pipeline).await?;
    if context.json {
        return output::json(&json!({ "pipeline": name, "revision": revision }));
    }
    output::line(&format!("{name}: revision {revision}"))
}
