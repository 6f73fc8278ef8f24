//! The state of one pipeline's blocks and cancellations: parked, read before their turn, or still to search.

use super::op::Received;
use push0_domain::{Timestamp, message::BlockEvent};
use std::{collections::BTreeMap, time::Duration};

/// How long the output of a pipeline stands still before late blocks are searched for.
const STILL: Duration = Duration::from_secs(2);
/// Most late blocks taken in before the consumer has reached them.
const LATE_MAX: usize = 1024;

/// How far one pipeline's messages are read.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Whether the pipeline has a definition. Without one no collector emits its blocks, so none wait for the output.
    pub(super) is_defined: bool,
    /// A block too far ahead of the output. Nothing behind it is read.
    pub(super) parked: Option<Received<BlockEvent>>,
    /// When the last parked block was taken up again.
    unparked_at: Timestamp,
    /// The highest sequence received in its turn.
    pub(super) passed: u64,
    /// Whether the stream was searched for cancellations. Until then, a release may be of a cancelled block.
    pub(super) has_looked: bool,
    /// The number the pipeline emits next, and since when it has been the same.
    front: (u64, Timestamp),
    /// Sequences of late blocks taken in, and whether their work is done.
    pub(super) taken: BTreeMap<u64, bool>,
}

impl Lane {
    pub(super) fn new(is_defined: bool, now: Timestamp) -> Self {
        Self {
            is_defined,
            front: (0, now),
            ..Self::default()
        }
    }

    pub(super) fn unpark(&mut self, now: Timestamp) -> Option<Received<BlockEvent>> {
        let parked = self.parked.take()?;
        self.unparked_at = now;
        Some(parked)
    }

    /// Returns whether a block stored then came later because this lane was parked.
    pub(super) fn held_back(&self, stored_at: Timestamp) -> bool {
        self.parked.is_some() || stored_at < self.unparked_at
    }

    /// Marks a message as received in its turn. For a late block taken in before, returns whether its work is done.
    pub(super) fn pass(&mut self, sequence: u64) -> Option<bool> {
        self.passed = self.passed.max(sequence);
        self.taken.remove(&sequence)
    }

    /// Marks a late block as taken in. Returns false if it was taken in or received before.
    pub(super) fn takes(&mut self, sequence: u64) -> bool {
        sequence > self.passed && self.taken.insert(sequence, false).is_none()
    }

    /// Returns the sequence of the parked block, if the output stands still in front of it.
    pub(super) fn waits_still(&mut self, front: u64, now: Timestamp) -> Option<u64> {
        if self.front.0 != front {
            self.front = (front, now);
        }
        // A clock set back delays a search by no more than the usual time.
        self.front.1 = self.front.1.min(now);
        let stands_still = now.since(self.front.1) >= STILL && self.taken.len() < LATE_MAX;
        let parked = self.parked.as_ref().filter(|_| stands_still);
        parked.map(|block| block.sequence)
    }
}
