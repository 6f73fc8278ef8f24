//! State of one pipeline besides its waiting entries: its output, how far ahead of the output blocks may be
//! read, and the remembered cancellations.

use push0_domain::{
    message::BlockEnded,
    output::Output,
    wanted::{Blocks, Claim, Demand},
};
use std::collections::BTreeMap;

/// Cancellations kept per pipeline after their turn, because stages of the blocks they ended may still
/// arrive. Far more than can be decided in the meantime.
const CANCELS_KEPT: usize = 256;
/// Most cancellations of a pipeline read before their turn. Further cancellations take effect when earlier
/// ones have had their turn, or in their own turn. Until then, blocks they end may be released.
pub const CANCELS_EARLY_MAX: usize = 256;

/// The tracked state of one pipeline.
#[derive(Debug, Default)]
pub(crate) struct Track {
    /// `None` until the output was read.
    pub(crate) output: Option<Output>,
    /// The lowest block number known to be announced: the first number of an output without records.
    first: Option<u64>,
    /// Cancellations by their sequence in BLOCKS.
    cancels: BTreeMap<u64, Cancelled>,
}

/// A cancellation of which the collector was told.
#[derive(Debug)]
struct Cancelled {
    ended: BlockEnded,
    /// Read before its turn: blocks stored before the cancellation may still be unread.
    is_early: bool,
}

impl Track {
    /// Returns the number the pipeline emits next. `None` if nothing was emitted and no
    /// announcement is known.
    pub(crate) fn front(&self) -> Option<u64> {
        let output = self.output.as_ref().map(Output::next);
        // `Output::next` is 0 before the first record.
        output.filter(|next| *next > 0).or(self.first)
    }

    /// Records the announcement of a block number.
    pub(crate) fn announced(&mut self, number: u64) {
        self.first = Some(self.first.map_or(number, |first| first.min(number)));
    }

    /// Returns whether a block is at most `ahead` blocks beyond the next number to emit.
    pub(crate) fn reaches(&self, number: u64, ahead: u64) -> bool {
        self.front()
            .is_none_or(|front| number <= front.saturating_add(ahead))
    }

    /// Returns the demand for work that begins with the block `first`, by the output.
    pub(crate) fn assess_record(&self, first: u64, claim: Claim) -> Demand {
        let output = self.output.as_ref();
        output.map_or(Demand::Wanted, |output| output.assess(first, claim))
    }

    /// Returns the demand for work on these blocks, by the remembered cancellations.
    pub(crate) fn assess_cancels(&self, blocks: impl Into<Blocks>, claim: Claim) -> Demand {
        let blocks = blocks.into();
        let behind = self.cancels.range(claim.announcement.next().0..);
        let mut demands = behind.map(|(_, cancelled)| cancelled.ended.assess(blocks, claim));
        let superfluous = demands.find(|demand| !demand.is_wanted());
        superfluous.unwrap_or(Demand::Wanted)
    }

    /// Returns whether a cancellation was already read. A cancellation seen in its turn stops being early.
    pub(crate) fn passes(&mut self, sequence: u64, is_early: bool) -> bool {
        let known = self.cancels.get_mut(&sequence);
        if let Some(cancelled) = known {
            cancelled.is_early &= is_early;
            return true;
        }
        false
    }

    /// Remembers a cancellation.
    pub(crate) fn cancel(&mut self, sequence: u64, ended: BlockEnded, is_early: bool) {
        self.cancels.insert(sequence, Cancelled { ended, is_early });
        // Early cancellations lie behind all others, so the oldest entries popped here are never early.
        while self.cancels.len() - self.early() > CANCELS_KEPT {
            self.cancels.pop_first();
        }
    }

    /// Returns the number of cancellations read before their turn.
    pub(crate) fn early(&self) -> usize {
        let newest_first = self.cancels.values().rev();
        newest_first.take_while(|cancelled| cancelled.is_early).count()
    }
}
