//! Drops work no longer wanted: emitted, cancelled, replaced, or past its deadline.

use super::{CANCELS_EARLY_MAX, Dispatcher, Effect, EntryId, Ready, SourceId};
use crate::{capacity::Capacity, track::Track, waiting::Entry};
use push0_domain::{
    Announcement, BlockRef, PipelineId, Timestamp,
    message::{BlockEnded, Cancel, Emission, EndReason},
    output::Output,
    subject::AttemptKey,
    wanted::{Claim, Demand},
};
use std::collections::{BTreeMap, BTreeSet};

impl Dispatcher {
    /// Returns whether the output of a pipeline was read.
    pub fn knows(&self, pipeline: &PipelineId) -> bool {
        let track = self.tracks.get(pipeline);
        track.is_some_and(|track| track.output.is_some())
    }

    /// Returns the number a pipeline emits next, if known.
    pub fn front(&self, pipeline: &PipelineId) -> Option<u64> {
        self.tracks.get(pipeline)?.front()
    }

    /// Returns the pipelines whose output was read, each with the number after its newest record, or 0 if the
    /// pipeline has no record.
    pub fn outputs(&self) -> impl Iterator<Item = (&PipelineId, u64)> {
        let outputs = self.tracks.iter();
        outputs.filter_map(|(pipeline, track)| Some((pipeline, track.output.as_ref()?.next())))
    }

    /// Handles a stored record: entries for its blocks and for older ones are dropped.
    pub fn emitted(&mut self, record: &Emission) -> Vec<Effect> {
        // The output of a pipeline is read before its first entry is queued, so without it there is
        // nothing to drop.
        let track = self.tracks.get_mut(&record.pipeline);
        let Some(output) = track.and_then(|track| track.output.as_mut()) else {
            return Vec::new();
        };
        output.note(record);
        self.drop_recorded(&record.pipeline, record.last.number)
    }

    /// Replaces a pipeline's output with the stored one, in case signals of records were missed.
    pub fn recall(&mut self, pipeline: &PipelineId, output: Output) -> Vec<Effect> {
        let next = output.next();
        self.tracks.entry(pipeline.clone()).or_default().output = Some(output);
        self.drop_recorded(pipeline, next)
    }

    fn drop_recorded(&mut self, pipeline: &PipelineId, last: u64) -> Vec<Effect> {
        let is_recorded = |(_, entry): &(EntryId, &Entry)| {
            !self
                .assess_record(pipeline, entry.begins(), entry.claim)
                .is_wanted()
        };
        let waiting = self.waiting.between(pipeline, 0, last);
        let dropped = waiting.filter(is_recorded).map(|(id, _)| id).collect();
        self.let_go(dropped)
    }

    /// Handles the announcement of a block number. Before the first record, the lowest number
    /// is emitted next.
    pub fn announced(&mut self, pipeline: &PipelineId, number: u64) {
        self.tracks.entry(pipeline.clone()).or_default().announced(number);
    }

    /// Returns whether the block of this message may be taken in: the block is at most `ahead` blocks beyond
    /// the next number to emit, or is cancelled already. Other blocks wait in their stream, so that neither a
    /// backlog nor a hole in the output makes the dispatcher hold more.
    pub fn has_room(&self, source: SourceId, pipeline: &PipelineId, block: &BlockRef, ahead: u64) -> bool {
        let Some(track) = self.tracks.get(pipeline) else {
            return true;
        };
        let claim = Claim::first(Announcement(source.sequence()));
        track.reaches(block.number, ahead) || !track.assess_cancels(*block, claim).is_wanted()
    }

    /// Forgets a removed pipeline, unless it has waiting entries. Returns whether the pipeline was forgotten.
    pub fn forget(&mut self, pipeline: &PipelineId) -> bool {
        let is_forgotten = self.waiting.forget(pipeline);
        if is_forgotten {
            self.tracks.remove(pipeline);
        }
        is_forgotten
    }

    /// Returns whether another cancellation of a pipeline may be read before its turn.
    pub fn has_room_for_cancels(&self, pipeline: &PipelineId) -> bool {
        let early = self.tracks.get(pipeline).map_or(0, Track::early);
        early < CANCELS_EARLY_MAX
    }

