//! The state of a deployment as the gateway knows it. Pure: messages change it, and views are made of it.
//!
//! The state holds the newest blocks, at most [`BLOCKS_MAX`], and the fleet. It is a copy for people: nothing
//! rests on it, and a restart makes it anew from what the broker stores.

mod account;
mod block;
mod chain;
mod fleet;
mod queue;
mod sentence;
mod shown;
mod spans;
#[cfg(test)]
mod tests;
mod verdict;

pub use chain::Output;

use crate::view::{self, millis};
use block::{Block, BlockId};
use chain::Chain;
use fleet::{Ended, Fleet};
use push0_domain::{
    BlockRef, PipelineId, ProverId, Timestamp, ZkvmId,
    message::{
        BlockEnded, Emission, Event, Happening, HeldQueue, Lease, ObservedBlock, Outcome, Role, TaskResult,
    },
    pipeline::Pipeline,
    subject::AttemptKey,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// How many blocks are kept. Blocks with a record go first, the oldest of them before others.
pub const BLOCKS_MAX: usize = 2_000;
/// How many blocks a snapshot has.
pub const SHOWN_MAX: usize = 1_000;

/// The state of a deployment, as far as messages told of it.
#[derive(Debug, Default)]
pub struct Model {
    chains: BTreeMap<PipelineId, Chain>,
    blocks: BTreeMap<BlockId, Block>,
    fleet: Fleet,
    holds: BTreeMap<ZkvmId, HeldQueue>,
    streams: Vec<view::StreamLevel>,
    letters: usize,
    /// Why the broker cannot be read, and since when.
    away: Option<(Timestamp, String)>,
    verdict: view::Verdict,
    zkvms: BTreeMap<String, view::Zkvm>,
    dirty: Dirty,
}

#[derive(Debug, Default)]
struct Dirty {
    chains: BTreeSet<PipelineId>,
    blocks: BTreeSet<BlockId>,
    provers: BTreeSet<(ProverId, bool)>,
    streams: bool,
    gone: view::Gone,
}

/// What is read from time to time, because no message tells of its changes.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Current definitions and how far each output has come.
    pub pipelines: Vec<(Arc<Pipeline>, Output)>,
    /// Held queues.
    pub holds: BTreeMap<ZkvmId, HeldQueue>,
    /// Fill levels.
    pub streams: Vec<view::StreamLevel>,
    /// The number of dead letters.
    pub letters: usize,
}

impl Model {
    /// Handles an announced block.
    pub fn observed(&mut self, observed: &ObservedBlock, trace: Option<&str>, now: Timestamp) {
        let id = BlockId::of(&observed.pipeline, &observed.block);
        self.chain(&observed.pipeline)
            .ingested(observed.block.number, now);
        let block = self.block(id, now);
        block.announce(observed, trace, now);
    }

    /// Handles a released attempt.
    pub fn released(&mut self, key: &AttemptKey, now: Timestamp) {
        let block = self.block(BlockId::of_key(key), now);
        block.attempt(key).release(now);
    }

    /// Handles a heartbeat.
    pub fn heard(&mut self, lease: Lease, now: Timestamp) {
        for held in &lease.held {
            let key = AttemptKey::of(&held.header.zkvm, &held.header.attempt_id());
            let (id, role) = (BlockId::of_key(&key), lease.role);
            // A lease may be older than the record: it makes no block known again.
            if let Some(block) = self.blocks.get_mut(&id)
                && block.hold(&key, held, &lease.prover, role, now)
            {
                self.dirty.blocks.insert(id);
            }
        }
        let key = (lease.prover.clone(), lease.role == Role::Verifier);
        if self.fleet.heard(lease, now) {
            self.dirty.provers.insert(key);
        }
    }

