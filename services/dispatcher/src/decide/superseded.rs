//! What is no longer wanted: emitted, cancelled, replaced, or past its deadline.

use super::{Dispatcher, Effect, EntryId, Ready, SourceId};
use push0_domain::{
    BlockRef, PipelineId, Timestamp,
    message::{BlockEnded, Cancel, Emission, EndReason},
    output::Output,
    subject::AttemptKey,
};
use std::collections::BTreeSet;

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
        let settled = |id: &EntryId| {
            let ready = self.entries.get(id).map(|e| &e.ready);
            ready.is_some_and(|ready| !ready.amends && self.is_emitted(ready))
        };
        let waiting = self.waiting_for(&record.pipeline, 0, record.last.number);
        let dropped = waiting.into_iter().filter(settled).collect();
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
        let covered = |id: &EntryId| {
            let ready = self.entries.get(id).map(|e| &e.ready);
            ready.is_some_and(|ready| ended.concerns(&ready.stage, ready.announced_at, ready.amends))
        };
        let waiting = self.waiting_for(&cancel.pipeline, cancel.first, cancel.last);
        let dropped = waiting.into_iter().filter(covered).collect();
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
        let sources: BTreeSet<SourceId> = ids
            .into_iter()
            .filter_map(|id| self.take_out(id))
            .map(|e| e.source)
            .collect();
        sources
            .into_iter()
            .filter_map(|source| self.settle(source))
            .collect()
    }

    /// Time passes: silent provers take no more work, blocks past their deadline are given up.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Effect> {
        for capacity in self.capacity.values_mut() {
            capacity.forget_silent(now);
        }
        let mut effects = Vec::new();
        while let Some((deadline_at, id)) = self.deadlines.first().copied()
            && deadline_at <= now
        {
            let Some(entry) = self.entries.get(&id) else {
                self.deadlines.pop_first();
                continue;
            };
            let stage = entry.ready.stage.clone();
            let ended = BlockEnded {
                pipeline: stage.pipeline.clone(),
                first: stage.block.number,
                last: stage.block.number,
                hashes: vec![stage.block.hash],
                // By this clock it may be earlier than by the one that dated the announcement.
                at: now.max(entry.ready.announced_at),
                reason: EndReason::DeadlinePassed,
            };
            // Told before the messages are let go, so that a crash in between tells it again.
            effects.push(Effect::End(ended, None));
            let number = stage.block.number;
            let of_block = |id: &EntryId| {
                let ready = self.entries.get(id).map(|e| &e.ready);
                ready.is_some_and(|ready| ready.stage.block == stage.block && !ready.amends)
            };
            let dropped = self
                .waiting_for(&stage.pipeline, number, number)
                .into_iter()
                .filter(of_block)
                .collect();
            effects.extend(self.let_go(dropped));
        }
        effects
    }

    /// Whether nobody needs this any more, or it waits already: a block may be announced twice.
    pub(super) fn is_settled(&self, ready: &Ready) -> bool {
        let (pipeline, number) = (&ready.stage.pipeline, ready.stage.block.number);
        let is_cancelled = |ended: &BlockEnded| {
            ended.pipeline == *pipeline && ended.concerns(&ready.stage, ready.announced_at, ready.amends)
        };
        (!ready.amends && self.is_emitted(ready))
            || self.cancelled.iter().any(is_cancelled)
            || self
                .waiting_for(pipeline, number, number)
                .iter()
                .filter_map(|id| self.entries.get(id))
                .any(|e| {
                    e.ready.stage == ready.stage
                        && e.ready.attempt == ready.attempt
                        && e.ready.tasks == ready.tasks
                })
    }

    fn is_emitted(&self, ready: &Ready) -> bool {
        let output = self.outputs.get(&ready.stage.pipeline);
        let first = ready.stage.first_block().number;
        output.is_some_and(|output| output.is_settled(first, ready.first_announced_at))
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
