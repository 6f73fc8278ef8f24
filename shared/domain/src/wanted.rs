//! Decides whether work on a block is still wanted. Positions in the stream BLOCKS decide, and no clock.
//!
//! A block is *announced* by a message of BLOCKS, and announced again when the chain returns to the block. All
//! work is done for one announcement, and some of it for an operator's retry ([`Claim`]). An event about the
//! block's number leaves this demand for the work:
//!
//! | event | work for the block | an operator's retry |
//! |---|---|---|
//! | a record for the same announcement or a later one | recorded | wanted: the retry amends the record |
//! | a cancellation, deadline or refusal that names the block, after the announcement | ended | wanted |
//! | a reorg after the announcement | replaced | replaced |
//! | none of these | wanted | wanted |
//!
//! A reorg replaces unnamed blocks under its numbers as well, because an earlier reorg had replaced them
//! already. A cancellation without hashes names every block under its numbers.
//!
//! A range has the announcement of its last block, and an end of any of its blocks ends the range. Only the
//! first and the last hash of a range are compared. The blocks between them are ancestors of the last one, and
//! the chain replaces no block without the blocks on top of it.

use crate::{BlockHash, BlockRef, StageKey};
use serde::{Deserialize, Serialize};

/// One announcement of a block: the sequence of its message in BLOCKS. A later announcement is greater.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Announcement(pub u64);

impl Announcement {
    /// Returns the position right after this one, which is the `before` of an end of this announcement.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// Returns the position right before this one.
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

/// The announcement, and possibly the retry, for which work on a block is done. Of two messages for the same
/// attempt, the one with the greater claim is wanted; the other one is obsolete.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Claim {
    /// The announcement of the block; for a range, of its last block.
    pub announcement: Announcement,
    /// Whether an operator retries a dead letter, to amend the block's record.
    pub is_retry: bool,
}

impl Claim {
    /// Returns the claim of the work that the announcement itself asks for.
    pub fn first(announcement: Announcement) -> Self {
        Self {
            announcement,
            is_retry: false,
        }
    }
}

/// A message that asks for work on a block.
pub trait Claims {
    /// Returns the claim for which the message asks for work.
    fn claim(&self) -> Claim;
}

/// Whether work is wanted, and which kind of event made it superfluous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Demand {
    /// The work is wanted.
    Wanted,
    /// The block has its record.
    Recorded,
    /// The block ends without a proof, and its record will say so.
    Ended,
    /// The chain replaced the block, which gets no record.
    Replaced,
}

impl Demand {
    /// Returns whether the work is wanted.
    pub fn is_wanted(self) -> bool {
        self == Self::Wanted
    }
}

/// Returns the demand for work after a record of the same block number. `recorded` is the record's announcement.
pub fn assess_record(recorded: Announcement, claim: Claim) -> Demand {
    if !claim.is_retry && claim.announcement <= recorded {
        Demand::Recorded
    } else {
        Demand::Wanted
    }
}

/// The blocks that work is about: a single block, or a range, named by its first and its last block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    first: BlockRef,
    last: BlockRef,
}

impl From<BlockRef> for Blocks {
    fn from(block: BlockRef) -> Self {
        Self {
            first: block,
            last: block,
        }
    }
}

impl From<&StageKey> for Blocks {
    fn from(stage: &StageKey) -> Self {
        Self {
            first: stage.first_block(),
            last: stage.block,
        }
    }
}

/// The blocks that end without a proof, by number, hash and announcement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended<'a> {
    /// The first block number.
    pub first: u64,
    /// The last block number, inclusive.
    pub last: u64,
    /// The hashes of the blocks; empty for every block with these numbers.
    pub hashes: &'a [BlockHash],
    /// The blocks announced before this position end.
    pub before: Announcement,
    /// Whether the chain replaced the blocks.
    pub is_reorg: bool,
}

impl Ended<'_> {
    /// Returns the demand for work on `blocks` after this end. The caller has compared the pipeline.
    pub fn assess(&self, blocks: impl Into<Blocks>, claim: Claim) -> Demand {
        let Blocks { first, last } = blocks.into();
        let is_within = first.number <= self.last && self.first <= last.number;
        if !is_within || claim.announcement >= self.before {
            return Demand::Wanted;
        }
        if self.is_reorg {
            return Demand::Replaced;
        }
        let names = |block: BlockRef| self.hashes.contains(&block.hash);
        let is_named = self.hashes.is_empty() || names(last) || names(first);
        if is_named && !claim.is_retry {
            Demand::Ended
        } else {
            Demand::Wanted
        }
    }
}
