//! `push0 pipeline apply FILE`: makes a file the current definition of its pipeline.

use super::reset::position;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use crate::pipeline_file::FileArgs;
use clap::Args;
use push0_bus::Pipelines;
use push0_domain::pipeline::{Pipeline, Source};
use serde_json::json;

#[derive(Args, Debug)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    file: FileArgs,
    /// Put this revision back, which was lost or cannot be read: blocks in flight that name it go on by the file. The
    /// current definition stays.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    revision: Option<u32>,
}

pub(super) async fn run(context: &Context, args: &ApplyArgs) -> Result<(), Failure> {
    let pipeline = args.file.load()?;
    let name = pipeline.name.clone();
    let bus = context.bus().await?;
    let pipelines = Pipelines::bind(&bus).await?;
    if let Some(revision) = args.revision {
        pipelines.put_back(pipeline, revision).await?;
        return match context.json {
            true => output::json(&json!({ "pipeline": name, "revision": revision })),
            false => output::line(&format!("{name}: revision {revision} is back")),
        };
    }
    let is_anew = match pipelines.current_of(&name).await {
        // What cannot be read is overwritten.
        Err(error) if error.is_damage() => false,
        before => begins_anew(before?.as_deref(), &pipeline),
    };
    let goes_on = if is_anew {
        position(&bus, &name).await?.next()
    } else {
        None
    };
    let source = pipeline.source.clone();
    let revision = pipelines.apply(pipeline).await?;
    if context.json {
        return output::json(&json!({ "pipeline": name, "revision": revision, "goes_on_at": goes_on }));
    }
    output::line(&format!("{name}: revision {revision}"))?;
    let Some(next) = goes_on else { return Ok(()) };
    let way = match source {
        Source::Ethereum(_) => format!("; `push0 pipeline reset {name} --from N` goes back to block N"),
        Source::File { .. } | Source::Http | Source::External => String::new(),
    };
    output::line(&format!(
        "{name}: goes on at block {next}, where its ingestion stopped, and not at the start of its source{way}"
    ))
}

/// Returns whether a reader of the file may expect the pipeline to begin at the start of its source: the pipeline was
/// removed before, or has another source.
fn begins_anew(before: Option<&Pipeline>, after: &Pipeline) -> bool {
    before.is_none_or(|before| before.source != after.source)
}
