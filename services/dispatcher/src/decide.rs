//! The dispatcher's decisions: what is ready, and what is released when a prover is free.
//!
//! | event | effect |
//! |---|---|
//! | a block, a ready stage | it waits in the queue of its zkVM |
//! | a prover is free | the most urgent task is released |
//! | all tasks of a message are stored in TASKS | the message is acknowledged |
//! | a cancel, a passed deadline | queued tasks vanish, released ones are purged, the collector is told |
//! | a block was emitted | what still waits for it vanishes |
//!
//! Nothing is acknowledged before what it asks for is stored. A restart replays the unacknowledged
//! messages; releasing an attempt twice is harmless, since its subject holds one message.

mod superseded;

pub use crate::effect::{Effect, Ready, Release, SourceId};
use crate::{
    capacity::Capacity,
    queue::{EntryId, Queue},
};
use push0_domain::{
    BlockRef, PipelineId, Timestamp, ZkvmId,
    message::{BlockEnded, Lease, TaskRange},
    output::Output,
    pipeline::{Pipeline, ProofSpec, Stage},
    subject::AttemptKey,
    task::StageKey,
    urgency::Urgency,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    sync::Arc,
};

/// How many releases of a long stage a restart may repeat.
const CURSOR_EVERY: u32 = 64;

#[derive(Debug)]
struct Entry {
    source: SourceId,
    pipeline: Arc<Pipeline>,
    zkvm: ZkvmId,
    urgency: Urgency,
    ready: Ready,
    next: u32,
}

#[derive(Debug, Default)]
struct Source {
    entries: BTreeSet<EntryId>,
    /// Releases whose publish is not answered yet.
    in_flight: BTreeSet<u32>,
    unanswered: usize,
    saved: u32,
}

/// The dispatcher's state, derived from unacknowledged messages, heartbeats and TASKS.
#[derive(Debug, Default)]
pub struct Dispatcher {
    entries: HashMap<EntryId, Entry>,
    sources: BTreeMap<SourceId, Source>,
    queues: BTreeMap<ZkvmId, Queue>,
    capacity: BTreeMap<ZkvmId, Capacity>,
    deadlines: BTreeSet<(Timestamp, EntryId)>,
    /// Entries by the number of their block; of a range, of each of its blocks.
    by_block: BTreeSet<(PipelineId, u64, EntryId)>,
    /// What each pipeline has emitted: that is settled.
    outputs: HashMap<PipelineId, Output>,
    /// What was cancelled last: stages of it may still be on their way here.
    cancelled: VecDeque<BlockEnded>,
    next_entry: u64,
}

impl Dispatcher {
    /// A block to prove: the first stage of every proof is ready.
    pub fn block(
        &mut self,
        source: SourceId,
        block: BlockRef,
        announced_at: Timestamp,
        deadline_at: Option<Timestamp>,
        pipeline: &Arc<Pipeline>,
    ) -> Vec<Effect> {
        let first = |proof: &ProofSpec| {
            let stage = proof.first()?;
            let key = StageKey {
                pipeline: pipeline.name.clone(),
                block,
                first: None,
                proof_type: proof.proof_type.clone(),
                stage: stage.name.clone(),
            };
            let tasks = TaskRange {
                first: 0,
                count: 1,
                of: 1,
            };
            Some(Ready {
                stage: key,
                tasks,
                attempt: 1,
                announced_at,
                first_announced_at: announced_at,
                deadline_at,
                amends: false,
            })
        };
        let ready = pipeline.proofs.iter().filter_map(first).collect();
        self.add(source, ready, 0, pipeline)
    }

    /// A stage or a further attempt is ready. `cursor` is how far it was released before a restart.
    pub fn stage(
        &mut self,
        source: SourceId,
        ready: Ready,
        cursor: u32,
        pipeline: &Arc<Pipeline>,
    ) -> Vec<Effect> {
        self.add(source, vec![ready], cursor, pipeline)
    }

