//! `push0 pipeline list`: lists the current pipelines.

use crate::context::Context;
use crate::failure::Failure;
use crate::secrets::Secrets;
use crate::table::{self, Align};
use crate::{graph, output};
use push0_bus::Pipelines;
use push0_domain::pipeline::Pipeline;

pub(super) async fn run(context: &Context, secrets: Secrets) -> Result<(), Failure> {
    let bus = context.bus().await?;
    let (pipelines, unreadable) = Pipelines::bind(&bus).await?.all().await?;
    for (_, reason) in &unreadable {
        output::note(&format!("push0: {reason}; `push0 repair` mends it"));
    }
    if context.json {
        let shown: Vec<Pipeline> = pipelines.iter().map(|pipeline| secrets.of(pipeline)).collect();
        return output::json(&shown);
    }
    if pipelines.is_empty() && unreadable.is_empty() {
        return output::line("no pipelines: `push0 pipeline apply FILE` adds one");
    }
    let columns = [
        ("pipeline", Align::Left),
        ("revision", Align::Right),
        ("policy", Align::Left),
        ("weight", Align::Right),
        ("quorum", Align::Left),
        ("zkvms", Align::Left),
    ];
    let rows: Vec<Vec<String>> = pipelines.iter().map(|p| row(p)).collect();
    output::line(&table::render(&columns, &rows))
}

fn row(pipeline: &Pipeline) -> Vec<String> {
    let zkvms: Vec<String> = pipeline.zkvms().iter().map(ToString::to_string).collect();
    vec![
        pipeline.name.to_string(),
        pipeline.revision.to_string(),
        graph::policy(pipeline),
        pipeline.weight.to_string(),
        format!("{} of {}", pipeline.quorum, pipeline.proofs.len()),
        zkvms.join(","),
    ]
}
