//! `push0 cancel`: tells the dispatcher to stop work on blocks that no longer need a proof.

use crate::block_range::{BlockRange, BlocksArg};
use crate::context::Context;
use crate::failure::Failure;
use crate::options::Of;
use crate::{output, retrying};
use clap::Args;
use push0_bus::{Bucket, Bus, Message};
use push0_domain::message::{BlockEvent, Cancel, EndReason, clip};
use push0_domain::pipeline::Position;
use push0_domain::{PipelineId, subject, trace::TraceContext};
use push0_operate::cancel;
use serde_json::json;

#[derive(Args, Debug)]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    of: Of,
    /// A block number, FIRST..LAST with both included, or 0x and the beginning of a hash.
    #[arg(value_name = "BLOCK|FIRST..LAST")]
    blocks: BlocksArg,
    /// Reason, stored in the records of these blocks.
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    note: String,
}

pub(crate) async fn run(context: &Context, args: &CancelArgs) -> Result<(), Failure> {
    let bus = context.bus().await?;
    let pipeline = context.pipeline(&bus, &args.of).await?;
    let blocks = args.blocks.numbers(&bus, &pipeline).await?;
    let BlockRange { first, last } = blocks;
    let event = BlockEvent::Cancelled(Cancel {
        pipeline: pipeline.clone(),
        first,
        last,
        hashes: Vec::new(),
        reason: EndReason::Cancelled {
            note: clip(&args.note),
        },
    });
    bus.publish(Message::new(
        subject::cancel(&pipeline),
        &event,
        &TraceContext::default(),
    )?)
    .await?;
    if context.json {
        return output::json(&json!({ "pipeline": pipeline, "first": first, "last": last }));
    }
    let next = bus.output(&pipeline).await?.map(|(output, _)| output.next());
    let announced = announced(&bus, &pipeline).await?;
    let retried = match next {
        Some(next) => retrying::numbers(&bus, &pipeline, blocks, next).await?.len(),
        None => 0,
    };
    let named = if first == last {
        format!("block {first}")
    } else {
        format!("blocks {first}..{last}")
    };
    output::line(&format!(
        "{pipeline}: the cancellation of {named} is stored{}",
        cancel::effect(first..=last, next, announced) + &retries(retried)
    ))
}

/// Returns the number of the last block that the ingester announced; `None` if no ingester serves the pipeline.
async fn announced(bus: &Bus, pipeline: &PipelineId) -> Result<Option<u64>, Failure> {
    let cursors = bus.facts::<Position>(Bucket::State).await?;
    let cursor = cursors.look(&Position::key(pipeline)).await?.and_then(Result::ok);
    let block = cursor
        .and_then(|fact| fact.value)
        .and_then(|position| position.block);
    Ok(block.map(|block| block.number))
}

/// Says that a retry goes on: a cancellation ends the work for an announcement, and a retry amends a record.
fn retries(count: usize) -> String {
    let named = match count {
        0 => return String::new(),
        1 => "an operator's retry of a dead block is under way and goes on".to_owned(),
        _ => format!("operators' retries of {count} dead blocks are under way and go on"),
    };
    format!("; {named}: docs/runbooks/queue-held.md tells how a retry ends")
}