    /// Handles a completed attempt that waits for a verifier.
    pub fn checking(&mut self, key: &AttemptKey, result: &TaskResult, now: Timestamp) {
        let block = self.block(BlockId::of_key(key), now);
        block.stage_has(key, result.header.of);
        block.attempt(key).complete(result, false, now);
        self.ended(key, &result.prover, false, "done", now);
    }

    /// Handles the end of an attempt, as a prover, the watchdog or a verifier tells it.
    pub fn result(&mut self, key: &AttemptKey, result: &TaskResult, now: Timestamp) {
        let block = self.block(BlockId::of_key(key), now);
        block.stage_has(key, result.header.of);
        let attempt = block.attempt(key);
        let was_checking = attempt.is_checking();
        match &result.outcome {
            Outcome::Completed { .. } => attempt.complete(result, true, now),
            Outcome::Failed(failure) => attempt.fail(result, failure, now),
        }
        if matches!(result.outcome, Outcome::Completed { .. }) {
            block.task_done(key);
        }
        if let Some(verdict) = &result.verdict {
            let outcome = if verdict.invalid.is_none() {
                "done"
            } else {
                "failed"
            };
            self.ended(key, &verdict.verifier, true, outcome, now);
        }
        if !was_checking {
            let outcome = match &result.outcome {
                Outcome::Completed { .. } => "done",
                Outcome::Failed(failure) => fleet::outcome_of(failure.class),
            };
            self.ended(key, &result.prover, false, outcome, now);
        }
    }

    fn ended(
        &mut self,
        key: &AttemptKey,
        prover: &ProverId,
        verifies: bool,
        outcome: &'static str,
        now: Timestamp,
    ) {
        let started = self
            .blocks
            .get(&BlockId::of_key(key))
            .and_then(|block| block.started_at(key, verifies));
        let ended = Ended {
            key,
            started_at: started.unwrap_or(now),
            ended_at: now,
            outcome,
        };
        if self.fleet.ended((prover.clone(), verifies), &ended) {
            self.dirty.provers.insert((prover.clone(), verifies));
        }
    }

    /// Handles blocks that end without a proof.
    pub fn end(&mut self, ended: &BlockEnded, now: Timestamp) {
        let numbers = ended.first..=ended.last;
        for (id, block) in &mut self.blocks {
            let is_named = ended.hashes.is_empty() || ended.hashes.iter().any(|hash| id.is(hash));
            if id.pipeline == ended.pipeline && numbers.contains(&id.number) && is_named {
                block.end(ended.reason.clone(), now);
                self.dirty.blocks.insert(id.clone());
            }
        }
    }

    /// Handles a record.
    pub fn record(&mut self, record: &Emission, stored_at: Timestamp, trace: Option<&str>) {
        let id = BlockId::of(&record.pipeline, &record.last);
        if self
            .blocks
            .get(&id)
            .is_some_and(|block| block.is_recorded_since(stored_at))
        {
            return;
        }
        self.chain(&record.pipeline).recorded(record, stored_at);
        for part in record.blocks() {
            let part_id = BlockId::of(&record.pipeline, &part);
            self.replaced_by(&part_id, stored_at);
            let block = self.block(part_id, stored_at);
            block.record(record, &part, stored_at, trace);
        }
        self.make_room();
    }

    /// Marks other blocks of this number as replaced.
    fn replaced_by(&mut self, id: &BlockId, now: Timestamp) {
        for (other, block) in self.blocks.range_mut(id.all_of_number()) {
            if other != id && block.end(push0_domain::message::EndReason::Reorged, now) {
                self.dirty.blocks.insert(other.clone());
            }
        }
    }

    /// Handles an event.
    pub fn happened(&mut self, event: Event, now: Timestamp) {
        match event.what {
            Happening::QueueHeld {
                zkvm,
                since,
                failures,
                error,
            } => {
                self.holds.insert(
                    zkvm,
                    HeldQueue {
                        since,
                        failures,
                        error,
                    },
                );
            }
            Happening::QueueOpened { zkvm } => drop(self.holds.remove(&zkvm)),
            Happening::DeadLetter { .. } => self.letters += 1,
            what => {
                for key in self.fleet.happened(what, now) {
                    self.dirty.provers.insert(key);
                }
            }
        }
    }

