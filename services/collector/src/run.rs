//! Rules for beginning and closing a range.

use crate::{
    ends::Ends,
    state::{At, Block, Blocks},
};
use push0_domain::{BlockHash, Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Key of a range: its first number and its last block.
pub(crate) type Key = (u64, At);

/// Rules for closing a range, for blocks of one revision.
pub(crate) struct Rules<'a> {
    pub(crate) blocks: &'a Blocks,
    /// The number to emit next.
    pub(crate) next: u64,
    /// Tells which numbers were cancelled.
    pub(crate) ends: &'a Ends,
    /// Ready blocks in no range.
    pub(crate) free: &'a BTreeSet<At>,
    /// The range of each block in one.
    pub(crate) taken: &'a BTreeMap<At, Key>,
    /// Numbers at which a range must begin.
    pub(crate) cuts: &'a BTreeSet<u64>,
    pub(crate) every: u64,
    pub(crate) close_after: Duration,
    pub(crate) revision: u32,
}

impl Rules<'_> {
    /// Returns the range that begins with this block, if one begins here and is closed.
    pub(crate) fn run(&self, from: &At, now: Timestamp) -> Option<Vec<At>> {
        if from.0 < self.next {
            // The block has a record, and amends it as a range of its own.
            return Some(vec![*from]);
        }
        let block = self.blocks.get(from)?;
        if !self.begins(from.0, block) {
            return None;
        }
        let closes_at = block.ready()?.stored_at.plus(self.close_after);
        let mut run = vec![*from];
        while let Some((number, hash)) = run.last().copied() {
            if self.is_cut(number + 1) {
                break;
            }
            let ready =
                |(at, child): &(&At, &Block)| self.free.contains(at) && child.revision == self.revision;
            let next = self.children(number, hash).find(ready);
            match next.and_then(|(at, child)| Some((at, child.ready()?))) {
                Some((at, done)) if done.stored_at <= closes_at => run.push(*at),
                Some(_) => break,
                None if closes_at <= now || self.is_cut_off(number, hash) => break,
                None => return None,
            }
        }
        Some(run)
    }

    /// Returns whether a range begins with this block, because its parent cannot be in the same range.
    fn begins(&self, number: u64, block: &Block) -> bool {
        let parent = (number.saturating_sub(1), block.parent_hash);
        let unseen = !self.blocks.contains_key(&parent);
        number == self.next
            || self.is_cut(number)
            || self.is_out(&parent)
            || (unseen && self.is_cancelled(parent.0))
    }

    fn is_cut(&self, number: u64) -> bool {
        number.is_multiple_of(self.every) || self.cuts.contains(&number)
    }

    /// Returns whether no child of this block can be in the same range.
    fn is_cut_off(&self, number: u64, hash: BlockHash) -> bool {
        let unseen = self.children(number, hash).next().is_none();
        self.children(number, hash).any(|(at, _)| self.is_out(at))
            || (unseen && self.is_cancelled(number + 1))
    }

    /// Returns whether an operator cancelled a number. A known block carries its own end.
    fn is_cancelled(&self, number: u64) -> bool {
        self.ends.is_cancelled(number)
    }

    /// Returns whether a block cannot share a range with its neighbours: it is in another range, is given up,
    /// or has another revision.
    fn is_out(&self, at: &At) -> bool {
        let out = |block: &Block| block.is_given_up() || block.revision != self.revision;
        self.taken.contains_key(at) || self.blocks.get(at).is_some_and(|block| out(block))
    }

    fn children(&self, number: u64, hash: BlockHash) -> impl Iterator<Item = (&At, &Block)> {
        let (least, most) = (BlockHash::default(), BlockHash([0xff; 32]));
        let above = self.blocks.range((number + 1, least)..=(number + 1, most));
        let above = above.map(|(at, block)| (at, &**block));
        above.filter(move |(_, block)| block.parent_hash == hash)
    }
}
