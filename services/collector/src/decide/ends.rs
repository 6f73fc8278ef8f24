//! Blocks that end without a proof: cancelled, replaced, or past their deadline.

use super::{Collector, Step};
use crate::state::{Block, Handle};
use push0_domain::{
    BlockHash, BlockRef, Timestamp,
    message::{BlockContext, BlockEnded, BlockFacts, EndReason, KnownBlock},
    output::Emitted,
    trace::TraceContext,
};

impl Collector {
    /// Blocks are no longer wanted.
    pub fn end(&mut self, handle: Handle, ended: BlockEnded) -> Vec<Step> {
        if !self.intake.take_in(handle) {
            return Vec::new();
        }
        if ended.reason == EndReason::Reorged {
            let is_replaced = |(number, emitted): &(&u64, &Emitted)| {
                let (number, hash) = (**number, emitted.hash);
                concerns(&ended, &BlockRef { number, hash }, emitted.announced_at, false)
            };
            let numbers = ended.first..=ended.last;
            let replaced = self.emitted.range(numbers).find(is_replaced);
            if let Some(number) = replaced.map(|(number, _)| *number) {
                // These were emitted already: the output goes back, and their successors follow.
                self.emitted.split_off(&number);
                self.next = self.next.min(number);
            }
        }
        if ended.last < self.next {
            return vec![Step::Ack(self.intake.settled(handle))];
        }
        let numbers = (ended.first, BlockHash::default())..=(ended.last, BlockHash([0xff; 32]));
        let concerned: Vec<_> = self
            .blocks
            .range(numbers)
            .filter(|(_, b)| concerns(&ended, &b.block, b.context.stored_at, self.amends(b)))
            .map(|(at, _)| *at)
            .collect();
        let mut handles = Vec::new();
        for at in concerned {
            if ended.reason == EndReason::Reorged {
                handles.extend(
                    self.blocks
                        .remove(&at)
                        .map(|mut b| b.take_handles())
                        .unwrap_or_default(),
                );
            } else if let Some(block) = self.blocks.get_mut(&at) {
                // What it holds stays unacknowledged until its record is stored: a proof that came in
                // time still counts after its deadline, also for a collector that starts over.
                block.ended.get_or_insert(ended.reason.clone());
                self.touched.insert(at);
            }
            handles.extend(self.ranges.without(&at, &self.blocks));
        }
        if ended.reason == EndReason::Reorged {
            let is_replaced = |unit: &Block| {
                let (announced_at, amends) = (unit.context.stored_at, unit.context.amends);
                concerns(&ended, &unit.block, announced_at, amends)
            };
            handles.extend(self.ranges.replaced(is_replaced, &self.blocks));
        }
        self.ends.push((ended, handle));
        vec![Step::Ack(handles)]
    }

    /// Whether a block has a record that is to be amended. A dead letter may be retried before.
    fn amends(&self, block: &Block) -> bool {
        block.context.amends && block.block.number < self.next
    }

    pub(super) fn is_replaced(&self, block: &BlockRef, announced_at: Timestamp) -> bool {
        self.ends
            .iter()
            .any(|(e, _)| e.reason == EndReason::Reorged && concerns(e, block, announced_at, false))
    }

    pub(super) fn end_of(
        &self,
        block: &BlockRef,
        announced_at: Timestamp,
        amends: bool,
    ) -> Option<EndReason> {
        self.ends
            .iter()
            .find(|(e, _)| e.reason != EndReason::Reorged && e.covers(block, announced_at, amends))
            .map(|(e, _)| e.reason.clone())
    }

    /// Numbers that an operator cancelled, whatever block bears them.
    pub(super) fn cancelled(&self) -> Vec<(u64, u64)> {
        let all = self.ends.iter().map(|(ended, _)| ended);
        all.filter(|e| e.reason != EndReason::Reorged && e.hashes.is_empty())
            .map(|e| (e.first, e.last))
            .collect()
    }

    /// A block that ends without a proof and of which no result came: an emission needs to know it.
    pub fn unseen_end(&self) -> Option<u64> {
        let seen = self
            .blocks
            .range((self.next, BlockHash::default())..)
            .next()
            .is_some_and(|((n, _), _)| *n == self.next);
        let ended = self
            .ends
            .iter()
            .any(|(e, _)| e.reason != EndReason::Reorged && (e.first..=e.last).contains(&self.next));
        (ended && !seen).then_some(self.next)
    }

    /// Tells about a block that [`Self::unseen_end`] asked for.
    pub fn known(&mut self, block: BlockRef, context: BlockContextOf) {
        let announced_at = context.0.stored_at;
        if self.is_replaced(&block, announced_at) {
            return;
        }
        let Some(ended) = self.end_of(&block, announced_at, false) else {
            return;
        };
        let at = (block.number, block.hash);
        let entry = Block {
            block,
            first: None,
            context: context.0,
            proofs: Default::default(),
            trace: TraceContext::default(),
            ended: Some(ended),
        };
        self.blocks.entry(at).or_insert(entry);
        self.touched.insert(at);
    }

    /// Gives up blocks whose deadline passed.
    pub fn tick(&mut self, now: Timestamp) {
        for (at, block) in &mut self.blocks {
            let amends = block.context.amends && at.0 < self.next;
            let deadline = block.context.deadline_at.filter(|_| !amends);
            if block.ended.is_none() && deadline.is_some_and(|deadline| deadline <= now) {
                block.ended = Some(EndReason::DeadlinePassed);
                self.touched.insert(*at);
            }
        }
    }
}

/// The context of a block of which only the ingester's record is known.
#[derive(Clone, Debug)]
pub struct BlockContextOf(pub BlockContext);

impl BlockContextOf {
    /// From what the ingester wrote down, which the broker stored at `stored_at`: just before the
    /// block's announcement, and by the same clock.
    pub fn known(known: &KnownBlock, stored_at: Timestamp) -> Self {
        Self(BlockContext {
            amends: false,
            revision: known.revision,
            parent_hash: known.parent_hash,
            stored_at,
            first_stored_at: None,
            deadline_at: None,
            facts: BlockFacts::default(),
        })
    }
}

/// Whether an end concerns a block that was announced at `announced_at`.
///
/// A reorg also replaces what it does not name: a block that was announced before it under one of its
/// numbers had lost its place earlier.
fn concerns(ended: &BlockEnded, block: &BlockRef, announced_at: Timestamp, amends: bool) -> bool {
    let is_older = (ended.first..=ended.last).contains(&block.number) && announced_at < ended.at;
    ended.covers(block, announced_at, amends) || (ended.reason == EndReason::Reorged && is_older)
}
