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
//! | a further attempt | the attempt waits for its pause, then in the queue |
//! | attempts of a zkVM fail without a success | its queue is held: see `hold.rs` |
//!
//! No message is acknowledged before everything it asks for is stored. A restart replays the unacknowledged
//! messages. Releasing an attempt twice is harmless, since its subject holds one message.

mod holds;
mod superseded;

use crate::{
    capacity::Capacity,
    hold::Hold,
    queue::EntryId,
    reserve::Reserve,
    track::Track,
    waiting::{Entry, Waiting},
};
pub use crate::{
    effect::{Effect, Ready, Release, SourceId},
    hold::Turn,
    outcome::Outcome,
    track::CANCELS_EARLY_MAX,
};
use push0_bus::Room;
use push0_domain::{
    Announcement, BlockRef, PipelineId, Timestamp, ZkvmId,
    message::{Lease, TaskRange},
    pipeline::{Pipeline, ProofSpec},
    subject::{AttemptKey, Kind},
    task::StageKey,
    wanted::Claim,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
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
    holds: BTreeMap<ZkvmId, Hold>,
    tracks: HashMap<PipelineId, Track>,
    is_replaying: bool,
    room: Room,
    reserve: Reserve,
}

impl Dispatcher {
    /// Sets whether the following messages were stored before this dispatcher led.
    pub fn replays(&mut self, is_replaying: bool) {
        self.is_replaying = is_replaying;
    }

    /// Sets the room for the results of released work.
    pub fn has_room_for_results(&mut self, room: Room) {
        self.room = room;
    }

    /// Returns the reserve of the blob store, to tell it of the store's level.
    pub fn reserve(&mut self) -> &mut Reserve {
        &mut self.reserve
    }

    /// Handles a completed attempt, whose outputs take up `bytes` in the blob store, as a result or a check tells. An attempt
    /// that is not outstanding stores nothing.
    pub fn stores(&mut self, kind: Kind, key: &AttemptKey, bytes: u64) {
        let capacity = self.capacity.get(&key.zkvm);
        if capacity.is_some_and(|capacity| capacity.released_at(key).is_some()) {
            match kind {
                Kind::Check => self.reserve.claims(&key.zkvm, bytes),
                _ => self.reserve.stores(&key.zkvm, bytes),
            }
        }
    }

