//! Facts about blocks stored by the ingester: the trusted part of every proof's statement.

use crate::OperateError;
use push0_bus::{Bucket, Bus};
use push0_domain::message::KnownBlock;
use push0_domain::{BlockRef, PipelineId, subject};

/// Returns the facts about a block; `None` if it was never ingested or its facts have expired.
pub async fn of_block(
    bus: &Bus,
    pipeline: &PipelineId,
    block: &BlockRef,
) -> Result<Option<KnownBlock>, OperateError> {
    let facts = bus.facts::<KnownBlock>(Bucket::Blocks).await?;
    let fact = facts.find(&subject::facts::known_block(pipeline, block)).await?;
    // The key contains only a part of the hash.
    Ok(fact
        .and_then(|fact| fact.value)
        .filter(|known| known.block == *block))
}

/// Returns the facts about all blocks with this number: several after a reorg.
pub async fn of_number(
    bus: &Bus,
    pipeline: &PipelineId,
    number: u64,
) -> Result<Vec<KnownBlock>, OperateError> {
    let facts = bus.facts::<KnownBlock>(Bucket::Blocks).await?;
    let found = facts
        .list(&subject::facts::known_blocks(pipeline, number))
        .await?;
    Ok(found.into_iter().filter_map(|fact| fact.value).collect())
}
