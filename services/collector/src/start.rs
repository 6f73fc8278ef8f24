//! Finds the first number of a pipeline that has no record yet.
//!
//! The collector must not wait for a number that is never published. A fact about a block does not promise
//! the block: a deposed leader, or a broker that lost its store, may intervene. The ingester's cursor is
//! such a promise: it says where the pipeline begins before anything is published, and every later leader
//! goes on from there.

use crate::known::{first_known, known_at};
use push0_bus::{Bucket, Bus, BusError, Facts, Pipelines};
use push0_domain::{
    PipelineId,
    message::KnownBlock,
    pipeline::{Pipeline, Position, Source},
};

/// Returns the first number, or `None` if no block of the pipeline was ever observed.
///
/// An external ingester has no cursor here; its facts, written before their blocks, are used instead.
pub(crate) async fn first_number(
    bus: &Bus,
    pipelines: &Pipelines,
    known: &Facts<KnownBlock>,
    name: &PipelineId,
) -> Result<Option<u64>, BusError> {
    let cursors: Facts<Position> = bus.facts(Bucket::State).await?;
    let cursor = cursors.get(&Position::key(name)).await?;
    let cursor = cursor.and_then(|fact| fact.value).unwrap_or_default();
    if let Some(first) = cursor.first {
        // Of a pipeline that was removed and emitted nothing, the facts go. Applied again, the pipeline continues
        // with the blocks that come now.
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
            reason: "its ingester has not stored a cursor with the first block yet".into(),
        });
    }
    first_known(known, name).await
}

/// Returns whether push0's own ingester publishes the blocks of a pipeline.
fn has_cursor(pipeline: &Pipeline) -> bool {
    pipeline.source != Source::External
}