    fn add(
        &mut self,
        source: SourceId,
        ready: Vec<Ready>,
        cursor: u32,
        pipeline: &Arc<Pipeline>,
    ) -> Vec<Effect> {
        if self.sources.contains_key(&source) {
            return Vec::new();
        }
        let mut entries = BTreeSet::new();
        for ready in ready {
            let Some((proof, stage)) = find(pipeline, &ready.stage) else {
                continue;
            };
            if self.is_settled(&ready) || ready.tasks.count == 0 {
                continue;
            }
            entries.insert(self.enqueue(source, ready, cursor, pipeline, proof, stage));
        }
        if entries.is_empty() {
            return vec![Effect::Done(source)];
        }
        self.sources.insert(
            source,
            Source {
                entries,
                saved: cursor,
                ..Source::default()
            },
        );
        Vec::new()
    }

    fn waiting_for(&self, pipeline: &PipelineId, first: u64, last: u64) -> BTreeSet<EntryId> {
        let range = (pipeline.clone(), first, EntryId(0))..=(pipeline.clone(), last, EntryId(u64::MAX));
        self.by_block.range(range).map(|(_, _, id)| *id).collect()
    }

    fn enqueue(
        &mut self,
        source: SourceId,
        ready: Ready,
        cursor: u32,
        pipeline: &Arc<Pipeline>,
        proof: &ProofSpec,
        stage: &Stage,
    ) -> EntryId {
        let id = EntryId(self.next_entry);
        self.next_entry += 1;
        let number = ready.stage.block.number;
        let left = proof.stages_left(&stage.name);
        let urgency = Urgency::new(
            &pipeline.policy,
            number,
            ready.deadline_at,
            left,
            ready.attempt,
            id.0,
        );
        self.queues
            .entry(stage.zkvm.clone())
            .or_default()
            .push(&pipeline.name, pipeline.weight, urgency, id);
        // An operator's retry is wanted although the deadline passed long ago.
        if let Some(deadline_at) = ready.deadline_at.filter(|_| !ready.amends) {
            self.deadlines.insert((deadline_at, id));
        }
        let numbers = ready.stage.numbers();
        self.by_block
            .extend(numbers.map(|number| (pipeline.name.clone(), number, id)));
        let next = ready.tasks.first + cursor.min(ready.tasks.count.saturating_sub(1));
        let entry = Entry {
            source,
            pipeline: pipeline.clone(),
            zkvm: stage.zkvm.clone(),
            urgency,
            ready,
            next,
        };
        self.entries.insert(id, entry);
        id
    }

    /// The next attempt to release, if a prover can take one.
    pub fn release(&mut self, now: Timestamp) -> Option<Release> {
        let zkvms = self.queues.iter().filter(|(zkvm, queue)| {
            !queue.is_empty()
                && self
                    .capacity
                    .get(*zkvm)
                    .is_some_and(|capacity| capacity.free() > 0)
        });
        let (zkvm, id) = zkvms
            .filter_map(|(zkvm, queue)| Some((zkvm.clone(), queue.peek()?)))
            .next()?;
        let entry = self.entries.get_mut(&id)?;
        let index = entry.next;
        entry.next += 1;
        let (stage, source) = (entry.ready.stage.clone(), entry.source);
        let key = AttemptKey::of(&zkvm, &stage.task(index).attempt(entry.ready.attempt));
        let last = entry.next == entry.ready.tasks.first + entry.ready.tasks.count;
        let pipeline = entry.pipeline.name.clone();
        self.queues.get_mut(&zkvm)?.charge(&pipeline);
        self.capacity.get_mut(&zkvm)?.released(key.clone(), now);
        if let Some(source) = self.sources.get_mut(&source) {
            source.unanswered += 1;
            source.in_flight.insert(index);
        }
        if last {
            self.take_out(id);
        }
        Some(Release {
            source,
            stage,
            index,
            key,
        })
    }

