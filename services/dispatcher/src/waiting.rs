//! Entries ready but not released, indexed by urgency, by block and by the time they are given up.
//!
//! An entry holds only the fields needed for decisions, and refers to its pipeline's definition for the rest.
//! The number of entries is bounded by how far blocks are read ahead of the output.

use crate::{
    decide::{Ready, SourceId},
    queue::{EntryId, Queue},
};
use push0_domain::{
    Announcement, BlockRef, PipelineId, Timestamp, ZkvmId,
    message::TaskRange,
    pipeline::{Pipeline, ProofSpec, Stage},
    subject::AttemptKey,
    task::StageKey,
    urgency::Urgency,
    wanted::Claim,
};
use slab::Slab;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
    sync::Arc,
    time::Duration,
};

/// A stage or attempt with at least one unreleased task.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) source: SourceId,
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) block: BlockRef,
    /// For a range: its first block, with its announcement. `None` for a single block.
    first: Option<Box<(BlockRef, Announcement)>>,
    pub(crate) claim: Claim,
    pub(crate) deadline_at: Option<Timestamp>,
    /// Number of the entry in order of arrival, so older entries go first.
    age: u64,
    pub(crate) tasks: TaskRange,
    /// The task index to release next.
    pub(crate) next: u32,
    pub(crate) attempt: u32,
    /// Position of the proof in the pipeline. `stage` is the position of the stage in the proof.
    proof: u8,
    stage: u8,
    has_more_memory: bool,
    pub(crate) is_hedge: bool,
    /// Ready before this dispatcher led, so a predecessor may have released it already, and the work may
    /// even be done.
    pub(crate) is_old: bool,
    /// When the pause before this attempt ends. `None` if there is no pause, or it has ended.
    pub(crate) paused_until: Option<Timestamp>,
    /// Set aside: cannot be ready by its deadline, and only waits for the end of its block.
    pub(crate) is_aside: bool,
}

impl Entry {
    /// Builds the entry for a ready stage. `cursor` counts the tasks already released before a restart.
    /// Returns `None` if the pipeline defines no such stage, or no range of this width.
    pub(crate) fn new(
        source: SourceId,
        ready: &Ready,
        cursor: u32,
        pipeline: &Arc<Pipeline>,
    ) -> Option<Self> {
        let proofs = &mut pipeline.proofs.iter();
        let proof = proofs.position(|proof| proof.proof_type == ready.stage.proof_type)?;
        let spec = pipeline.proofs.get(proof)?;
        let widest = spec.range().and_then(|range| range.every).unwrap_or(1);
        if ready.stage.block_key().blocks > widest {
            return None;
        }
        let (stage, definition) = spec.stage(&ready.stage.stage)?;
        let first = ready.stage.first;
        Some(Self {
            source,
            pipeline: pipeline.clone(),
            block: ready.stage.block,
            first: first.map(|first| Box::new((first, ready.first_announcement))),
            claim: ready.claim,
            deadline_at: ready.deadline_at,
            age: 0,
            tasks: ready.tasks,
            next: ready.tasks.first + cursor.min(ready.tasks.count.saturating_sub(1)),
            attempt: ready.attempt,
            proof: u8::try_from(proof).ok()?,
            stage: u8::try_from(stage).ok()?,
            has_more_memory: definition.more_memory.as_ref() == Some(&ready.zkvm),
            is_hedge: ready.is_hedge,
            is_old: false,
            paused_until: None,
            is_aside: false,
        })
    }

    /// Returns the pause before the attempt.
    pub(crate) fn pause(&self, failed: u32) -> Duration {
        self.stage().retry.pause(failed, self.source)
    }

    // The positions index this definition: `new` found them there.
    fn spec(&self) -> &ProofSpec {
        &self.pipeline.proofs[usize::from(self.proof)]
    }

    fn stage(&self) -> &Stage {
        &self.spec().stages[usize::from(self.stage)]
    }

    pub(crate) fn zkvm(&self) -> &ZkvmId {
        let stage = self.stage();
        let larger = stage.more_memory.as_ref().filter(|_| self.has_more_memory);
        larger.unwrap_or(&stage.zkvm)
    }

