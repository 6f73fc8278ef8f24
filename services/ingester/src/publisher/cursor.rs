//! Position of a pipeline's ingestion, for its next leader.

use push0_domain::{BlockRef, PipelineId, pipeline::Position};
use serde::{Deserialize, Serialize};

/// Position of a pipeline's ingestion: the fact `cursor.ingester.<pipeline>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The last block stored by the broker; the next leader continues after this block.
    #[serde(deserialize_with = "Option::deserialize")]
    pub block: Option<BlockRef>,
    /// Number of the pipeline's first block; `None` until known.
    #[serde(deserialize_with = "Option::deserialize")]
    pub first: Option<u64>,
    /// Blocks after `block` that may or may not have been published.
    #[serde(default)]
    pub ahead: Vec<BlockRef>,
    /// Number of reorgs in which published blocks were replaced.
    #[serde(default)]
    pub reorgs: u32,
    /// Number of lines read from the file; only for files.
    #[serde(default)]
    pub line: u64,
    /// Revision of the last wish of an operator to go back that was carried out; 0 if there was none.
    #[serde(default)]
    pub reset: u64,
}

impl Cursor {
    /// Returns the key of the fact.
    pub(super) fn key(pipeline: &PipelineId) -> String {
        Position::key(pipeline)
    }

    /// Returns the blocks in doubt after this number.
    pub(super) fn ahead_of(&self, number: u64) -> Vec<BlockRef> {
        let beyond = self.ahead.iter().filter(|block| block.number > number);
        beyond.copied().collect()
    }

    /// Returns the message id of a block. A chain may return to a replaced block. The id changes with
    /// each reorg, so that the broker does not drop the returning block as a duplicate.
    pub(super) fn message_id(&self, pipeline: &PipelineId, block: &BlockRef) -> String {
        match self.reorgs {
            0 => format!("{pipeline}.{}", block.key()),
            reorgs => format!("{pipeline}.{}.{reorgs}", block.key()),
        }
    }
}