    /// A release is stored.
    pub fn stored(&mut self, source: SourceId, index: u32) -> Vec<Effect> {
        let Some(state) = self.sources.get_mut(&source) else {
            return Vec::new();
        };
        state.unanswered = state.unanswered.saturating_sub(1);
        state.in_flight.remove(&index);
        if state.entries.is_empty() {
            return self.settle(source).into_iter().collect();
        }
        let Some(entry) = state.entries.first().and_then(|id| self.entries.get(id)) else {
            return Vec::new();
        };
        let answered = state.in_flight.first().copied().unwrap_or(entry.next) - entry.ready.tasks.first;
        if answered < state.saved + CURSOR_EVERY {
            return Vec::new();
        }
        state.saved = answered;
        vec![Effect::SaveCursor(source, answered)]
    }

    fn settle(&mut self, source: SourceId) -> Option<Effect> {
        let settled = self
            .sources
            .get(&source)
            .is_some_and(|s| s.entries.is_empty() && s.unanswered == 0);
        if !settled {
            return None;
        }
        self.sources.remove(&source);
        Some(Effect::Done(source))
    }

    /// Takes an entry out of every table but its source's `unanswered` count.
    fn take_out(&mut self, id: EntryId) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        if let Some(queue) = self.queues.get_mut(&entry.zkvm) {
            queue.remove(&entry.pipeline.name, entry.urgency, id);
        }
        if let Some(deadline_at) = entry.ready.deadline_at {
            self.deadlines.remove(&(deadline_at, id));
        }
        for number in entry.ready.stage.numbers() {
            self.by_block.remove(&(entry.pipeline.name.clone(), number, id));
        }
        if let Some(source) = self.sources.get_mut(&entry.source) {
            source.entries.remove(&id);
        }
        Some(entry)
    }

    /// A heartbeat.
    pub fn heard(&mut self, lease: &Lease, now: Timestamp) {
        self.capacity
            .entry(lease.zkvm.clone())
            .or_default()
            .heard(lease, now);
    }

    /// An attempt ended: its prover has a free place.
    pub fn ended(&mut self, key: &AttemptKey) {
        if let Some(capacity) = self.capacity.get_mut(&key.zkvm) {
            capacity.ended(key);
        }
    }

    /// Learns what was released on a zkVM before this dispatcher led.
    pub fn adopt(&mut self, zkvm: &ZkvmId, present: HashSet<AttemptKey>, now: Timestamp) {
        self.capacity.entry(zkvm.clone()).or_default().adopt(present, now);
    }

    /// Corrects what is outstanding on a zkVM by what TASKS holds.
    pub fn reconcile(&mut self, zkvm: &ZkvmId, present: &HashSet<AttemptKey>, before: Timestamp) {
        self.capacity
            .entry(zkvm.clone())
            .or_default()
            .reconcile(present, before);
    }

    /// How many stages wait, per zkVM.
    pub fn waiting(&self) -> impl Iterator<Item = (&ZkvmId, usize)> {
        self.queues.iter().map(|(zkvm, queue)| (zkvm, queue.len()))
    }

    /// The provers alive and the attempts outstanding, per zkVM.
    pub fn provers(&self) -> impl Iterator<Item = (&ZkvmId, usize, usize)> {
        self.capacity
            .iter()
            .map(|(zkvm, capacity)| (zkvm, capacity.provers(), capacity.outstanding().count()))
    }
}

fn find<'a>(pipeline: &'a Pipeline, stage: &StageKey) -> Option<(&'a ProofSpec, &'a Stage)> {
    let proof = pipeline.proof(&stage.proof_type)?;
    let widest = proof.range().and_then(|range| range.every).unwrap_or(1);
    if stage.block_key().blocks > widest {
        return None;
    }
    proof.stage(&stage.stage).map(|(_, stage)| (proof, stage))
}
