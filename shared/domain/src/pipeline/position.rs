//! The position up to which a pipeline was ingested, and an operator's wish to go back to an earlier block.

use crate::{BlockRef, PipelineId};
use serde::{Deserialize, Serialize};

/// The part of an ingester's cursor that other processes read. Only the ingester writes the cursor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// The number of the pipeline's first block; `None` until known. A cursor without the field is damaged: read as a
    /// new one, it would begin the pipeline anew.
    #[serde(deserialize_with = "Option::deserialize")]
    pub first: Option<u64>,
    /// The last published block; `None` if nothing was published.
    #[serde(deserialize_with = "Option::deserialize")]
    pub block: Option<BlockRef>,
}

impl Position {
    /// Returns the key of the cursor in the bucket of states.
    pub fn key(pipeline: &PipelineId) -> String {
        format!("cursor.ingester.{pipeline}")
    }

    /// Returns the number to ingest next; `None` if the pipeline has not begun.
    pub fn next(&self) -> Option<u64> {
        self.block
            .map(|block| block.number.saturating_add(1))
            .or(self.first)
    }
}

/// A wish of an operator, stored for the ingester: accept the chain of the node from block `from` on, and replace
/// the published blocks from there. The ingester removes the wish when it has done so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reset {
    /// The first number to ingest again.
    pub from: u64,
    /// Why the ingester did not do so, with the way out; `None` until then.
    #[serde(default)]
    pub refused: Option<String>,
}

impl Reset {
    /// Returns the key of the wish in the bucket of states.
    pub fn key(pipeline: &PipelineId) -> String {
        format!("reset.ingester.{pipeline}")
    }

    /// Returns the command that makes the wish, for messages to operators.
    pub fn command(pipeline: &PipelineId, from: u64) -> String {
        format!("push0 pipeline reset {pipeline} --from {from}")
    }
}
