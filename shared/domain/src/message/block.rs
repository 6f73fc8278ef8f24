//! Bodies of the stream BLOCKS (blocks to prove and cancellations), and block data in other messages.

use crate::{BlockHash, BlockRef, Payload, PipelineId, StageKey, Timestamp};
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
    /// Returns when the broker stored the message of the first block of the range, or of the block itself
    /// if it is no range.
    pub fn first_stored_at(&self) -> Timestamp {
        self.first_stored_at.unwrap_or(self.stored_at)
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
/// `parent_hash` and `first_stored_at`, which are those of its first block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockContext {
    /// The applicable revision of the pipeline's definition.
    pub revision: u32,
    /// The hash of the block's parent; for a range, of the parent of its first block.
    pub parent_hash: BlockHash,
    /// When the broker stored the block's message, which is the start of the block's orchestration.
    pub stored_at: Timestamp,
    /// When the broker stored the message of a range's first block; `None` for a single block.
    #[serde(default)]
    pub first_stored_at: Option<Timestamp>,
    /// When the block's proof becomes worthless; `None` without a deadline.
    #[serde(default)]
    pub deadline_at: Option<Timestamp>,
    /// Whether this work is to amend the block's record, in which the block is dead. Set when an operator
    /// retries a dead letter.
    #[serde(default)]
    pub amends: bool,
    /// Facts about the block for tables.
    #[serde(default)]
    pub facts: BlockFacts,
}

/// The reason for which work on a block is done. Of two messages for the same attempt, the one with the
/// greater claim is wanted; the other one is obsolete.
///
/// A block is announced again when the chain returns to it, and retried (`amends`) after it was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// When the broker stored the announcement of the block.
    pub announced_at: Timestamp,
    /// Whether the work is to amend the block's record.
    pub amends: bool,
}

/// A message that asks for work on a block.
pub trait Claims {
    /// Returns the claim for which the message asks for work.
    fn claim(&self) -> Claim;
}

impl Claims for BlockContext {
    fn claim(&self) -> Claim {
        Claim {
            announced_at: self.stored_at,
            amends: self.amends,
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
    /// When the end was decided, by the broker's clock. A block announced later, because the chain returned
    /// to it, is wanted again.
    pub at: Timestamp,
    /// Why the blocks end without a proof.
    pub reason: EndReason,
}

impl BlockEnded {
    /// Returns whether work for `block`, announced at `announced_at`, ends. The caller has
    /// compared the pipeline.
    ///
    /// A block announced after `at`, because the chain returned to it, is wanted. Work with `amends` is
    /// also wanted, unless the chain replaced the block: a cancellation or a deadline ends only blocks
    /// without a record.
    pub fn covers(&self, block: &BlockRef, announced_at: Timestamp, amends: bool) -> bool {
        let named = self.hashes.is_empty() || self.hashes.contains(&block.hash);
        (self.first..=self.last).contains(&block.number)
            && named
            && announced_at <= self.at
            && self.may_end(amends)
    }

    fn may_end(&self, amends: bool) -> bool {
        !amends || self.reason == EndReason::Reorged
    }

    /// Returns whether work on `stage`, whose block was announced at `announced_at`, ends. For a range, one
    /// of its blocks is enough. The caller has compared the pipeline.
    ///
    /// Of a range's hashes only the first and the last are compared. The blocks between them are ancestors
    /// of the last one, and the chain replaces no block without the blocks on top of it.
    pub fn concerns(&self, stage: &StageKey, announced_at: Timestamp, amends: bool) -> bool {
        let (first, last) = stage.numbers().into_inner();
        let named = self.hashes.is_empty()
            || self.hashes.contains(&stage.block.hash)
            || self.hashes.contains(&stage.first_block().hash);
        let within = first <= self.last && self.first <= last;
        within && named && announced_at <= self.at && self.may_end(amends)
    }
}

impl EndReason {
    /// Returns whether the reason is the block's deadline. A proof stored before the deadline
    /// still counts then.
    pub fn is_late(&self) -> bool {
        matches!(self, Self::DeadlinePassed | Self::OutOfReach)
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