    /// Handles what was read anew.
    pub fn read(&mut self, reading: Reading, now: Timestamp) {
        self.away = None;
        self.holds = reading.holds;
        self.letters = reading.letters;
        if self.streams != reading.streams {
            self.streams = reading.streams;
            self.dirty.streams = true;
        }
        let current: BTreeSet<PipelineId> = reading.pipelines.iter().map(|(p, _)| p.name.clone()).collect();
        self.chains
            .retain(|name, chain| current.contains(name) || chain.is_unread());
        for (definition, output) in reading.pipelines {
            let name = definition.name.clone();
            if self.chain(&name).read(definition, output, now) {
                self.dirty.chains.insert(name);
            }
        }
    }

    /// Notes that the broker cannot be read.
    pub fn is_away(&mut self, reason: String, now: Timestamp) {
        let since = self.away.take().map_or(now, |(since, _)| since);
        self.away = Some((since, reason));
    }

    /// Returns what changed since the last call. The caller calls this ten times a second at most.
    pub fn changes(&mut self, now: Timestamp) -> view::Change {
        for key in self.fleet.forget(now) {
            self.dirty.gone.provers.push(key.0.to_string());
        }
        let dirty = std::mem::take(&mut self.dirty);
        let mut change = view::Change {
            at: millis(now),
            ..view::Change::default()
        };
        change.blocks = dirty
            .blocks
            .iter()
            .filter_map(|id| Some(self.view_of(id, self.blocks.get(id)?, now)))
            .collect();
        change.provers = dirty
            .provers
            .iter()
            .filter_map(|key| self.fleet.view(key))
            .collect();
        change.pipelines = dirty
            .chains
            .iter()
            .filter_map(|name| Some(self.chains.get(name)?.view(name, now)))
            .collect();
        if dirty.streams {
            change.streams = self.streams.clone();
        }
        change.zkvms = self.changed_zkvms(now);
        let verdict = self.judge(now);
        if verdict != self.verdict {
            self.verdict = verdict.clone();
            change.verdict = Some(verdict);
        }
        let is_gone = !dirty.gone.blocks.is_empty() || !dirty.gone.provers.is_empty();
        change.gone = is_gone.then_some(dirty.gone);
        change
    }

    fn changed_zkvms(&mut self, now: Timestamp) -> Vec<view::Zkvm> {
        let zkvms = self.queues(now);
        let changed = zkvms
            .iter()
            .filter(|(name, zkvm)| self.zkvms.get(*name) != Some(zkvm))
            .map(|(_, zkvm)| zkvm.clone())
            .collect();
        self.zkvms = zkvms;
        changed
    }

    /// Returns the whole state.
    pub fn snapshot(&self, id: String, now: Timestamp) -> view::Snapshot {
        let mut blocks: Vec<(&BlockId, &Block)> = self.blocks.iter().collect();
        blocks.sort_by_key(|(id, block)| (std::cmp::Reverse(block.at()), std::cmp::Reverse(id.number)));
        blocks.truncate(SHOWN_MAX);
        view::Snapshot {
            id,
            at: millis(now),
            verdict: self.judge(now),
            pipelines: self
                .chains
                .iter()
                .map(|(name, chain)| chain.view(name, now))
                .collect(),
            zkvms: self.queues(now).into_values().collect(),
            provers: self.fleet.views(),
            blocks: blocks
                .into_iter()
                .rev()
                .map(|(id, block)| self.view_of(id, block, now))
                .collect(),
            streams: self.streams.clone(),
        }
    }

