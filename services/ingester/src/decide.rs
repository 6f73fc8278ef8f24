//! What is to be done about a block: pure rules over what was published.
//!
//! [`History`] is the end of the published chain. [`follow`] compares it with a chain that somebody
//! else grows, [`offer`] with blocks that somebody submits. Both answer with [`Action`]s that keep
//! one promise: whoever applies them in order holds an unbroken, parent-linked chain, and every
//! block that left it was cancelled. No clock, no chance, no I/O.

pub mod follow;
pub mod offer;
#[cfg(test)]
mod tests;

use push0_domain::{BlockHash, BlockRef};
use std::collections::VecDeque;

/// How many published blocks are remembered: the deepest reorg that is followed. Ethereum finalises
/// after 64 blocks; what reaches deeper is another chain, or an operator's business.
pub const DEPTH: usize = 64;
/// How many blocks are on their way at most: what a crash may publish a second time.
pub const WINDOW: u64 = 32;
/// How many blocks are asked for before the chain's head is looked at again.
pub const RANGE: u64 = 512;

/// A block and the hash of the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The block.
    pub block: BlockRef,
    /// The hash of its parent.
    pub parent_hash: BlockHash,
}

/// What is to be done, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// These blocks, in ascending order, are no longer wanted.
    Cancel {
        /// The replaced ones.
        replaced: Vec<BlockRef>,
        /// The last one that stays.
        back_to: Option<BlockRef>,
    },
    /// This block is the next one.
    Publish(Link),
}

/// The end of what was published of a pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    first: Option<u64>,
    recent: VecDeque<BlockRef>,
    ahead: VecDeque<BlockRef>,
}

impl History {
    /// A history as it was stored: the pipeline's first block number, the last published blocks in
    /// ascending order without gaps, and those after them that may or may not have been published.
    pub fn resumed(first: Option<u64>, recent: Vec<BlockRef>, ahead: Vec<BlockRef>) -> Self {
        Self {
            first,
            recent: recent.into(),
            ahead: ahead.into(),
        }
    }

    /// Begins at this number, unless it has begun.
    pub fn start_at(&mut self, first: u64) {
        self.first.get_or_insert(first);
    }

    /// The number of the pipeline's first block, once it is known.
    pub fn first(&self) -> Option<u64> {
        self.first
    }

    /// The last published block.
    pub fn tip(&self) -> Option<BlockRef> {
        self.recent.back().copied()
    }

    /// The number of the block to publish next; none before the first.
    pub fn next(&self) -> Option<u64> {
        self.tip().map(|tip| tip.number + 1).or(self.first)
    }

    /// The lowest number whose published block is remembered.
    pub fn oldest(&self) -> Option<u64> {
        self.recent.front().map(|block| block.number)
    }

    /// What was published under a number, as far as is remembered.
    pub fn hash_at(&self, number: u64) -> Option<BlockHash> {
        let position = usize::try_from(number.checked_sub(self.oldest()?)?).ok()?;
        self.recent.get(position).map(|block| block.hash)
    }

    /// Adds the next block. Whoever calls it has checked number and parent.
    fn append(&mut self, link: Link) -> Vec<Action> {
        let mut actions = Vec::new();
        match self.ahead.front() {
            // It may be out already: publishing it again is harmless, leaving it out is not.
            Some(ahead) if *ahead == link.block => drop(self.ahead.pop_front()),
            Some(_) => actions.extend(self.roll_back(link.block.number)),
            None => {}
        }
        self.first.get_or_insert(link.block.number);
        self.recent.push_back(link.block);
        if self.recent.len() > DEPTH {
            self.recent.pop_front();
        }
        actions.push(Action::Publish(link));
        actions
    }

    /// Takes back everything from this number on.
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
