//! The dispatcher's decisions: what is ready, and what is released when a prover is free.
//!
//! | event | effect |
//! |---|---|
//! | a block, a ready stage | it waits in the queue of its zkVM |
//! | a prover is free | the most urgent task is released |
//! | all tasks of a message are stored in TASKS | the message is acknowledged |
//! | a deadline that passed or cannot be met | queued tasks vanish, the collector is told |
//! | a cancel, in its turn or before | the same, and released tasks are purged; in its turn it is acknowledged |
//! | a block that was stored before a cancel which ends it | its message is acknowledged, nothing is released |
//! | a block was emitted | what still waits for it vanishes |
//!
//! Nothing is acknowledged before what it asks for is stored. A restart replays the unacknowledged
//! messages; releasing an attempt twice is harmless, since its subject holds one message.

mod superseded;

use crate::{
    capacity::Capacity,
    queue::EntryId,
    track::Track,
    waiting::{Entry, Waiting},
};
pub use crate::{
    effect::{Effect, Ready, Release, SourceId},
    track::CANCELS_EARLY_MAX,
};
use push0_domain::{
    BlockRef, PipelineId, Timestamp, ZkvmId,
    message::{Lease, TaskRange},
    pipeline::{Pipeline, ProofSpec},
    subject::AttemptKey,
    task::StageKey,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

/// How many releases of a long stage a restart may repeat.
const CURSOR_EVERY: u32 = 64;

/// A message of which something was released. Of the others, their entries say all.
#[derive(Debug)]
struct Source {
    /// An entry of it: the only one, if it asks for several tasks, as a block asks for one of each proof.
    entry: EntryId,
    /// How many of its entries wait.
    open: u32,
    /// Releases whose publish is not answered yet.
    in_flight: BTreeSet<u32>,
    unanswered: u32,
    saved: u32,
}

/// The dispatcher's state, derived from unacknowledged messages, heartbeats and TASKS.
#[derive(Debug, Default)]
pub struct Dispatcher {
    waiting: Waiting,
    begun: HashMap<SourceId, Source>,
    capacity: BTreeMap<ZkvmId, Capacity>,
    tracks: HashMap<PipelineId, Track>,
    is_replaying: bool,
}

impl Dispatcher {
    /// Whether what comes now was ready before this dispatcher led.
    pub fn replays(&mut self, is_replaying: bool) {
        self.is_replaying = is_replaying;
    }

    /// A block to prove: the first stage of every proof is ready.
    pub fn block(
        &mut self,
        source: SourceId,
        block: BlockRef,
        announced_at: Timestamp,
        deadline_at: Option<Timestamp>,
        pipeline: &Arc<Pipeline>,
    ) -> Vec<Effect> {
        let track = self.tracks.get(&pipeline.name);
        if track.is_some_and(|track| track.is_cancelled(source.sequence(), &block)) {
            return done(source, 0);
        }
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
                zkvm: stage.zkvm.clone(),
                tasks,
                attempt: 1,
                announced_at,
                first_announced_at: announced_at,
                deadline_at,
                is_hedge: false,
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
        let is_known = |ready: &Ready| {
            self.begun.contains_key(&source)
                || self.waits(source, &ready.stage.pipeline, ready.stage.block.number) > 0
        };
        if ready.iter().any(is_known) {
            return Vec::new();
        }
        let mut waits = false;
        for ready in ready {
            if self.is_settled(source, &ready) || ready.tasks.count == 0 {
                continue;
            }
            if let Some(mut entry) = Entry::new(source, &ready, cursor, pipeline) {
                entry.is_old = self.is_replaying;
                self.waiting.add(entry);
                waits = true;
            }
        }
        if waits { Vec::new() } else { done(source, cursor) }
    }

    /// How many entries of a message wait, which is about this block.
    fn waits(&self, source: SourceId, pipeline: &PipelineId, number: u64) -> u32 {
        let waiting = self.waiting.of_number(pipeline, number);
        let count = waiting.filter(|(_, entry)| entry.source == source).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// The next attempt to release, if a prover can take one.
    pub fn release(&mut self, now: Timestamp) -> Option<Release> {
        let has_place = |zkvm: &ZkvmId| self.capacity.get(zkvm).is_some_and(|c| c.free() > 0);
        let (zkvm, id) = self.waiting.next().find(|(zkvm, _)| has_place(zkvm))?;
        let zkvm = zkvm.clone();
        let entry = self.waiting.get(id)?;
        let (stage, source, attempt) = (entry.key(), entry.source, entry.attempt);
        if !self.begun.contains_key(&source) {
            let saved = entry.next - entry.tasks.first;
            let begun = Source {
                entry: id,
                open: match source {
                    SourceId::Block(_) => self.waits(source, &stage.pipeline, stage.block.number),
                    SourceId::Stage(_) => 1,
                },
                in_flight: BTreeSet::new(),
                unanswered: 0,
                saved,
            };
            self.begun.insert(source, begun);
        }
        let (index, is_last) = self.waiting.take(id)?;
        let key = AttemptKey::of(&zkvm, &stage.task(index).attempt(attempt));
        self.capacity.get_mut(&zkvm)?.released(key.clone(), now);
        if let Some(source) = self.begun.get_mut(&source) {
            source.unanswered += 1;
            source.in_flight.insert(index);
        }
        if is_last {
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
        let Some(state) = self.begun.get_mut(&source) else {
            return Vec::new();
        };
        state.unanswered = state.unanswered.saturating_sub(1);
        state.in_flight.remove(&index);
        if state.open == 0 {
            return self.settle(source);
        }
        let entry = self.waiting.get(state.entry);
        let Some(entry) = entry.filter(|entry| entry.source == source) else {
            return Vec::new();
        };
        let answered = state.in_flight.first().copied().unwrap_or(entry.next) - entry.tasks.first;
        if answered < state.saved + CURSOR_EVERY {
            return Vec::new();
        }
        state.saved = answered;
        vec![Effect::SaveCursor(source, answered)]
    }

    /// Lets a message go of which something was released, if nothing of it is left to do.
    fn settle(&mut self, source: SourceId) -> Vec<Effect> {
        match self.begun.get(&source) {
            Some(begun) if begun.open == 0 && begun.unanswered == 0 => {
                let saved = begun.saved;
                self.begun.remove(&source);
                done(source, saved)
            }
            _ => Vec::new(),
        }
    }

    /// Takes an entry out of every table but its source's `unanswered` count.
    fn take_out(&mut self, id: EntryId) -> Option<Entry> {
        let entry = self.waiting.remove(id)?;
        if let Some(source) = self.begun.get_mut(&entry.source) {
            source.open = source.open.saturating_sub(1);
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
        self.waiting.len()
    }

    /// The provers alive and the attempts outstanding, per zkVM.
    pub fn provers(&self) -> impl Iterator<Item = (&ZkvmId, usize, usize)> {
        self.capacity
            .iter()
            .map(|(zkvm, capacity)| (zkvm, capacity.provers(), capacity.outstanding().count()))
    }
}

/// A message is done with, of which a cursor said how far it was released, if it is above 0.
fn done(source: SourceId, cursor: u32) -> Vec<Effect> {
    let saved = (cursor > 0).then_some(Effect::DropCursor(source));
    std::iter::once(Effect::Done(source)).chain(saved).collect()
}