    /// Returns whether the blob store has room for one more output that is not needed next.
    fn fits(&self, zkvm: &ZkvmId) -> bool {
        let outstanding = self
            .capacity
            .iter()
            .map(|(zkvm, capacity)| (zkvm, capacity.out()));
        self.reserve.fits(zkvm, outstanding, self.tracks.len())
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
                failed: 0,
                races: None,
            })
        };
        let ready = pipeline.proofs.iter().filter_map(first).collect();
        self.add(source, ready, (0, Timestamp::default()), pipeline)
    }

    /// Handles a ready stage or a further attempt. `cursor` counts the tasks already released
    /// before a restart. A pause begins now: the clocks of other machines do not matter, and a pause that
    /// begins anew after a restart is short.
    pub fn stage(
        &mut self,
        source: SourceId,
        ready: Ready,
        cursor: u32,
        pipeline: &Arc<Pipeline>,
        now: Timestamp,
    ) -> Vec<Effect> {
        if let Some((attempt, prover)) = &ready.races
            && let Some(capacity) = self.capacity.get_mut(&ready.zkvm)
        {
            let raced = ready.stage.task(ready.tasks.first).attempt(*attempt);
            capacity.doubted(&AttemptKey::of(&ready.zkvm, &raced), prover);
        }
        self.add(source, vec![ready], (cursor, now), pipeline)
    }

    fn add(
        &mut self,
        source: SourceId,
        ready: Vec<Ready>,
        (cursor, now): (u32, Timestamp),
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
            let is_known = self.waits_already(&ready) || self.is_out_already(&ready);
            if !self.assess(&ready).is_wanted() || is_known || ready.tasks.count == 0 {
                continue;
            }
            if let Some(mut entry) = Entry::new(source, &ready, cursor, pipeline) {
                entry.is_old = self.is_replaying;
                entry.paused_until = (ready.failed > 0).then(|| now.plus(entry.pause(ready.failed)));
                self.waiting.add(entry);
                waits = true;
            }
        }
        if waits { Vec::new() } else { done(source, cursor) }
    }

    /// Returns whether a further attempt is out already: a hedge, asked for again as the retry of the attempt that it
    /// raced. If it waited for a place, it would be done twice as soon as the first run has ended.
    fn is_out_already(&self, ready: &Ready) -> bool {
        let key = || {
            AttemptKey::of(
                &ready.zkvm,
                &ready.stage.task(ready.tasks.first).attempt(ready.attempt),
            )
        };
        let is_one = ready.attempt > 1 && ready.tasks.count == 1;
        let capacity = self.capacity.get(&ready.zkvm).filter(|_| is_one);
        capacity.is_some_and(|capacity| capacity.is_out(&key(), ready.claim))
    }

    /// Counts the waiting entries of a message about the block with this number.
    fn waits(&self, source: SourceId, pipeline: &PipelineId, number: u64) -> u32 {
        let waiting = self.waiting.of_number(pipeline, number);
        let count = waiting.filter(|(_, entry)| entry.source == source).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Returns the next attempt to release, or `None` if nothing waits for a zkVM with a free slot.
    pub fn release(&mut self, now: Timestamp) -> Option<Release> {
        let untried_first = self.probes_untried_first();
        self.waiting.resume(now, |zkvm| untried_first.contains(zkvm));
        let has_place = |zkvm: &ZkvmId| {
            let allows = self.holds.get(zkvm).is_none_or(|hold| hold.allows(now));
            allows && self.capacity.get(zkvm).is_some_and(|c| c.free() > 0)
        };
        let (zkvm, id) = match self.room {
            Room::Enough => {
                let fitting = |(zkvm, _): &(&ZkvmId, EntryId)| has_place(zkvm) && self.fits(zkvm);
                let next = self.waiting.next().find(fitting);
                next.or_else(|| self.next_to_emit().find(|(zkvm, _)| has_place(zkvm)))?
            }
            Room::Scarce(_) => self.next_to_emit().find(|(zkvm, _)| has_place(zkvm))?,
            Room::None(_) => return None,
        };
        let zkvm = zkvm.clone();
        let entry = self.waiting.get(id)?;
        let (stage, source, attempt, claim) = (entry.key(), entry.source, entry.attempt, entry.claim);
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
        self.capacity
            .get_mut(&zkvm)?
            .released(key.clone(), Some(claim), now);
        if let Some(hold) = self.holds.get_mut(&zkvm) {
            hold.released(&key, now);
        }
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

    /// Returns the held zkVMs whose probe may be any task. Where room is scarce, only the next block's task may go,
    /// whether or not the task failed before: a probe that waited for untried tasks would never go.
    fn probes_untried_first(&self) -> BTreeSet<ZkvmId> {
        let held = self.holds.iter().filter(|(_, hold)| hold.is_held());
        held.filter(|(zkvm, _)| self.room == Room::Enough && self.fits(zkvm))
            .map(|(zkvm, _)| zkvm.clone())
            .collect()
    }

    /// Returns the entries for the next block, or the next range, that each pipeline emits.
    fn next_to_emit(&self) -> impl Iterator<Item = (&ZkvmId, EntryId)> {
        let fronts = self.tracks.iter();
        fronts.flat_map(|(name, track)| self.waiting.first_from(name, track.front()))
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
        if let Some(hold) = self.holds.get_mut(&key.zkvm) {
            hold.ended(key);
        }
    }

    /// Counts the attempts released on a zkVM before this dispatcher led.
    pub fn adopt(&mut self, zkvm: &ZkvmId, present: HashSet<AttemptKey>, now: Timestamp) {
        self.capacity.entry(zkvm.clone()).or_default().adopt(present, now);
    }

    /// Corrects the outstanding attempts of a zkVM against the contents of TASKS.
    pub fn reconcile(&mut self, zkvm: &ZkvmId, present: &HashSet<AttemptKey>, before: Timestamp) {
        let capacity = self.capacity.entry(zkvm.clone()).or_default();
        capacity.reconcile(present, before);
        if let Some(hold) = self.holds.get_mut(zkvm) {
            hold.reconcile(|key| capacity.released_at(key).is_some());
        }
    }

    /// Returns the number of waiting stages per zkVM.
    pub fn waiting(&self) -> impl Iterator<Item = (&ZkvmId, usize)> {
        self.waiting.len()
    }

    /// Returns the zkVM and the message of each waiting stage.
    pub fn waiting_sources(&self) -> impl Iterator<Item = (&ZkvmId, SourceId)> {
        self.waiting.sources()
    }

    /// Returns for each zkVM when the oldest of its attempts was released that no prover is known to run.
    pub fn untaken(&self) -> impl Iterator<Item = (&ZkvmId, Option<Timestamp>)> {
        let all = self.capacity.iter();
        all.map(|(zkvm, capacity)| (zkvm, capacity.oldest_untaken()))
    }

    /// Returns how long an attempt waited for its prover, see [`Capacity::waited`].
    pub fn waited(&self, key: &AttemptKey, worked: Duration, now: Timestamp) -> Option<Duration> {
        self.capacity.get(&key.zkvm)?.waited(key, worked, now)
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
