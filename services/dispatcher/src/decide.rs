//! The dispatcher's decisions: which stages are ready, and which task is released when a prover is free.
//!
//! | event | resulting effects |
//! |---|---|
//! | a block, a ready stage | an entry waits in the queue of its zkVM |
//! | a prover is free | the most urgent task is released |
//! | all tasks of a message are stored in TASKS | the message is acknowledged |
//! | a deadline passed or out of reach | queued tasks are dropped, the collector is told |
//! | a cancellation, in its turn or before | as for a deadline, and released tasks are purged; acknowledged in its turn |
//! | a block stored before a cancellation of it | its message is acknowledged, nothing is released |
//! | a block was emitted | entries still waiting for the block are dropped |
//!
//! No message is acknowledged before everything it asks for is stored. A restart replays the unacknowledged
//! messages. Releasing an attempt twice is harmless, since its subject holds one message.

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
    Announcement, BlockRef, PipelineId, Timestamp, ZkvmId,
    message::{Lease, TaskRange},
    pipeline::{Pipeline, ProofSpec},
    subject::AttemptKey,
    task::StageKey,
    wanted::Claim,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
};

/// Upper limit on the releases of a long stage repeated after a restart.
const CURSOR_EVERY: u32 = 64;

/// Release progress of a source message. Messages with nothing released need no record: their queue
/// entries hold everything.
#[derive(Debug)]
struct Source {
    /// Any one of the message's entries. A stage message has exactly one; a block message has one per proof
    /// type, each with a single task.
    entry: EntryId,
    /// Number of entries of the message still waiting.
    open: u32,
    /// Indices of releases whose publish is not answered yet.
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
    /// Sets whether the following messages were stored before this dispatcher led.
    pub fn replays(&mut self, is_replaying: bool) {
        self.is_replaying = is_replaying;
    }

    /// Handles a block to prove: the first stage of every proof is ready.
    pub fn block(
        &mut self,
        source: SourceId,
        block: BlockRef,
        deadline_at: Option<Timestamp>,
        pipeline: &Arc<Pipeline>,
    ) -> Vec<Effect> {
        let announcement = Announcement(source.sequence());
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
                claim: Claim::first(announcement),
                first_announcement: announcement,
                deadline_at,
                is_hedge: false,
            })
        };
        let ready = pipeline.proofs.iter().filter_map(first).collect();
        self.add(source, ready, 0, pipeline)
    }

    /// Handles a ready stage or a further attempt. `cursor` counts the tasks already released
    /// before a restart.
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
            if !self.assess(&ready).is_wanted() || self.waits_already(&ready) || ready.tasks.count == 0 {
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

    /// Counts the waiting entries of a message about the block with this number.
    fn waits(&self, source: SourceId, pipeline: &PipelineId, number: u64) -> u32 {
        let waiting = self.waiting.of_number(pipeline, number);
        let count = waiting.filter(|(_, entry)| entry.source == source).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Returns the next attempt to release, or `None` if nothing waits for a zkVM with a free slot.
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

    /// Handles the broker's confirmation of a stored release.
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

    /// Finishes a message with releases, once none of its entries waits and no publish is unanswered.
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

    /// Removes an entry from every table. The `unanswered` count of its source keeps counting publishes.
    fn take_out(&mut self, id: EntryId) -> Option<Entry> {
        let entry = self.waiting.remove(id)?;
        if let Some(source) = self.begun.get_mut(&entry.source) {
            source.open = source.open.saturating_sub(1);
        }
        Some(entry)
    }

    /// Handles a heartbeat.
    pub fn heard(&mut self, lease: &Lease, now: Timestamp) {
        self.capacity
            .entry(lease.zkvm.clone())
            .or_default()
            .heard(lease, now);
    }

    /// Handles the end of an attempt: its prover has a free slot.
    pub fn ended(&mut self, key: &AttemptKey) {
        if let Some(capacity) = self.capacity.get_mut(&key.zkvm) {
            capacity.ended(key);
        }
    }

    /// Counts the attempts released on a zkVM before this dispatcher led.
    pub fn adopt(&mut self, zkvm: &ZkvmId, present: HashSet<AttemptKey>, now: Timestamp) {
        self.capacity.entry(zkvm.clone()).or_default().adopt(present, now);
    }

    /// Corrects the outstanding attempts of a zkVM against the contents of TASKS.
    pub fn reconcile(&mut self, zkvm: &ZkvmId, present: &HashSet<AttemptKey>, before: Timestamp) {
        self.capacity
            .entry(zkvm.clone())
            .or_default()
            .reconcile(present, before);
    }

    /// Returns the number of waiting stages per zkVM.
    pub fn waiting(&self) -> impl Iterator<Item = (&ZkvmId, usize)> {
        self.waiting.len()
    }

    /// Returns the number of live provers and of outstanding attempts per zkVM.
    pub fn provers(&self) -> impl Iterator<Item = (&ZkvmId, usize, usize)> {
        self.capacity
            .iter()
            .map(|(zkvm, capacity)| (zkvm, capacity.provers(), capacity.outstanding().count()))
    }
}

/// Returns the effects to finish a message: acknowledge the message, and delete its cursor if one was saved.
fn done(source: SourceId, cursor: u32) -> Vec<Effect> {
    let saved = (cursor > 0).then_some(Effect::DropCursor(source));
    std::iter::once(Effect::Done(source)).chain(saved).collect()
}
