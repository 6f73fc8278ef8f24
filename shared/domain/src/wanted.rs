//! Decides whether work on a block is still wanted. Positions in the stream BLOCKS decide, and no clock.
//!
//! A block is *announced* by a message of BLOCKS, and announced again when the chain returns to the block. All
//! work is done for one announcement, and some of it for an operator's retry ([`Claim`]). An event about the
//! same block number makes work superfluous if the block was announced before the event:
//!
//! | event | work for the block | an operator's retry |
//! |---|---|---|
//! | a record for the same announcement or a later one | recorded | wanted: the retry amends the record |
//! | a cancellation, a deadline, or a refusal that names the block | ended | wanted |
//! | a reorg, whether it names the block or not | replaced | replaced |
//! | any event before the announcement, and no event | wanted | wanted |
//!
//! A reorg need not name a block announced before it: an earlier reorg had replaced that block already, or else
//! this reorg would name the block. A cancellation without hashes names every block under its numbers.
//!
//! For a range, the announcement is that of its last block, and an end of any of its blocks ends the range. Of
//! the hashes of a range only the first and the last are compared. The blocks between them are ancestors of the
//! last one, and the chain replaces no block without the blocks on top of it.

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

/// The reason for which work on a block is done. Of two messages for the same attempt, the one with the
/// greater claim is wanted; the other one is obsolete.
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

/// Whether work is wanted, and the kind of event that made it superfluous.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The work is wanted.
    Wanted,
    /// The block has its record.
    Recorded,
    /// The block ends without a proof, and its record will say so.
    Ended,
    /// The chain replaced the block, which gets no record.
    Replaced,
}

impl Verdict {
    /// Returns whether the work is wanted.
    pub fn is_wanted(self) -> bool {
        self == Self::Wanted
    }
}

/// Returns the verdict of a record on work for the same block number. `recorded` is the announcement that the
/// record is about.
pub fn after_record(recorded: Announcement, claim: Claim) -> Verdict {
    if !claim.is_retry && claim.announcement <= recorded {
        Verdict::Recorded
    } else {
        Verdict::Wanted
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
    /// Returns the verdict of this end on work for `blocks`. The caller has compared the pipeline.
    pub fn verdict(&self, blocks: impl Into<Blocks>, claim: Claim) -> Verdict {
        let Blocks { first, last } = blocks.into();
        let is_within = first.number <= self.last && self.first <= last.number;
        if !is_within || claim.announcement >= self.before {
            return Verdict::Wanted;
        }
        if self.is_reorg {
            return Verdict::Replaced;
        }
        let names = |block: BlockRef| self.hashes.contains(&block.hash);
        let is_named = self.hashes.is_empty() || names(last) || names(first);
        if is_named && !claim.is_retry {
            Verdict::Ended
        } else {
            Verdict::Wanted
        }
    }
}
