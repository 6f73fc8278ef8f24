//! Decisions about blocks: pure rules over the blocks published so far.
//!
//! [`History`] is the end of the published chain. [`follow`] compares the history with an external chain,
//! [`offer`] with submitted blocks. Both return [`Action`]s. If the actions are carried out in order, the
//! published chain is unbroken and linked by parents, and every block removed from the chain was
//! cancelled. There is no clock, no randomness and no I/O: times are arguments.

pub mod ancestor;
pub mod begin;
pub mod follow;
pub mod futile;
pub mod offer;
pub mod patience;
pub mod reset;
pub mod rest;
pub mod silence;
pub mod still;
#[cfg(test)]
mod tests;
pub mod under_way;

use push0_domain::{BlockHash, BlockRef};
use std::collections::VecDeque;

/// Number of published blocks that are remembered where the source does not say otherwise: a deeper replacement
/// needs an operator.
pub const DEPTH: usize = 64;
/// Most blocks of a pipeline in flight, and thus most blocks published a second time after a crash.
pub const WINDOW: u64 = 32;
/// Most blocks requested from the source before its head is checked again.
pub const RANGE: u64 = 512;

/// A block and the hash of its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Number and hash of the block.
    pub block: BlockRef,
    /// The hash of the parent.
    pub parent_hash: BlockHash,
}

/// A step to carry out, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Cancel these blocks, in ascending order, because they were replaced.
    Cancel {
        /// The replaced blocks.
        replaced: Vec<BlockRef>,
        /// The last published block that stays; `None` if none is known.
        back_to: Option<BlockRef>,
    },
    /// Publish this block as the next one.
    Publish(Link),
}

/// The end of a pipeline's published chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct History {
    /// Number of blocks remembered.
    depth: usize,
    first: Option<u64>,
    recent: VecDeque<BlockRef>,
    ahead: VecDeque<BlockRef>,
}

impl Default for History {
    fn default() -> Self {
        Self::resumed(DEPTH, None, Vec::new(), Vec::new())
    }
}

impl History {
    /// Restores a stored history: the number of blocks to remember, the number of the pipeline's first block, the
    /// last published blocks in ascending order without gaps, and the blocks after them that may or may not have
    /// been published.
    pub fn resumed(depth: usize, first: Option<u64>, recent: Vec<BlockRef>, ahead: Vec<BlockRef>) -> Self {
        Self {
            depth,
            first,
            recent: recent.into(),
            ahead: ahead.into(),
        }
    }

    /// Sets the number of the first block, unless already set.
    pub fn start_at(&mut self, first: u64) {
        self.first.get_or_insert(first);
    }

    /// Returns the number of blocks remembered.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Returns whether a block stands on the published chain: its parent is published, or the block is the
    /// pipeline's first one.
    pub fn carries(&self, link: &Link) -> bool {
        let number = link.block.number;
        let parent = number.checked_sub(1).and_then(|before| self.hash_at(before));
        self.first == Some(number) || parent == Some(link.parent_hash)
    }

    /// Returns the number of the pipeline's first block; `None` until known.
    pub fn first(&self) -> Option<u64> {
        self.first
    }

    /// Returns the last published block; `None` if nothing was published.
    pub fn tip(&self) -> Option<BlockRef> {
        self.recent.back().copied()
    }

    /// Returns the number of the block to publish next; `None` if neither a block nor the first
    /// number is known.
    pub fn next(&self) -> Option<u64> {
        self.tip().map(|tip| tip.number + 1).or(self.first)
    }

    /// Returns the lowest number whose published block is remembered.
    pub fn oldest(&self) -> Option<u64> {
        self.recent.front().map(|block| block.number)
    }

    /// Returns the hash published under a number; `None` if there is none or it is no longer remembered.
    pub fn hash_at(&self, number: u64) -> Option<BlockHash> {
        let position = usize::try_from(number.checked_sub(self.oldest()?)?).ok()?;
        self.recent.get(position).map(|block| block.hash)
    }

    /// Appends the next block. The caller has checked number and parent.
    fn append(&mut self, link: Link) -> Vec<Action> {
        let mut actions = Vec::new();
        match self.ahead.front() {
            // The block may already be published. Publishing a block again is harmless, leaving one
            // out is not.
            Some(ahead) if *ahead == link.block => drop(self.ahead.pop_front()),
            Some(_) => actions.extend(self.roll_back(link.block.number)),
            None => {}
        }
        self.first.get_or_insert(link.block.number);
        self.recent.push_back(link.block);
        if self.recent.len() > self.depth {
            self.recent.pop_front();
        }
        actions.push(Action::Publish(link));
        actions
    }

    /// Removes all blocks from this number on, and the ones in doubt. Returns their cancellation, or
    /// `None` if there was none.
    fn roll_back(&mut self, from: u64) -> Option<Action> {
        let keep = self.recent.iter().take_while(|b| b.number < from).count();
        let mut replaced: Vec<_> = self.recent.drain(keep..).collect();
        replaced.extend(self.ahead.drain(..));
        (!replaced.is_empty()).then(|| Action::Cancel {
            replaced,
            back_to: self.tip(),
        })
    }
}
