//! The blocks that the model holds: bounded in number and in bytes, whatever is told.
//!
//! A block makes room for others by this order. While more than half of the blocks are open, the open block that is
//! farthest ahead of its pipeline's output goes, because work on it begins last; blocks with an attempt under way stay
//! before others. Otherwise the oldest block with a record goes, which can be read again from its record.

use super::{
    attempt::{Attempt, Place},
    block::{Block, BlockId, Recorded},
    text::bytes_of,
};
use push0_domain::{PipelineId, Timestamp};
use std::{
    collections::{BTreeMap, btree_map},
    ops::RangeInclusive,
};

/// How many blocks are kept.
pub const BLOCKS_MAX: usize = 2_000;
/// How many bytes they may take, as far as the parts of a block can be counted.
pub(super) const BYTES_MAX: usize = 8 << 20;
/// How near to the output a block is shown whether or not an attempt is under way.
const NEAR: u64 = 256;
/// The allocations of an attempt: five ids.
const ATTEMPT_IDS: usize = 5 * 48;

/// Blocks by pipeline and number.
#[derive(Debug, Default)]
pub(super) struct Blocks {
    of: BTreeMap<BlockId, Block>,
    bytes: usize,
    open: usize,
}

impl Blocks {
    pub(super) fn get(&self, id: &BlockId) -> Option<&Block> {
        self.of.get(id)
    }

    pub(super) fn has(&self, id: &BlockId) -> bool {
        self.of.contains_key(id)
    }

    pub(super) fn iter(&self) -> btree_map::Iter<'_, BlockId, Block> {
        self.of.iter()
    }

    /// Returns the blocks of these numbers of a pipeline, in order.
    pub(super) fn of_numbers(
        &self,
        pipeline: &PipelineId,
        numbers: RangeInclusive<u64>,
    ) -> btree_map::Range<'_, BlockId, Block> {
        let (first, last) = BlockId::around(pipeline, numbers);
        // A range that ends before it begins would panic.
        let last = last.max(first.clone());
        self.of.range(first..=last)
    }

    /// Changes a block if it is held.
    pub(super) fn change<T>(&mut self, id: &BlockId, change: impl FnOnce(&mut Block) -> T) -> Option<T> {
        let block = self.of.get_mut(id)?;
        let (bytes, was_open) = (block.bytes(), block.is_open());
        let told = change(block);
        self.bytes = self.bytes.saturating_sub(bytes) + block.bytes();
        self.open = self.open.saturating_sub(usize::from(was_open)) + usize::from(block.is_open());
        Some(told)
    }

    /// Adds a block about which nothing was told, unless it is held.
    pub(super) fn add(&mut self, id: &BlockId, now: Timestamp) {
        if !self.has(id) {
            let block = Block::new(now);
            self.bytes += block.bytes();
            self.open += usize::from(block.is_open());
            self.of.insert(id.clone(), block);
        }
    }

    pub(super) fn remove(&mut self, id: &BlockId) -> Option<Block> {
        let block = self.of.remove(id)?;
        self.bytes = self.bytes.saturating_sub(block.bytes());
        self.open = self.open.saturating_sub(usize::from(block.is_open()));
        Some(block)
    }

    pub(super) fn len(&self) -> usize {
        self.of.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns whether a block must go.
    pub(super) fn is_over(&self) -> bool {
        self.len() > BLOCKS_MAX || self.bytes > BYTES_MAX
    }

    /// Returns whether there is room for an open block only in place of another one.
    pub(super) fn is_crowded(&self) -> bool {
        let is_full = self.len() >= BLOCKS_MAX || self.bytes >= BYTES_MAX - BYTES_MAX / 16;
        is_full && self.is_mostly_open()
    }

    fn is_mostly_open(&self) -> bool {
        self.open > self.len() / 2
    }

    /// Returns the block that makes room. `ahead` tells how far a block is ahead of the output of its pipeline.
    pub(super) fn first_to_go(&self, ahead: impl Fn(&BlockId) -> u64) -> Option<BlockId> {
        if self.is_mostly_open() {
            let open = self.of.iter().filter(|(_, block)| block.is_open());
            let last = open.max_by_key(|(id, block)| {
                let ahead = ahead(id);
                let is_far = ahead >= NEAR;
                (is_far, is_far && !block.is_under_way(), ahead)
            });
            return last.map(|(id, _)| id.clone());
        }
        let done = self.of.iter().filter(|(_, block)| !block.is_open());
        done.min_by_key(|(_, block)| block.at()).map(|(id, _)| id.clone())
    }
}

impl Block {
    /// Returns whether an attempt is released and has not ended.
    fn is_under_way(&self) -> bool {
        let mut released = self
            .attempts()
            .filter(|(_, attempt)| attempt.released_at.is_some());
        released.any(|(_, attempt)| !attempt.state.is_over())
    }

    /// Returns how many bytes the block takes, roughly.
    fn bytes(&self) -> usize {
        let attempts = self.attempts().map(|(_, attempt)| {
            let text = attempt
                .failure
                .as_ref()
                .map_or(0, |failure| failure.message.len());
            size_of::<Place>() + size_of::<Attempt>() + ATTEMPT_IDS + text
        });
        let stages = self.stages.values().map(|tasks| 192 + tasks.bytes());
        let recorded = match self.recorded().map(|record| &record.outcome) {
            Some(Recorded::Proved(proofs)) => proofs.len() * 1024,
            Some(Recorded::Dead(reason)) => reason.len(),
            Some(Recorded::Abandoned(reason)) => bytes_of(reason),
            None => 0,
        };
        let legs = self.recorded().map_or(0, |record| record.legs.len() * 256);
        let ended = self.ended().map_or(0, |(reason, _)| bytes_of(reason));
        size_of::<BlockId>()
            + size_of::<Self>()
            + attempts.sum::<usize>()
            + stages.sum::<usize>()
            + recorded
            + legs
            + ended
    }
}