    /// Handles a cancellation: queued entries are dropped, released attempts are purged, and the collector is
    /// told. `held` lists every attempt in TASKS, because even an attempt whose end was heard may still lie
    /// there and would block the same block's next attempt if the chain goes back to the block.
    ///
    /// A cancellation with `is_early` was read before its turn, and some of its blocks may be unread. The
    /// cancellation is remembered for those blocks and acknowledged in its turn. A cancellation must not
    /// take effect later than its turn: the collector must be told before a block announced again behind
    /// it is released.
    pub fn cancel<'a>(
        &mut self,
        source: SourceId,
        cancel: &Cancel,
        held: impl IntoIterator<Item = &'a AttemptKey>,
        is_early: bool,
    ) -> Vec<Effect> {
        let track = self.tracks.entry(cancel.pipeline.clone()).or_default();
        if track.passes(source.sequence(), is_early) {
            return if is_early {
                Vec::new()
            } else {
                super::done(source, 0)
            };
        }
        let ended = BlockEnded {
            pipeline: cancel.pipeline.clone(),
            first: cancel.first,
            last: cancel.last,
            hashes: cancel.hashes.clone(),
            before: Announcement(source.sequence()),
            reason: cancel.reason.clone(),
        };
        track.cancel(source.sequence(), ended.clone(), is_early);
        let is_ended = |(_, entry): &(EntryId, &Entry)| !ended.assess(&entry.key(), entry.claim).is_wanted();
        let waiting = self.waiting.between(&cancel.pipeline, cancel.first, cancel.last);
        let dropped = waiting.filter(is_ended).map(|(id, _)| id).collect();
        let mut effects = self.let_go(dropped);
        let mut released: Vec<&AttemptKey> =
            held.into_iter().filter(|key| may_concern(cancel, key)).collect();
        released.sort();
        let purge = |key: &AttemptKey| Effect::Purge(key.clone(), Box::new(ended.clone()));
        effects.extend(released.into_iter().map(purge));
        effects.push(Effect::End(ended, (!is_early).then_some(source)));
        effects
    }

    /// Drops entries, and acknowledges messages without further work.
    fn let_go(&mut self, ids: Vec<EntryId>) -> Vec<Effect> {
        let gone = ids.into_iter().filter_map(|id| self.take_out(id));
        let sources: BTreeMap<SourceId, Entry> = gone.map(|entry| (entry.source, entry)).collect();
        let mut effects = Vec::new();
        for (source, entry) in sources {
            if self.begun.contains_key(&source) {
                effects.extend(self.settle(source));
            } else if self.waits(source, &entry.pipeline.name, entry.block.number) == 0 {
                effects.extend(super::done(source, entry.next - entry.tasks.first));
            }
        }
        effects
    }

    /// Handles the passing of time: silent provers get no more work, and blocks past or unable to meet their
    /// deadline are given up.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Effect> {
        for capacity in self.capacity.values_mut() {
            capacity.forget_silent(now);
        }
        let mut effects = self.tick_holds(now);
        while let Some(entry) = self.waiting.due(now) {
            let (pipeline, block) = (entry.pipeline.clone(), entry.block);
            let (announcement, deadline_at) = (entry.claim.announcement, entry.deadline_at);
            let is_late = entry.deadline_at.is_some_and(|deadline| deadline <= now);
            let of_block = self.waiting.of_number(&pipeline.name, block.number);
            let of_block: Vec<(EntryId, &Entry)> = of_block
                .filter(|(_, entry)| entry.block == block && !entry.claim.is_retry)
                .collect();
            if !is_late && self.lost_proofs(&of_block, now) <= pipeline.spare() {
                // Enough proofs may still be ready in time, or are not known to be lost.
                let hopeless = of_block.iter().filter(|(_, entry)| entry.is_out_of_reach(now));
                let hopeless: Vec<EntryId> = hopeless.map(|(id, _)| *id).collect();
                hopeless.into_iter().for_each(|id| self.waiting.set_aside(id));
                continue;
            }
            // The block may wait for more than one of its announcements.
            let announced = of_block.iter().map(|(_, entry)| entry.claim.announcement);
            let announcement = announced.fold(announcement, Announcement::max);
            let dropped = of_block.iter().map(|(id, _)| *id).collect();
            let reason = EndReason::late(deadline_at, now);
            let ended = BlockEnded::of_one(pipeline.name.clone(), block, announcement, reason);
            // The collector is told before the messages are acknowledged, so a crash in between tells
            // the collector again.
            effects.push(Effect::End(ended, None));
            effects.extend(self.let_go(dropped));
        }
        effects
    }

    /// Counts the proofs of a block with no chance to be ready in time, judged by its waiting entries.
    ///
    /// Entries with tasks possibly running do not count as lost: hedges, whose original still runs; entries
    /// from before this dispatcher led; tasks with an outstanding attempt, as when a block was announced
    /// twice; and stages whose proof has a later stage already.
    fn lost_proofs(&self, of_block: &[(EntryId, &Entry)], now: Timestamp) -> usize {
        let Some((_, any)) = of_block.first() else {
            return 0;
        };
        let outstanding = self.capacity.values().flat_map(Capacity::outstanding);
        let out: Vec<&AttemptKey> = outstanding.filter(|key| any.shares_block_with(key)).collect();
        let is_lost = |entry: &Entry| {
            let (proof, stage) = entry.place();
            let out: BTreeSet<(u8, u32)> = out
                .iter()
                .filter_map(|key| Some((entry.stage_of(key)?, key.index)))
                .collect();
            let is_passed = out.last().is_some_and(|(other, _)| *other > stage)
                || of_block
                    .iter()
                    .map(|(_, other)| other.place())
                    .any(|other| other.0 == proof && other.1 > stage);
            !is_passed && entry.rest().any(|index| !out.contains(&(stage, index)))
        };
        let judged = of_block.iter().map(|(_, entry)| entry);
        judged
            .filter(|entry| entry.is_out_of_reach(now) && !entry.is_hedge && !entry.is_old)
            .filter(|entry| is_lost(entry))
            .map(|entry| entry.place().0)
            .collect::<BTreeSet<_>>()
            .len()
    }

    /// Returns the demand for a ready stage, by the records and cancellations of its pipeline.
    pub(super) fn assess(&self, ready: &Ready) -> Demand {
        let begins = (ready.stage.first_block().number, ready.first_announcement);
        match self.assess_record(&ready.stage.pipeline, begins, ready.claim) {
            Demand::Wanted => {
                let track = self.tracks.get(&ready.stage.pipeline);
                track.map_or(Demand::Wanted, |track| {
                    track.assess_cancels(&ready.stage, ready.claim)
                })
            }
            recorded => recorded,
        }
    }

    /// Returns whether the same work already waits. A block may be announced twice.
    pub(super) fn waits_already(&self, ready: &Ready) -> bool {
        let (pipeline, number) = (&ready.stage.pipeline, ready.stage.block.number);
        self.waiting.of_number(pipeline, number).any(|(_, entry)| {
            let same = entry.attempt == ready.attempt && entry.tasks == ready.tasks;
            // The entry of an older claim is dropped with the block's record or cancellation, but the
            // newer claim must outlive them.
            let stays = entry.claim >= ready.claim || matches!(entry.source, SourceId::Block(_));
            same && stays && *entry.zkvm() == ready.zkvm && entry.key() == ready.stage
        })
    }

    /// Returns the demand for work that begins with this block and announcement, by the pipeline's output.
    fn assess_record(&self, pipeline: &PipelineId, begins: (u64, Announcement), claim: Claim) -> Demand {
        let (first, announcement) = begins;
        let track = self.tracks.get(pipeline);
        let claim = Claim {
            announcement,
            ..claim
        };
        track.map_or(Demand::Wanted, |track| track.assess_record(first, claim))
    }
}

/// Returns whether an attempt may belong to a cancelled block, as far as its subject tells.
fn may_concern(cancel: &Cancel, key: &AttemptKey) -> bool {
    let named = |hash| {
        let number = key.block.number;
        BlockRef { number, hash }.key().hash_prefix == key.block.hash_prefix
    };
    key.pipeline == cancel.pipeline
        && key.block.first() <= cancel.last
        && cancel.first <= key.block.number
        && (cancel.hashes.is_empty() || cancel.hashes.iter().copied().any(named))
}
