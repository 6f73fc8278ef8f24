//! With which number the output of a pipeline begins that has no record yet.
//!
//! Nobody may wait for a number that nobody publishes. What the ingester knows of a block is no promise
//! that the block follows: a leader that was deposed, or a broker that lost its store, may end it in
//! between. The ingester's cursor is such a promise: it says where the pipeline begins before anything of
//! it is published, and whoever leads goes on from there.

use crate::pipeline::{first_known, known_at};
use push0_bus::{Bucket, Bus, BusError, Facts, Pipelines};
use push0_domain::{
    BlockRef, PipelineId,
    message::KnownBlock,
    pipeline::{Pipeline, Source},
};
use serde::{Deserialize, Serialize};

/// What is read of the fact `cursor.ingester.<pipeline>`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Cursor {
    /// The number of the pipeline's first block.
    first: Option<u64>,
    /// The last block that was published.
    block: Option<BlockRef>,
}

/// The number to begin with; none if no block of the pipeline was ever observed.
///
/// Of an external ingester only facts are known, which it writes before their blocks.
pub(crate) async fn first_number(
    bus: &Bus,
    pipelines: &Pipelines,
    known: &Facts<KnownBlock>,
    name: &PipelineId,
) -> Result<Option<u64>, BusError> {
    let cursors: Facts<Cursor> = bus.facts(Bucket::State).await?;
    let cursor = cursors.get(&format!("cursor.ingester.{name}")).await?;
    let cursor = cursor.and_then(|fact| fact.value).unwrap_or_default();
    if let Some(first) = cursor.first {
        // Records expire, and what is known of their blocks before them. A pipeline that rested for so
        // long goes on with what comes now.
        let is_new = cursor.block.is_none() || !known_at(known, name, first).await?.is_empty();
        return if is_new {
            Ok(Some(first))
        } else {
            first_known(known, name).await
        };
    }
    let current = pipelines.current_of(name).await?;
    if current.is_some_and(|pipeline| has_cursor(&pipeline)) {
        return Err(BusError::Unavailable {
            what: format!("the first block of {name}"),
            reason: "its ingester has not written down where it begins".into(),
        });
    }
    first_known(known, name).await
}

/// Whether push0's own ingester publishes the blocks of a pipeline.
fn has_cursor(pipeline: &Pipeline) -> bool {
    pipeline.source != Source::External
}
