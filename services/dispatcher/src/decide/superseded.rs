//! What is no longer wanted: emitted, cancelled, replaced, or past its deadline.

use super::{Dispatcher, Effect, EntryId, Ready, SourceId};
use crate::{capacity::Capacity, waiting::Entry};
use push0_domain::{
    BlockRef, PipelineId, Timestamp,
    message::{BlockEnded, Cancel, Emission, EndReason},
    output::Output,
    subject::AttemptKey,
};
use std::collections::{BTreeMap, BTreeSet};

/// How many cancels are remembered: far more than can be decided while a stage is on its way.
const CANCELS_KEPT: usize = 256;

impl Dispatcher {
    /// Whether it is known how a pipeline's output stands.
    pub fn knows(&self, pipeline: &PipelineId) -> bool {
        self.outputs.contains_key(pipeline)
    }

    /// A pipeline emitted a block: what still waits for it, or for an older one, vanishes.
    pub fn emitted(&mut self, record: &Emission) -> Vec<Effect> {
        // Unless it is known how the output stood before, nothing of this pipeline waits here.
        let Some(output) = self.outputs.get_mut(&record.pipeline) else {
            return Vec::new();
        };
        output.note(record);
        let settled = |(_, entry): &(EntryId, &Entry)| {
            !entry.amends && self.is_emitted(&record.pipeline, entry.begins())
        };
        let waiting = self.waiting.between(&record.pipeline, 0, record.last.number);
        let dropped = waiting.filter(settled).map(|(id, _)| id).collect();
        self.let_go(dropped)
    }

    /// How a pipeline's output stood before.
    pub fn recall(&mut self, pipeline: &PipelineId, output: Output) {
        self.outputs.insert(pipeline.clone(), output);
    }

    /// Blocks are no longer wanted: queued tasks vanish, released ones are purged, and
    /// the collector is told before the message is acknowledged. `held` is all that TASKS holds: an
    /// attempt whose end was heard may still lie there, in the way of the same block if the chain goes
    /// back to it.
    pub fn cancel<'a>(
        &mut self,
        source: SourceId,
        cancel: &Cancel,
        at: Timestamp,
        held: impl IntoIterator<Item = &'a AttemptKey>,
    ) -> Vec<Effect> {
        let ended = BlockEnded {
            pipeline: cancel.pipeline.clone(),
            first: cancel.first,
            last: cancel.last,
            hashes: cancel.hashes.clone(),
            at,
            reason: cancel.reason.clone(),
        };
        let covered =
            |(_, entry): &(EntryId, &Entry)| ended.concerns(&entry.key(), entry.announced_at, entry.amends);
        let waiting = self.waiting.between(&cancel.pipeline, cancel.first, cancel.last);
        let dropped = waiting.filter(covered).map(|(id, _)| id).collect();
        let mut effects = self.let_go(dropped);
        let mut released: Vec<&AttemptKey> =
            held.into_iter().filter(|key| may_concern(cancel, key)).collect();
        released.sort();
        let purge = |key: &AttemptKey| Effect::Purge(key.clone(), Box::new(ended.clone()));
        effects.extend(released.into_iter().map(purge));
        self.cancelled.push_back(ended.clone());
        if self.cancelled.len() > CANCELS_KEPT {
            self.cancelled.pop_front();
        }
        effects.push(Effect::End(ended, Some(source)));
        effects
    }

    /// Drops entries; messages that ask for nothing else are acknowledged.
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

    /// Time passes: silent provers take no more work; blocks that cannot be ready by their deadline are
    /// given up.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Effect> {
        for capacity in self.capacity.values_mut() {
            capacity.forget_silent(now);
        }
        let mut effects = Vec::new();
        while let Some(entry) = self.waiting.due(now) {
            let (pipeline, block, announced_at) = (entry.pipeline.clone(), entry.block, entry.announced_at);
            let is_late = entry.deadline_at.is_some_and(|deadline| deadline <= now);
            let of_block = self.waiting.of_number(&pipeline.name, block.number);
            let of_block: Vec<(EntryId, &Entry)> = of_block
                .filter(|(_, entry)| entry.block == block && !entry.amends)
                .collect();
            if !is_late && self.lost_proofs(&of_block, now) <= pipeline.spare() {
                // Enough proofs may be ready in time, or it is not known that they may not.
                let hopeless = of_block.iter().filter(|(_, entry)| entry.is_out_of_reach(now));
                let hopeless: Vec<EntryId> = hopeless.map(|(id, _)| *id).collect();
                hopeless.into_iter().for_each(|id| self.waiting.set_aside(id));
                continue;
            }
            let dropped = of_block.iter().map(|(id, _)| *id).collect();
            let reason = if is_late {
                EndReason::DeadlinePassed
            } else {
                EndReason::OutOfReach
            };
            let ended = BlockEnded {
                pipeline: pipeline.name.clone(),
                first: block.number,
                last: block.number,
                hashes: vec![block.hash],
                // By this clock it may be earlier than by the one that dated the announcement.
                at: now.max(announced_at),
                reason,
            };
            // Told before the messages are let go, so that a crash in between tells it again.
            effects.push(Effect::End(ended, None));
            effects.extend(self.let_go(dropped));
        }
        effects
    }

    /// How many proofs of a block cannot be ready in time, by what waits for them.
    ///
    /// Nothing follows from what may be running all the same: from a hedge, which races an attempt that
    /// runs; from what was ready before this dispatcher led; from tasks that are out, as when a block was
    /// announced twice; and from a stage of which a later one is known.
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

    /// Whether nobody needs this any more, or it waits already: a block may be announced twice.
    pub(super) fn is_settled(&self, ready: &Ready) -> bool {
        let (pipeline, number) = (&ready.stage.pipeline, ready.stage.block.number);
        let is_cancelled = |ended: &BlockEnded| {
            ended.pipeline == *pipeline && ended.concerns(&ready.stage, ready.announced_at, ready.amends)
        };
        let begins = (ready.stage.first_block().number, ready.first_announced_at);
        (!ready.amends && self.is_emitted(pipeline, begins))
            || self.cancelled.iter().any(is_cancelled)
            || self.waiting.of_number(pipeline, number).any(|(_, entry)| {
                let same = entry.attempt == ready.attempt && entry.tasks == ready.tasks;
                // An older claim goes with the block's record or cancellation; this one does not.
                let is_older = (entry.announced_at, entry.amends) < (ready.announced_at, ready.amends);
                let stays = !is_older || matches!(entry.source, SourceId::Block(_));
                same && stays && *entry.zkvm() == ready.zkvm && entry.key() == ready.stage
            })
    }

    fn is_emitted(&self, pipeline: &PipelineId, (first, announced_at): (u64, Timestamp)) -> bool {
        let output = self.outputs.get(pipeline);
        output.is_some_and(|output| output.is_settled(first, announced_at))
    }
}

/// Whether an attempt may be about a cancelled block, as far as its subject tells.
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
