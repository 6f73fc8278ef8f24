//! `push0 pipeline reset NAME --from N`: goes back to a block and accepts the node's chain from there.

use super::selection::Named;
use crate::context::Context;
use crate::failure::Failure;
use crate::output;
use clap::Args;
use push0_bus::{Backoff, Bucket, Bus, Facts};
use push0_domain::PipelineId;
use push0_domain::pipeline::{Pipeline, Position, Reset, Source};
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

/// Time limit for the ingester's answer. The wish stays stored beyond it.
const ANSWER_MAX: Duration = Duration::from_secs(15);

#[derive(Args, Debug)]
pub(crate) struct ResetArgs {
    #[command(flatten)]
    named: Named,
    /// First block to take from the node again: at most the block after the last ingested one. The node's block must
    /// follow the ingested one before it, or be the pipeline's first block or a lower one.
    #[arg(long, value_name = "N")]
    from: u64,
}

/// The ingester's answer to a wish to go back.
enum Answer {
    Done,
    Refused(String),
    /// No ingester has answered yet.
    Waits,
}

pub(super) async fn run(context: &Context, args: &ResetArgs) -> Result<(), Failure> {
    let (name, from) = (&args.named.name, args.from);
    let bus = context.bus().await?;
    is_followed(&*args.named.current(&bus).await?)?;
    let before = position(&bus, name).await?;
    let wishes: Facts<Reset> = bus.facts(Bucket::State).await?;
    let key = Reset::key(name);
    let wish = Reset { from, refused: None };
    let revision = wishes.put(&key, &wish).await?;
    let replaced = before
        .block
        .map(|block| block.number)
        .filter(|last| *last >= from);
    let answer = match answer(&wishes, &key, revision).await? {
        Answer::Refused(reason) => {
            return Err(Failure::failed(format!("{name}: nothing was changed: {reason}")));
        }
        Answer::Done => "done",
        Answer::Waits => "stored",
    };
    if context.json {
        return output::json(
            &json!({ "pipeline": name, "from": from, "replaced_to": replaced, "reset": answer }),
        );
    }
    let effect = match replaced {
        Some(last) => format!("blocks {from}..{last} are replaced by the node's chain"),
        None => format!("no block is replaced, and the next one is {from}"),
    };
    output::line(&match answer {
        "done" => format!("{name}: {effect}"),
        _ => format!(
            "{name}: the reset to block {from} is stored: it takes effect when an ingester leads the pipeline and the \
             node has block {from}"
        ),
    })
}

/// Returns an error unless the ingester follows a node for this pipeline.
fn is_followed(pipeline: &Pipeline) -> Result<(), Failure> {
    let way = match pipeline.source {
        Source::Ethereum(_) => return Ok(()),
        Source::File { .. } => "append the replacing blocks to its file",
        Source::Http => "post the replacing blocks",
        Source::External => "its publisher announces the replacing blocks",
    };
    Err(Failure::failed(format!(
        "{}: only a pipeline with source.kind = \"ethereum\" can be reset: {way}",
        pipeline.name
    )))
}

/// Returns the position up to which a pipeline was ingested.
pub(super) async fn position(bus: &Bus, pipeline: &PipelineId) -> Result<Position, Failure> {
    let positions: Facts<Position> = bus.facts(Bucket::State).await?;
    let fact = positions.get(&Position::key(pipeline)).await?;
    Ok(fact.and_then(|fact| fact.value).unwrap_or_default())
}

/// Waits for the ingester's answer to the wish of this revision.
async fn answer(wishes: &Facts<Reset>, key: &str, revision: u64) -> Result<Answer, Failure> {
    let until = Instant::now() + ANSWER_MAX;
    let mut backoff = Backoff::default();
    loop {
        match wishes.get(key).await?.map(|fact| (fact.value, fact.revision)) {
            Some((
                Some(Reset {
                    refused: Some(reason),
                    ..
                }),
                _,
            )) => return Ok(Answer::Refused(reason)),
            // A newer wish has taken the place of this one.
            Some((Some(_), there)) if there != revision => return Ok(Answer::Waits),
            Some((Some(_), _)) => {}
            Some((None, _)) | None => return Ok(Answer::Done),
        }
        if Instant::now() >= until {
            return Ok(Answer::Waits);
        }
        backoff.pause().await;
    }
}
