//! BLOCKS: what is to be proved, and what no longer is.

use crate::{BlockHash, BlockRef, Payload, PipelineId, StageKey, Timestamp};
use serde::{Deserialize, Serialize};

/// BLOCKS: what the ingester tells the dispatcher.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BlockEvent {
    /// A block to prove.
    Observed(ObservedBlock),
    /// Blocks that are no longer wanted.
    Cancelled(Cancel),
}

/// A block as the ingester saw it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObservedBlock {
    /// The pipeline that wants it proved.
    pub pipeline: PipelineId,
    /// The revision of the pipeline's definition that applies to it.
    pub revision: u32,
    /// The block.
    pub block: BlockRef,
    /// The hash of its parent.
    pub parent_hash: BlockHash,
    /// The witness: what its first stages get.
    pub input: Payload,
    /// When the ingester saw it.
    pub observed_at: Timestamp,
    /// When its proof is worthless, if ever.
    #[serde(default)]
    pub deadline_at: Option<Timestamp>,
    /// What the chain said about it.
    #[serde(default)]
    pub facts: BlockFacts,
}

/// What is known of a block for certain: written by the ingester before the block is published, and
/// by nobody else. Statements of proofs are checked against it, never against what a prover echoes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownBlock {
    /// The block.
    pub block: BlockRef,
    /// The hash of its parent.
    pub parent_hash: BlockHash,
    /// The revision of the pipeline that applies to it.
    pub revision: u32,
    /// When the ingester saw it.
    pub observed_at: Timestamp,
    /// What the chain said about it.
    #[serde(default)]
    pub facts: BlockFacts,
}

/// Facts about a block for tables and mock provers; no decision rests on them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockFacts {
    /// Gas used.
    #[serde(default)]
    pub gas_used: u64,
    /// Number of transactions.
    #[serde(default)]
    pub transactions: u32,
    /// The block's own timestamp, seconds since the Unix epoch.
    #[serde(default)]
    pub timestamp_s: u64,
}

impl BlockContext {
    /// When the broker had stored the message of the first block that it is about.
    pub fn first_stored_at(&self) -> Timestamp {
        self.first_stored_at.unwrap_or(self.stored_at)
    }
}

/// Blocks that need no proof any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// Whose blocks.
    pub pipeline: PipelineId,
    /// The first block number.
    pub first: u64,
    /// The last block number, inclusive.
    pub last: u64,
    /// Only the blocks of these hashes; empty means whatever is known under these numbers.
    #[serde(default)]
    pub hashes: Vec<BlockHash>,
    /// Why.
    pub reason: EndReason,
}

/// What every message about a block carries along. Of a range: its last block's, but for what
/// concerns where it begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockContext {
    /// The revision of the pipeline that applies.
    pub revision: u32,
    /// The hash of the block's parent; of the first block's, in a range.
    pub parent_hash: BlockHash,
    /// When the broker had stored the block's message: the start of its orchestration.
    pub stored_at: Timestamp,
    /// The same of the first block of a range.
    #[serde(default)]
    pub first_stored_at: Option<Timestamp>,
    /// When its proof is worthless, if ever.
    #[serde(default)]
    pub deadline_at: Option<Timestamp>,
    /// Whether the block's record says that it is dead, and this work is to amend it: an operator
    /// retries a dead letter.
    #[serde(default)]
    pub amends: bool,
    /// Facts for tables.
    #[serde(default)]
    pub facts: BlockFacts,
}

/// What work on a block is done for: of two for the same attempt the greater one is wanted, and nobody
/// waits for the other.
///
/// A block that the chain comes back to is announced again; one that was given up is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// When the broker had stored the announcement.
    pub announced_at: Timestamp,
    /// Whether it is to amend the block's record.
    pub amends: bool,
}

/// A message that asks for work.
pub trait Claims {
    /// What the work is for.
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

/// A block is finished without a proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockEnded {
    /// Whose block.
    pub pipeline: PipelineId,
    /// The first number.
    pub first: u64,
    /// The last number, inclusive.
    pub last: u64,
    /// Only the blocks of these hashes; empty means all under these numbers.
    #[serde(default)]
    pub hashes: Vec<BlockHash>,
    /// When that was decided, by the broker's clock: a block that is announced again later, as the
    /// chain may go back to it, is wanted.
    pub at: Timestamp,
    /// Why.
    pub reason: EndReason,
}

impl BlockEnded {
    /// Whether it concerns work for a block of its pipeline that was announced at `announced_at`.
    ///
    /// A block that is announced again later, because the chain went back to it, is wanted. So is work
    /// that `amends` a record: what a cancellation or a deadline ends has none yet.
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

    /// Whether it concerns a stage of its pipeline whose block was announced at `announced_at`: of a
    /// range, one of its blocks. Those between the first and the last are of the chain of the last, and
    /// the chain replaces no block without those on top of it.
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
    /// Whether it is about the block's deadline: a proof that came all the same counts.
    pub fn is_late(&self) -> bool {
        matches!(self, Self::DeadlinePassed | Self::OutOfReach)
    }
}

/// Why a block gets no proof.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EndReason {
    /// An operator cancelled it.
    Cancelled {
        /// What the operator said.
        note: String,
    },
    /// The chain replaced it: a block of the same number and another hash follows.
    Reorged,
    /// Its deadline passed.
    DeadlinePassed,
    /// Its deadline could not be met any more: what was left takes longer, by the pipeline's `fastest`.
    OutOfReach,
    /// It names a revision of its pipeline that nobody defined.
    Refused {
        /// The dead letter's id.
        dead_letter: String,
        /// In a line.
        reason: String,
    },
}
