//! What the dispatcher knows of one pipeline beside what waits: how its output stands, how far ahead of it
//! blocks may be read, and which cancels are remembered.

use push0_domain::{BlockRef, Timestamp, message::BlockEnded, output::Output};
use std::collections::BTreeMap;

/// How many cancels a pipeline remembers whose turn has come: stages of blocks that they ended may still
/// be on their way. Far more than can be decided meanwhile.
const CANCELS_KEPT: usize = 256;
/// The most cancels of a pipeline that are read before their turn. Further ones take effect when some of
/// these are passed, or in their own turn: until then blocks that they end may be released.
pub const CANCELS_EARLY_MAX: usize = 256;

/// One pipeline.
#[derive(Debug, Default)]
pub(crate) struct Track {
    /// None until the output was read.
    pub(crate) output: Option<Output>,
    /// The lowest block that was announced, as far as known: where the output will begin.
    first: Option<u64>,
    /// By their sequence in BLOCKS.
    cancels: BTreeMap<u64, Cancelled>,
}

/// A cancel of which the collector was told.
#[derive(Debug)]
struct Cancelled {
    ended: BlockEnded,
    /// Read before its turn: blocks that were stored before it may still be unread.
    is_early: bool,
}

impl Track {
    /// The number that the pipeline emits next, as far as known.
    pub(crate) fn front(&self) -> Option<u64> {
        let output = self.output.as_ref().map(Output::next);
        // Before its first record an output has no next number.
        output.filter(|next| *next > 0).or(self.first)
    }

    /// Notes that a block of this number was announced.
    pub(crate) fn announced(&mut self, number: u64) {
        self.first = Some(self.first.map_or(number, |first| first.min(number)));
    }

    /// Whether a block is at most `ahead` blocks ahead of the next one to emit.
    pub(crate) fn reaches(&self, number: u64, ahead: u64) -> bool {
        self.front()
            .is_none_or(|front| number <= front.saturating_add(ahead))
    }

    pub(crate) fn is_emitted(&self, (first, announced_at): (u64, Timestamp)) -> bool {
        let output = self.output.as_ref();
        output.is_some_and(|output| output.is_settled(first, announced_at))
    }

    /// Whether a cancel ends the block that the message of this sequence announced. The places in the
    /// stream tell that, and no clock: a block is ended by what was stored behind it.
    pub(crate) fn is_cancelled(&self, sequence: u64, block: &BlockRef) -> bool {
        let mut behind = self.cancels.range(sequence.saturating_add(1)..);
        behind.any(|(_, cancelled)| cancelled.ended.covers(block, Timestamp::default(), false))
    }

    /// Whether a stage was cancelled that is on its way here. It does not say which message announced
    /// its block, only when.
    pub(crate) fn any_ended(&self, mut concerns: impl FnMut(&BlockEnded) -> bool) -> bool {
        self.cancels.values().any(|cancelled| concerns(&cancelled.ended))
    }

    /// Whether a cancel was read before. In its turn it is not early any more.
    pub(crate) fn passes(&mut self, sequence: u64, is_early: bool) -> bool {
        let known = self.cancels.get_mut(&sequence);
        if let Some(cancelled) = known {
            cancelled.is_early &= is_early;
            return true;
        }
        false
    }

    /// Remembers a cancel.
    pub(crate) fn cancel(&mut self, sequence: u64, ended: BlockEnded, is_early: bool) {
        self.cancels.insert(sequence, Cancelled { ended, is_early });
        // Those that are early lie behind all others.
        while self.cancels.len() - self.early() > CANCELS_KEPT {
            self.cancels.pop_first();
        }
    }

    /// How many cancels were read before their turn.
    pub(crate) fn early(&self) -> usize {
        let newest_first = self.cancels.values().rev();
        newest_first.take_while(|cancelled| cancelled.is_early).count()
    }
}