    /// Returns the name of a stage's kind.
    pub fn kind_of(stage: &push0_domain::pipeline::Stage) -> &'static str {
        shown::kind(stage.kind)
    }

    /// Returns the current definition of a pipeline, and the pipeline's view.
    pub fn pipeline(&self, name: &PipelineId, now: Timestamp) -> Option<(Arc<Pipeline>, view::Pipeline)> {
        let chain = self.chains.get(name)?;
        Some((chain.definition()?, chain.view(name, now)))
    }

    /// Returns the newest block of a number that stands, or the block whose hash begins with `hash`.
    pub fn find(&self, pipeline: &PipelineId, number: Option<u64>, hash: Option<&str>) -> Option<BlockRef> {
        let all = self.blocks.iter().filter(|(id, _)| id.pipeline == *pipeline);
        let fits = all.filter(|(id, block)| {
            number.is_none_or(|number| id.number == number)
                && hash.is_none_or(|hash| block.hash_text(id).starts_with(hash))
        });
        let best = fits.max_by_key(|(_, block)| (block.stands(), block.at()))?;
        Some(BlockRef {
            number: best.0.number,
            hash: best.1.hash()?,
        })
    }

    /// Returns the story of a block.
    pub fn detail(
        &self,
        pipeline: &PipelineId,
        block: &BlockRef,
        now: Timestamp,
    ) -> Option<view::BlockDetail> {
        let id = BlockId::of(pipeline, block);
        let found = self.blocks.get(&id)?;
        let definition = self.chains.get(pipeline).and_then(Chain::definition);
        Some(view::BlockDetail {
            block: self.view_of(&id, found, now),
            parent_hash: found.parent_hash().map(|hash| hash.to_string()),
            trace_id: found.trace_id().map(str::to_owned),
            trace_url: None,
            story: sentence::story(&id, found),
            spans: spans::of(&id, found, definition.as_deref()),
            attempts_list: found.attempt_views(&id),
            proofs: found.proof_views(),
            account: found.record.as_ref().and_then(|record| record.account),
            legs: found
                .record
                .as_ref()
                .map_or_else(Vec::new, |record| record.legs.clone()),
            letters: Vec::new(),
        })
    }

    /// Returns the blocks of a pipeline below a number, newest first.
    pub fn blocks_of(
        &self,
        pipeline: &PipelineId,
        before: u64,
        limit: usize,
        now: Timestamp,
    ) -> Vec<view::Block> {
        let of = self.blocks.iter().rev();
        of.filter(|(id, _)| id.pipeline == *pipeline && id.number < before)
            .take(limit)
            .map(|(id, block)| self.view_of(id, block, now))
            .collect()
    }

    fn view_of(&self, id: &BlockId, block: &Block, now: Timestamp) -> view::Block {
        let chain = self.chains.get(&id.pipeline);
        let definition = chain.and_then(Chain::definition);
        let next = chain.and_then(Chain::next);
        block.view(id, definition.as_deref(), next, &self.holds, now)
    }

    fn chain(&mut self, name: &PipelineId) -> &mut Chain {
        self.dirty.chains.insert(name.clone());
        self.chains.entry(name.clone()).or_default()
    }

    /// Returns a block, which is new if nothing was told of it yet.
    fn block(&mut self, id: BlockId, now: Timestamp) -> &mut Block {
        self.dirty.blocks.insert(id.clone());
        self.blocks.entry(id).or_insert_with(|| Block::new(now))
    }

    fn make_room(&mut self) {
        while self.blocks.len() > BLOCKS_MAX {
            let done = self.blocks.iter().filter(|(_, block)| !block.is_open());
            let Some(id) = done.min_by_key(|(_, block)| block.at()).map(|(id, _)| id.clone()) else {
                return;
            };
            if let Some(block) = self.blocks.remove(&id) {
                let hash = block.hash_text(&id);
                self.dirty
                    .gone
                    .blocks
                    .push((id.pipeline.to_string(), id.number, hash));
            }
            self.dirty.blocks.remove(&id);
        }
    }
}
