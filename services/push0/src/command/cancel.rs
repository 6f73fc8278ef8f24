//! `push0 cancel`: tells the dispatcher to stop work on blocks that no longer need a proof.

use crate::block_range::BlockRange;
use crate::context::Context;
use crate::failure::Failure;
use crate::options::Of;
use crate::output;
use clap::Args;
use push0_bus::Message;
use push0_domain::message::{BlockEvent, Cancel, EndReason, clip};
use push0_domain::{subject, trace::TraceContext};
use serde_json::json;

#[derive(Args, Debug)]
pub(crate) struct CancelArgs {
    #[command(flatten)]
    of: Of,
    /// A block number, or FIRST..LAST with both included.
    #[arg(value_name = "BLOCK|FIRST..LAST")]
    blocks: BlockRange,
    /// Reason, stored in the records of these blocks.
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    note: String,
}

pub(crate) async fn run(context: &Context, args: &CancelArgs) -> Result<(), Failure> {
    let bus = context.bus().await?;
    let pipeline = context.pipeline(&bus, &args.of).await?;
    let BlockRange { first, last } = args.blocks;
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
    let recorded = next.map_or(0, |next| next.min(last.saturating_add(1)).saturating_sub(first));
    let recorded = match recorded {
        0 => String::new(),
        count => format!("; {count} of them have their record already and keep it"),
    };
    output::line(&format!(
        "{pipeline}: the cancellation of blocks {first}..{last} is stored{recorded}"
    ))
}
