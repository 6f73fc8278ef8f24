//! Blocks that end without a proof: cancelled, replaced, or past their deadline.

use super::{Collector, Step};
use crate::{
    intake::Handle,
    state::{Block, block_ref},
};
use push0_domain::{
    BlockHash, BlockRef, Timestamp,
    message::{BlockContext, BlockEnded, BlockFacts, EndReason, KnownBlock},
    output::Emitted,
    wanted::{Claim, Claims},
};
use std::sync::Arc;

impl Collector {
    /// Handles the end of blocks no longer wanted.
    pub fn end(&mut self, handle: Handle, ended: BlockEnded) -> Vec<Step> {
        if !self.intake.take_in(handle) {
            return Vec::new();
        }
        if ended.first > ended.last {
            return vec![Step::Ack(vec![handle])];
        }
        if ended.reason == EndReason::Reorged {
            let is_replaced = |(number, emitted): &(&u64, &Emitted)| {
                let (number, hash) = (**number, emitted.hash);
                let claim = Claim::first(emitted.announcement);
                !ended.assess(BlockRef { number, hash }, claim).is_wanted()
            };
            let numbers = ended.first..=ended.last;
            let replaced = self.emitted.range(numbers).find(is_replaced);
            let replaced = replaced.map(|(number, _)| *number);
            let oldest = self.emitted.keys().next().copied();
            let is_deeper = match oldest {
                // Blocks below the remembered ones were emitted before them.
                Some(_) => replaced == oldest,
                // Only an operator goes back behind the first block of a pipeline without records.
                None => ended.hashes.is_empty(),
            };
            let replaced = if is_deeper { Some(ended.first) } else { replaced };
            if let Some(number) = replaced {
                // These blocks were emitted: the output goes back to the first of them, and
                // their replacements follow.
                self.emitted.split_off(&number);
                self.next = self.next.min(number);
                // Blocks that were amending a record wait for a record of their own again, with
                // read-ahead and deadline.
                (self.read_to, self.due) = (0, Timestamp::default());
            }
        }
        if ended.last < self.next {
            return vec![Step::Ack(self.intake.settled(handle))];
        }
        let numbers = (ended.first, BlockHash::default())..=(ended.last, BlockHash([0xff; 32]));
        let concerned: Vec<_> = self
            .blocks
            .range(numbers)
            .filter(|(at, b)| !ended.assess(block_ref(**at), self.claim(at.0, b)).is_wanted())
            .map(|(at, _)| *at)
            .collect();
        let reason = Arc::new(ended.reason.clone());
        let mut handles = Vec::new();
        for at in concerned {
            if ended.reason == EndReason::Reorged {
                let gone = self.blocks.remove(&at);
                handles.extend(gone.map(|mut b| b.take_handles()).unwrap_or_default());
            } else if let Some(block) = self.blocks.get_mut(&at) {
                // The block's results stay unacknowledged until its record is stored: a proof stored before
                // the deadline still counts after it, also for a collector that starts over.
                block.ended.get_or_insert_with(|| reason.clone());
                self.touched.insert(at);
            }
            handles.extend(self.ranges.without(&at, &self.blocks));
        }
        if ended.reason == EndReason::Reorged {
            let is_replaced =
                |block: &BlockRef, unit: &Block| !ended.assess(*block, unit.claim()).is_wanted();
            handles.extend(self.ranges.replaced(is_replaced, &self.blocks));
        }
        self.ends.insert(&ended, handle);
        self.told(vec![Step::Ack(handles)])
    }

    /// Returns the claim of a block's work. A retry of a dead letter before the block has its record amends no
    /// record, and does not count as a retry.
    fn claim(&self, number: u64, block: &Block) -> Claim {
        let claim = block.claim();
        Claim {
            is_retry: claim.is_retry && number < self.next,
            ..claim
        }
    }

    /// Returns the next number to emit if its block ends without a proof and has no results. The shell must
    /// look the block up and call [`Self::known`].
    pub fn unseen_end(&self) -> Option<u64> {
        let seen = self
            .blocks
            .range((self.next, BlockHash::default())..)
            .next()
            .is_some_and(|((n, _), _)| *n == self.next);
        (!seen && self.ends.has(self.next)).then_some(self.next)
    }

    /// Handles the block asked for by [`Self::unseen_end`].
    ///
    /// `stored_at` is the time at which the broker stored the fact, just before the announcement. No decision
    /// depends on it.
    pub fn known(&mut self, known: &KnownBlock, stored_at: Timestamp) {
        let block = known.block;
        let Some((announcement, ended)) = self.ends.find_unseen(&block, known.announced_after) else {
            return;
        };
        let context = BlockContext {
            amends: false,
            revision: known.revision,
            parent_hash: known.parent_hash,
            announcement,
            stored_at,
            first_announcement: None,
            deadline_at: None,
            facts: BlockFacts::default(),
        };
        let at = (block.number, block.hash);
        let entry = || Box::new(Block::new(&context, None, Some(ended)));
        self.blocks.entry(at).or_insert_with(entry);
        self.touched.insert(at);
    }

    /// Gives up blocks whose deadline has passed.
    pub fn tick(&mut self, now: Timestamp) {
        if now < self.due {
            return;
        }
        self.due = Timestamp(u64::MAX);
        let passed = Arc::new(EndReason::DeadlinePassed);
        for (at, block) in &mut self.blocks {
            let amends = block.amends && at.0 < self.next;
            let Some(deadline) = block.deadline_at.filter(|_| block.ended.is_none() && !amends) else {
                continue;
            };
            if deadline <= now {
                block.ended = Some(passed.clone());
                self.touched.insert(*at);
            } else {
                self.due = self.due.min(deadline);
            }
        }
    }
}