    pub(crate) fn key(&self) -> StageKey {
        StageKey {
            pipeline: self.pipeline.name.clone(),
            block: self.block,
            first: self.first.as_ref().map(|first| first.0),
            proof_type: self.spec().proof_type.clone(),
            stage: self.stage().name.clone(),
        }
    }

    /// Returns the number of the entry's first block, and the announcement of that block.
    pub(crate) fn begins(&self) -> (u64, Announcement) {
        let single = (self.block.number, self.claim.announcement);
        self.first
            .as_ref()
            .map_or(single, |first| (first.0.number, first.1))
    }

    /// Returns the position of the proof in the pipeline, and of the stage in the proof.
    pub(crate) fn place(&self) -> (u8, u8) {
        (self.proof, self.stage)
    }

    /// Returns whether an attempt is for the same block.
    pub(crate) fn shares_block_with(&self, key: &AttemptKey) -> bool {
        let same_number = key.block.number == self.block.number && key.pipeline == self.pipeline.name;
        same_number && key.block == self.key().block_key()
    }

    /// Returns the stage position of an attempt for the same block, or `None` if it belongs to another proof.
    pub(crate) fn stage_of(&self, key: &AttemptKey) -> Option<u8> {
        let same = key.proof_type == self.spec().proof_type;
        let (position, _) = self.spec().stage(&key.stage).filter(|_| same)?;
        u8::try_from(position).ok()
    }

    /// Returns the unreleased task indices.
    pub(crate) fn rest(&self) -> Range<u32> {
        self.next..self.tasks.first + self.tasks.count
    }

    /// Returns whether the proof can no longer be ready by the deadline.
    pub(crate) fn is_out_of_reach(&self, now: Timestamp) -> bool {
        self.out_of_reach_at().is_some_and(|at| at <= now)
    }

    fn out_of_reach_at(&self) -> Option<Timestamp> {
        let after = self.spec().fastest_after(&self.stage().name);
        let least = self.stage().fastest.saturating_add(after);
        Some(self.wanted_until()?.minus(least))
    }

    /// Returns the deadline, or `None` for an operator's retry, which is wanted long after the deadline too.
    fn wanted_until(&self) -> Option<Timestamp> {
        self.deadline_at.filter(|_| !self.claim.is_retry)
    }

    /// Returns when `tick` must look at the entry: when its deadline gets out of reach, or at the deadline
    /// for an entry set aside.
    fn moment(&self) -> Option<Timestamp> {
        if self.is_aside {
            self.wanted_until()
        } else {
            self.out_of_reach_at()
        }
    }

    fn urgency(&self) -> Urgency {
        Urgency::new(
            &self.pipeline.policy,
            self.block.number,
            self.deadline_at,
            self.spec().stages_left(&self.stage().name),
            self.attempt,
            self.age,
        )
    }

    fn numbers(&self) -> impl Iterator<Item = u64> {
        self.begins().0..=self.block.number
    }
}

/// All waiting entries and their indices.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    entries: Slab<Entry>,
    queues: BTreeMap<ZkvmId, Queue>,
    /// Entries whose pause has not ended, and that are in no queue, by the end of the pause.
    paused: BTreeMap<ZkvmId, BTreeSet<(Timestamp, EntryId)>>,
    moments: BTreeSet<(Timestamp, EntryId)>,
    /// Entries by block number. A range is listed under each of its blocks.
    by_block: HashMap<PipelineId, BTreeSet<(u64, EntryId)>>,
    added: u64,
}

impl Waiting {
    pub(crate) fn add(&mut self, mut entry: Entry) {
        self.added += 1;
        entry.age = self.added;
        let slot = self.entries.vacant_entry();
        let id = EntryId(slot.key());
        let pipeline = &entry.pipeline;
        match entry.paused_until {
            Some(until) => {
                let paused = self.paused.entry(entry.zkvm().clone()).or_default();
                paused.insert((until, id));
            }
            None => enqueue(&mut self.queues, &entry, id),
        }
        self.moments.extend(entry.moment().map(|at| (at, id)));
        let of_pipeline = self.by_block.entry(pipeline.name.clone()).or_default();
        of_pipeline.extend(entry.numbers().map(|number| (number, id)));
        slot.insert(entry);
    }

