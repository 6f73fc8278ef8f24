//! Bodies of the stream BLOCKS (blocks to prove and cancellations), and block data in other messages.

use crate::{
    BlockHash, BlockRef, Payload, PipelineId, Timestamp,
    wanted::{Announcement, Blocks, Claim, Claims, Demand, Ended},
};
use serde::{Deserialize, Serialize};

/// Body of BLOCKS: a message from the ingester or an operator to the dispatcher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockEvent {
    /// A block to prove.
    Observed(ObservedBlock),
    /// Blocks that are no longer wanted.
    Cancelled(Cancel),
}

/// A block as the ingester observed it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedBlock {
    /// The pipeline that wants the block proved.
    pub pipeline: PipelineId,
    /// The applicable revision of the pipeline's definition.
    pub revision: u32,
    /// The block's number and hash.
    pub block: BlockRef,
    /// The hash of the block's parent.
    pub parent_hash: BlockHash,
    /// The witness, which the first stage of every proof reads.
    pub input: Payload,
    /// When the ingester observed the block.
    pub observed_at: Timestamp,
    /// When the block's proof becomes worthless; `None` without a deadline.
    #[serde(default)]
    pub deadline_at: Option<Timestamp>,
    /// Facts about the block as the chain reported them.
    #[serde(default)]
    pub facts: BlockFacts,
}

/// The trusted facts about a block. Only the ingester writes them, before the block is published;
/// statements of proofs are checked against these facts and never against values echoed by a prover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownBlock {
    /// The block's number and hash.
    pub block: BlockRef,
    /// The hash of the block's parent.
    pub parent_hash: BlockHash,
    /// The applicable revision of the pipeline's definition.
    pub revision: u32,
    /// When the ingester observed the block.
    pub observed_at: Timestamp,
    /// The newest message of BLOCKS known to the ingester when it wrote the fact. The block's announcement comes
    /// later. The ingester writes the fact again before each announcement of the block.
    pub announced_after: Announcement,
    /// The witness, with which an operator's retry can prove the block from its first stage again. `None` if the
    /// ingester keeps it elsewhere.
    #[serde(default)]
    pub input: Option<Payload>,
    /// Facts about the block as the chain reported them.
    #[serde(default)]
    pub facts: BlockFacts,
}

/// Facts about a block for tables and mock provers. No decision depends on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockFacts {
    /// Gas used by the block.
    #[serde(default)]
    pub gas_used: u64,
    /// Number of transactions in the block.
    #[serde(default)]
    pub transactions: u32,
    /// The block's own timestamp, in seconds since the Unix epoch.
    #[serde(default)]
    pub timestamp_s: u64,
}

impl BlockContext {
    /// Returns the announcement of the first block of the range, or of the block itself if it is no range.
    pub fn first_announcement(&self) -> Announcement {
        self.first_announcement.unwrap_or(self.announcement)
    }
}

/// Cancellation of blocks that need no proof any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// The pipeline of the blocks.
    pub pipeline: PipelineId,
    /// The first block number.
    pub first: u64,
    /// The last block number, inclusive.
    pub last: u64,
    /// Limits the cancellation to blocks of these hashes; empty means every block with these numbers.
    #[serde(default)]
    pub hashes: Vec<BlockHash>,
    /// Why the blocks need no proof.
    pub reason: EndReason,
}

