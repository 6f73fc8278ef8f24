//! What the dispatcher knows of one pipeline beside what waits: how its output stands, how far ahead of it
//! blocks may be read, and which cancels are remembered.

use crate::decide::SourceId;
use push0_domain::{BlockRef, Timestamp, message::BlockEnded, output::Output};
use std::collections::BTreeMap;

/// How many finished cancels a pipeline remembers: stages of blocks that they ended may still be on their
/// way. Far more than can be decided meanwhile.
const CANCELS_KEPT: usize = 256;

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

/// A cancel whose blocks the collector was told to end.
#[derive(Debug)]
struct Cancelled {
    source: SourceId,
    ended: BlockEnded,
    /// Not acknowledged yet: blocks that were stored before it may still be unread.
    is_open: bool,
    let_go: Vec<SourceId>,
}

/// A cancel that has nothing left to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The cancel.
    pub source: SourceId,
    /// The messages that were acknowledged last because of it, at most one of each stream. As long as one
    /// of them is still stored, a successor would read it, and must read the cancel as well.
    pub let_go: Vec<SourceId>,
}

impl Track {
    /// The number that the pipeline emits next, as far as known.
    fn front(&self) -> Option<u64> {
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

    /// Whether a cancel that was stored after it ends the block that this message announced. Sequences of
    /// one stream tell that, and no clock.
    pub(crate) fn is_cancelled(&self, sequence: u64, block: &BlockRef) -> bool {
        self.after(sequence)
            .any(|cancelled| ends(&cancelled.ended, block))
    }

    /// Notes that a message of a cancelled block was let go.
    pub(crate) fn lets_go(&mut self, source: SourceId, block: &BlockRef) {
        for (_, cancelled) in self.cancels.range_mut(source.sequence() + 1..) {
            if cancelled.is_open && ends(&cancelled.ended, block) {
                cancelled.note(source);
            }
        }
    }

    fn after(&self, sequence: u64) -> impl Iterator<Item = &Cancelled> {
        self.cancels
            .range(sequence.saturating_add(1)..)
            .map(|(_, cancelled)| cancelled)
    }

    /// Whether a stage was cancelled that is on its way here. It does not say which message announced
    /// its block, only when.
    pub(crate) fn any_ended(&self, mut concerns: impl FnMut(&BlockEnded) -> bool) -> bool {
        self.cancels.values().any(|cancelled| concerns(&cancelled.ended))
    }

    /// Whether a cancel was read before, and if so whether it is still open.
    pub(crate) fn knows_cancel(&self, sequence: u64) -> Option<bool> {
        self.cancels.get(&sequence).map(|cancelled| cancelled.is_open)
    }

    /// Remembers a cancel, and the messages that it let go.
    pub(crate) fn cancel(
        &mut self,
        source: SourceId,
        ended: BlockEnded,
        let_go: impl IntoIterator<Item = SourceId>,
    ) {
        let mut cancelled = Cancelled {
            source,
            ended,
            is_open: true,
            let_go: Vec::new(),
        };
        let_go.into_iter().for_each(|source| cancelled.note(source));
        self.cancels.insert(source.sequence(), cancelled);
    }

    /// Whether cancels wait for blocks that are not read yet.
    pub(crate) fn has_open_cancels(&self) -> bool {
        self.cancels.values().any(|cancelled| cancelled.is_open)
    }

    /// The open cancels before which no block is unread. `unread` is the first block of the pipeline that
    /// was not read yet.
    pub(crate) fn finished(&self, unread: Option<u64>) -> Vec<Finished> {
        let before = self.cancels.range(..unread.unwrap_or(u64::MAX));
        let open = before.filter(|(_, cancelled)| cancelled.is_open);
        let finished = open.map(|(_, cancelled)| Finished {
            source: cancelled.source,
            let_go: cancelled.let_go.clone(),
        });
        finished.collect()
    }

    /// A cancel is acknowledged. Those that were acknowledged longest ago are forgotten.
    pub(crate) fn close_cancel(&mut self, sequence: u64) {
        if let Some(cancelled) = self.cancels.get_mut(&sequence) {
            cancelled.is_open = false;
            cancelled.let_go = Vec::new();
        }
        let closed = self.cancels.iter().filter(|(_, cancelled)| !cancelled.is_open);
        let excess = closed.clone().count().saturating_sub(CANCELS_KEPT);
        let oldest: Vec<u64> = closed.take(excess).map(|(sequence, _)| *sequence).collect();
        for sequence in oldest {
            self.cancels.remove(&sequence);
        }
    }
}

impl Cancelled {
    /// Keeps the last message of each stream: acknowledgements of one consumer are carried out in order.
    fn note(&mut self, source: SourceId) {
        let kind = std::mem::discriminant(&source);
        self.let_go.retain(|other| std::mem::discriminant(other) != kind);
        self.let_go.push(source);
    }
}

/// Whether an end names a block, whenever that was announced.
fn ends(ended: &BlockEnded, block: &BlockRef) -> bool {
    ended.covers(block, Timestamp::default(), false)
}