    pub(crate) fn get(&self, id: EntryId) -> Option<&Entry> {
        self.entries.get(id.0)
    }

    pub(crate) fn remove(&mut self, id: EntryId) -> Option<Entry> {
        let entry = self.entries.try_remove(id.0)?;
        if let Some(queue) = self.queues.get_mut(entry.zkvm()) {
            queue.remove(&entry.pipeline.name, entry.urgency());
        }
        unpause(&mut self.paused, &entry, id);
        if let Some(at) = entry.moment() {
            self.moments.remove(&(at, id));
        }
        if let Some(of_pipeline) = self.by_block.get_mut(&entry.pipeline.name) {
            for number in entry.numbers() {
                of_pipeline.remove(&(number, id));
            }
        }
        Some(entry)
    }

    /// Sets an entry aside: never released again, and kept only so that its message stays unacknowledged
    /// until its block ends.
    pub(crate) fn set_aside(&mut self, id: EntryId) {
        let Some(entry) = self.entries.get_mut(id.0) else {
            return;
        };
        if let Some(queue) = self.queues.get_mut(entry.zkvm()) {
            queue.remove(&entry.pipeline.name, entry.urgency());
        }
        unpause(&mut self.paused, entry, id);
        if let Some(at) = entry.moment() {
            self.moments.remove(&(at, id));
        }
        entry.is_aside = true;
        self.moments.extend(entry.moment().map(|at| (at, id)));
    }

    /// Moves the entries whose pause has ended by `now` into their queues. The entries of a held queue stay
    /// paused while others wait there: tasks not tried yet are better probes.
    pub(crate) fn resume(&mut self, now: Timestamp, is_held: impl Fn(&ZkvmId) -> bool) {
        for (zkvm, paused) in &mut self.paused {
            if is_held(zkvm) && self.queues.get(zkvm).is_some_and(|queue| !queue.is_empty()) {
                continue;
            }
            let later = paused.split_off(&(now.plus(Duration::from_millis(1)), EntryId(0)));
            for (_, id) in std::mem::replace(paused, later) {
                if let Some(entry) = self.entries.get_mut(id.0) {
                    entry.paused_until = None;
                    enqueue(&mut self.queues, entry, id);
                }
            }
        }
        self.paused.retain(|_, paused| !paused.is_empty());
    }

    /// Ends all pauses of a zkVM.
    pub(crate) fn resume_all(&mut self, zkvm: &ZkvmId) {
        for (_, id) in self.paused.remove(zkvm).unwrap_or_default() {
            if let Some(entry) = self.entries.get_mut(id.0) {
                entry.paused_until = None;
                enqueue(&mut self.queues, entry, id);
            }
        }
    }

    /// Returns the zkVMs with waiting entries, each with the entry whose task goes next.
    pub(crate) fn next(&self) -> impl Iterator<Item = (&ZkvmId, EntryId)> {
        self.queues
            .iter()
            .filter_map(|(zkvm, queue)| Some((zkvm, queue.peek()?)))
    }

    /// Takes the next task of an entry. Returns its index, and whether it was the last one.
    pub(crate) fn take(&mut self, id: EntryId) -> Option<(u32, bool)> {
        let entry = self.entries.get_mut(id.0)?;
        self.queues.get_mut(entry.zkvm())?.charge(&entry.pipeline.name);
        let index = entry.next;
        entry.next += 1;
        Some((index, entry.next == entry.tasks.first + entry.tasks.count))
    }

    /// Returns the entries for blocks with this number.
    pub(crate) fn of_number(
        &self,
        pipeline: &PipelineId,
        number: u64,
    ) -> impl Iterator<Item = (EntryId, &Entry)> {
        let range = (number, EntryId(0))..=(number, EntryId(usize::MAX));
        let of_pipeline = self.by_block.get(pipeline).into_iter();
        let ids = of_pipeline.flat_map(move |of| of.range(range.clone()));
        ids.filter_map(|(_, id)| Some((*id, self.get(*id)?)))
    }