/// Block data that accompanies all work on a block. For a range, the data of its last block, except
/// `parent_hash` and `first_announcement`, which are those of its first block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockContext {
    /// The applicable revision of the pipeline's definition.
    pub revision: u32,
    /// The hash of the block's parent; for a range, of the parent of its first block.
    pub parent_hash: BlockHash,
    /// The announcement of the block.
    pub announcement: Announcement,
    /// When the broker stored the announcement, which is the start of the block's orchestration; for an operator's
    /// retry, when it was asked for. Of two retries of a block, the later one counts. Otherwise a measurement, on
    /// which no decision depends.
    pub stored_at: Timestamp,
    /// The announcement of a range's first block; `None` for a single block.
    #[serde(default)]
    pub first_announcement: Option<Announcement>,
    /// When the block's proof becomes worthless; `None` without a deadline.
    #[serde(default)]
    pub deadline_at: Option<Timestamp>,
    /// Whether this work is to amend the block's record, which says that the block is dead. Set when an
    /// operator retries a dead letter.
    #[serde(default)]
    pub amends: bool,
    /// Facts about the block for tables.
    #[serde(default)]
    pub facts: BlockFacts,
}

impl Claims for BlockContext {
    fn claim(&self) -> Claim {
        Claim {
            announcement: self.announcement,
            is_retry: self.amends,
        }
    }
}

/// Notice of blocks that end without a proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockEnded {
    /// The pipeline of the blocks.
    pub pipeline: PipelineId,
    /// The first block number.
    pub first: u64,
    /// The last block number, inclusive.
    pub last: u64,
    /// Limits the notice to blocks of these hashes; empty means every block with these numbers.
    #[serde(default)]
    pub hashes: Vec<BlockHash>,
    /// Only blocks announced before this position end. A cancellation or reorg carries its own position; a
    /// deadline or refusal ends a single announcement and carries the next position. A block announced later,
    /// because the chain returned to it, is wanted again.
    pub before: Announcement,
    /// Why the blocks end without a proof.
    pub reason: EndReason,
}

impl BlockEnded {
    /// Returns the end of a single announcement of one block, because of its deadline or a refusal.
    pub fn of_one(
        pipeline: PipelineId,
        block: BlockRef,
        announcement: Announcement,
        reason: EndReason,
    ) -> Self {
        Self {
            pipeline,
            first: block.number,
            last: block.number,
            hashes: vec![block.hash],
            before: announcement.next(),
            reason,
        }
    }

    /// Returns the demand for work on `blocks` after this end. The caller has compared the pipeline.
    pub fn assess(&self, blocks: impl Into<Blocks>, claim: Claim) -> Demand {
        let ended = Ended {
            first: self.first,
            last: self.last,
            hashes: &self.hashes,
            before: self.before,
            is_reorg: self.reason == EndReason::Reorged,
        };
        ended.assess(blocks, claim)
    }
}

impl EndReason {
    /// Returns whether the reason is the block's deadline. A proof stored before the deadline
    /// still counts then.
    pub fn is_late(&self) -> bool {
        matches!(self, Self::DeadlinePassed | Self::OutOfReach)
    }

    /// Returns the reason of a block that misses its deadline at `now`: the deadline has passed, or the block
    /// cannot meet it any more.
    pub fn late(deadline_at: Option<Timestamp>, now: Timestamp) -> Self {
        if deadline_at.is_none_or(|deadline| deadline <= now) {
            Self::DeadlinePassed
        } else {
            Self::OutOfReach
        }
    }

    /// Returns whether the end is that of a single announcement. Cancellations and reorgs end all announcements
    /// before them.
    pub fn is_of_one_announcement(&self) -> bool {
        match self {
            Self::DeadlinePassed | Self::OutOfReach | Self::Refused { .. } => true,
            Self::Cancelled { .. } | Self::Reorged => false,
        }
    }
}

/// Why a block gets no proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// An operator cancelled the block.
    Cancelled {
        /// The operator's note.
        note: String,
    },
    /// The chain replaced the block: another block of the same number follows.
    Reorged,
    /// The block's deadline passed.
    DeadlinePassed,
    /// The block could not meet its deadline any more: by the pipeline's `fastest`, the remaining stages
    /// take longer than the remaining time.
    OutOfReach,
    /// The block names a revision of its pipeline that was never defined.
    Refused {
        /// The id of the dead letter that holds the block's message.
        dead_letter: String,
        /// The reason in one line.
        reason: String,
    },
}
