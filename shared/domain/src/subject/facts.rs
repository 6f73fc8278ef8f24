//! Keys of the facts that services keep in buckets.

use crate::{BlockRef, PipelineId, ZkvmId};

/// Returns the key of the fact about the held queue of a zkVM.
pub fn hold(zkvm: &ZkvmId) -> String {
    format!("held.{zkvm}")
}

/// Returns the zkVM in the key of the fact about its held queue.
pub fn zkvm_of_hold(key: &str) -> Option<ZkvmId> {
    key.strip_prefix("held.")?.parse().ok()
}

/// Returns the filter of the facts about held queues.
pub fn holds() -> String {
    "held.*".into()
}

/// Returns the key of the ingester's facts about a block. Number and hash are separate tokens, so
/// [`known_blocks`] can select all blocks of a number.
pub fn known_block(pipeline: &PipelineId, block: &BlockRef) -> String {
    let [a, b, c, d, ..] = block.hash.0;
    format!("{pipeline}.{}.{}", block.number, hex::encode([a, b, c, d]))
}

/// Returns the filter for the keys of the ingester's facts about all blocks of one number. After a reorg
/// there are several.
pub fn known_blocks(pipeline: &PipelineId, number: u64) -> String {
    format!("{pipeline}.{number}.*")
}