    /// Returns the entries for blocks with these numbers, each entry once.
    pub(crate) fn between(
        &self,
        pipeline: &PipelineId,
        first: u64,
        last: u64,
    ) -> impl Iterator<Item = (EntryId, &Entry)> {
        let range = (first, EntryId(0))..=(last, EntryId(usize::MAX));
        let of_pipeline = self.by_block.get(pipeline).into_iter();
        let ids: BTreeSet<EntryId> = of_pipeline
            .flat_map(|of| of.range(range.clone()))
            .map(|(_, id)| *id)
            .collect();
        ids.into_iter().filter_map(|id| Some((id, self.get(id)?)))
    }

    /// Returns the entries for the block `front`, or for the blocks of a range that begins there, lowest numbers
    /// first. Without a known front, the lowest number is the front.
    pub(crate) fn first_from(
        &self,
        pipeline: &PipelineId,
        front: Option<u64>,
    ) -> impl Iterator<Item = (&ZkvmId, EntryId)> {
        let of_pipeline = self.by_block.get(pipeline);
        let lowest = of_pipeline.and_then(|of| of.first()).copied();
        let front = front.or(lowest.map(|(number, _)| number)).unwrap_or_default();
        let range = lowest.and_then(|(_, id)| self.get(id)?.pipeline.range()?.every);
        let last = front.saturating_add(u64::from(range.unwrap_or(1)).saturating_sub(1));
        let numbers = (front, EntryId(0))..=(last, EntryId(usize::MAX));
        let entries = of_pipeline
            .into_iter()
            .flat_map(move |of| of.range(numbers.clone()));
        let entries = entries.filter_map(|(_, id)| Some((*id, self.get(*id)?)));
        entries
            .filter(|(_, entry)| !entry.is_aside && entry.paused_until.is_none())
            .map(|(id, entry)| (entry.zkvm(), id))
    }

    /// Drops the tables of a pipeline, unless entries of it wait. Returns whether they were dropped.
    pub(crate) fn forget(&mut self, pipeline: &PipelineId) -> bool {
        let is_empty = self.by_block.get(pipeline).is_none_or(BTreeSet::is_empty);
        if is_empty {
            self.by_block.remove(pipeline);
            for queue in self.queues.values_mut() {
                queue.forget(pipeline);
            }
        }
        is_empty
    }

    /// Returns the entry with the earliest moment, if the moment has come.
    pub(crate) fn due(&self, now: Timestamp) -> Option<&Entry> {
        let (at, id) = self.moments.first()?;
        self.get(*id).filter(|_| *at <= now)
    }

    /// Returns the zkVM and the message of each waiting entry, paused ones included.
    pub(crate) fn sources(&self) -> impl Iterator<Item = (&ZkvmId, SourceId)> {
        let entries = self.entries.iter().filter(|(_, entry)| !entry.is_aside);
        entries.map(|(_, entry)| (entry.zkvm(), entry.source))
    }

    /// Returns whether an entry waits for a zkVM, paused ones included.
    pub(crate) fn has(&self, zkvm: &ZkvmId) -> bool {
        let is_queued = self.queues.get(zkvm).is_some_and(|queue| !queue.is_empty());
        is_queued || self.paused.get(zkvm).is_some_and(|paused| !paused.is_empty())
    }

    /// Returns the number of waiting entries per zkVM, paused ones included.
    pub(crate) fn len(&self) -> impl Iterator<Item = (&ZkvmId, usize)> {
        let names: BTreeSet<&ZkvmId> = self.queues.keys().chain(self.paused.keys()).collect();
        names.into_iter().map(|zkvm| {
            let queued = self.queues.get(zkvm).map_or(0, Queue::len);
            (zkvm, queued + self.paused.get(zkvm).map_or(0, BTreeSet::len))
        })
    }
}

fn enqueue(queues: &mut BTreeMap<ZkvmId, Queue>, entry: &Entry, id: EntryId) {
    let pipeline = &entry.pipeline;
    queues.entry(entry.zkvm().clone()).or_default().push(
        &pipeline.name,
        pipeline.weight,
        entry.urgency(),
        id,
    );
}

fn unpause(paused: &mut BTreeMap<ZkvmId, BTreeSet<(Timestamp, EntryId)>>, entry: &Entry, id: EntryId) {
    if let (Some(until), Some(of_zkvm)) = (entry.paused_until, paused.get_mut(entry.zkvm())) {
        of_zkvm.remove(&(until, id));
    }
}
