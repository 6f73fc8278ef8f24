//! The state of a deployment as the gateway knows it. Pure: messages change it, and views are made of it.
//!
//! The state holds the blocks round each output, at most [`BLOCKS_MAX`], and the fleet. It is a copy for people: nothing
//! rests on it, and a restart makes it anew from what the broker stores. Whatever is told, the state stays small.

mod account;
mod attempt;
mod block;
mod blocks;
mod chain;
mod fleet;
mod hear;
mod queue;
mod room;
mod sentence;
mod shown;
mod spans;
mod tasks;
#[cfg(test)]
mod tests;
pub(crate) mod text;
mod verdict;

pub use blocks::BLOCKS_MAX;
pub use chain::Output;

use crate::view::{self, millis};
use block::{Block, BlockId};
use blocks::Blocks;
use chain::Chain;
use fleet::{Fleet, Key, role_of};
use push0_bus::Lead;
use push0_domain::{BlockRef, PipelineId, Timestamp, ZkvmId, message::HeldQueue, pipeline::Pipeline};
use push0_operate::judge;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use text::{LINE_MAX, cut};

/// How many blocks a snapshot has.
pub const SHOWN_MAX: usize = 1_000;
/// How many stages the blocks of a snapshot have together.
const STAGES_SHOWN_MAX: usize = 16_384;
/// How many blocks are named at once to be read again.
pub(crate) const MISSING_MAX: usize = 128;
/// How many pipelines are shown.
const PIPELINES_MAX: usize = 256;
/// How many held queues are shown.
const HOLDS_MAX: usize = 256;

/// The state of a deployment, as far as messages told of it.
#[derive(Debug, Default)]
pub struct Model {
    /// When the broker's streams were made: others than before hold nothing of what is known.
    made_at: Option<Timestamp>,
    chains: BTreeMap<PipelineId, Chain>,
    blocks: Blocks,
    fleet: Fleet,
    holds: BTreeMap<ZkvmId, HeldQueue>,
    seats: BTreeMap<String, Seat>,
    streams: Vec<view::StreamLevel>,
    troubles: Vec<String>,
    letters: usize,
    /// Why the broker cannot be read, and since when.
    away: Option<(Timestamp, String)>,
    verdict: view::Verdict,
    zkvms: BTreeMap<ZkvmId, view::Zkvm>,
    dirty: Dirty,
}

#[derive(Debug, Default)]
struct Dirty {
    chains: BTreeSet<PipelineId>,
    blocks: BTreeSet<BlockId>,
    provers: BTreeSet<Key>,
    streams: bool,
    gone: view::Gone,
    /// Whether clients must start over, because a pipeline is gone.
    all: bool,
}

/// A role, as its fact told at the last reading.
#[derive(Debug)]
struct Seat {
    renewed_at: Option<Timestamp>,
    /// Whether nobody led, and nobody did at the reading before.
    is_vacant: (bool, bool),
}

/// What is read from time to time, because no message tells of its changes.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Current definitions and how far each output has come.
    pub pipelines: Vec<(Arc<Pipeline>, Output)>,
    /// Known pipelines that were removed, and of which no block is in flight any more.
    pub over: Vec<PipelineId>,
    /// When the stream of records was made.
    pub made_at: Option<Timestamp>,
    /// Held queues.
    pub holds: BTreeMap<ZkvmId, HeldQueue>,
    /// The roles of these pipelines, and who leads.
    pub leads: Vec<(String, Lead)>,
    /// Fill levels.
    pub streams: Vec<view::StreamLevel>,
    /// What is wrong with streams.
    pub troubles: Vec<String>,
    /// The number of dead letters.
    pub letters: usize,
}

impl Model {
    /// Handles current definitions and outputs, before anything else is told of their pipelines.
    pub fn define(&mut self, reading: &Reading) {
        self.rests_on(reading.made_at);
        for (definition, output) in &reading.pipelines {
            if let Some(chain) = self.chain(&definition.name) {
                chain.define(definition.clone(), *output);
            }
        }
    }

    /// Handles what was read anew.
    pub fn read(&mut self, reading: Reading, now: Timestamp) {
        self.rests_on(reading.made_at);
        self.away = None;
        self.holds.clear();
        for (zkvm, hold) in reading.holds {
            self.hold(zkvm, hold);
        }
        self.letters = reading.letters;
        let troubles = reading.troubles.iter().map(|trouble| cut(trouble, LINE_MAX));
        self.troubles = troubles.collect();
        if self.streams != reading.streams {
            self.streams = reading.streams;
            self.dirty.streams = true;
        }
        reading.over.iter().for_each(|name| self.drop_pipeline(name));
        for (definition, output) in reading.pipelines {
            let name = definition.name.clone();
            let is_new = !self.chains.contains_key(&name);
            if is_new && self.chains.len() >= PIPELINES_MAX {
                continue;
            }
            let chain = self.chains.entry(name.clone()).or_default();
            if chain.read(definition, output, now) || is_new {
                self.dirty.chains.insert(name);
            }
        }
        self.seat(reading.leads, now);
        self.compare(now);
    }

    /// Forgets everything about blocks if the streams are others than before: the broker was emptied.
    fn rests_on(&mut self, made_at: Option<Timestamp>) {
        // An unknown time tells nothing.
        let before = self.made_at;
        self.made_at = made_at.or(before);
        if before.is_some() && self.made_at != before {
            self.chains.clear();
            self.blocks = Blocks::default();
            self.dirty.all = true;
        }
    }

    /// Returns when the streams were made from which everything was read.
    pub fn made_at(&self) -> Option<Timestamp> {
        self.made_at
    }

    /// Returns the names of all pipelines.
    pub fn names(&self) -> Vec<PipelineId> {
        self.chains.keys().cloned().collect()
    }

    /// Notes who leads. A clock may differ from that of the broker, so an old renewal counts only if no other follows.
    fn seat(&mut self, leads: Vec<(String, Lead)>, now: Timestamp) {
        let mut before = std::mem::take(&mut self.seats);
        for (role, lead) in leads.into_iter().take(2 * (PIPELINES_MAX + 1)) {
            let known = before.remove(&role);
            let is_still = known
                .as_ref()
                .is_some_and(|seat| seat.renewed_at == lead.renewed_at);
            let is_vacant = lead.led.is_none() || (is_still && judge::is_silent(&lead, now));
            let was_vacant = known.is_some_and(|seat| seat.is_vacant.0);
            let seat = Seat {
                renewed_at: lead.renewed_at,
                is_vacant: (is_vacant, was_vacant),
            };
            self.seats.insert(role, seat);
        }
    }

    fn hold(&mut self, zkvm: ZkvmId, hold: HeldQueue) {
        if self.holds.len() < HOLDS_MAX || self.holds.contains_key(&zkvm) {
            let error = cut(&hold.error, LINE_MAX);
            self.holds.insert(zkvm, HeldQueue { error, ..hold });
        }
    }

    /// Notes that the broker cannot be read.
    pub fn is_away(&mut self, reason: String, now: Timestamp) {
        let since = self.away.take().map_or(now, |(since, _)| since);
        self.away = Some((since, cut(&reason, LINE_MAX)));
    }

    /// Returns what changed since the last call. The caller calls this ten times a second at most.
    pub fn changes(&mut self, now: Timestamp) -> view::Change {
        for (participant, verifies) in self.fleet.forget(now) {
            self.dirty.gone.provers.push((
                participant.zkvm.to_string(),
                participant.name.to_string(),
                role_of(verifies),
            ));
        }
        let dirty = std::mem::take(&mut self.dirty);
        let mut change = view::Change {
            at: millis(now),
            ..view::Change::default()
        };
        change.is_too_long = dirty.all || dirty.blocks.len().max(dirty.gone.blocks.len()) > self.shown_max();
        if change.is_too_long {
            return self.all_changed(change, now);
        }
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
            .filter_map(|name| Some(self.pipeline_view(name, self.chains.get(name)?, now)))
            .collect();
        if dirty.streams {
            change.streams = self.streams.clone();
        }
        let zkvms = self.queues(now);
        let verdict = self.judge(&zkvms, now);
        change.zkvms = self.changed_zkvms(zkvms);
        if verdict != self.verdict {
            self.verdict = verdict.clone();
            change.verdict = Some(verdict);
        }
        let is_gone = !dirty.gone.blocks.is_empty() || !dirty.gone.provers.is_empty();
        change.gone = is_gone.then_some(dirty.gone);
        change
    }

    /// Notes that clients start over from a snapshot, which has everything.
    fn all_changed(&mut self, change: view::Change, now: Timestamp) -> view::Change {
        self.zkvms = self.queues(now);
        self.verdict = self.judge(&self.zkvms, now);
        change
    }

    fn changed_zkvms(&mut self, zkvms: BTreeMap<ZkvmId, view::Zkvm>) -> Vec<view::Zkvm> {
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
        let zkvms = self.queues(now);
        view::Snapshot {
            id,
            at: millis(now),
            verdict: self.judge(&zkvms, now),
            pipelines: self
                .chains
                .iter()
                .map(|(name, chain)| self.pipeline_view(name, chain, now))
                .collect(),
            zkvms: zkvms.into_values().collect(),
            provers: self.fleet.views(),
            blocks: self
                .to_show()
                .into_iter()
                .map(|(id, block)| self.view_of(id, block, now))
                .collect(),
            streams: self.streams.clone(),
        }
    }

    /// Returns the blocks of a snapshot, oldest first: those next to the output, and the newest of the others.
    fn to_show(&self) -> Vec<(&BlockId, &Block)> {
        let all = self.blocks.iter();
        let (mut open, mut done): (Vec<_>, Vec<_>) = all.partition(|(_, block)| block.is_open());
        open.sort_by_key(|(id, _)| self.ahead(id));
        done.sort_by_key(|(id, block)| (std::cmp::Reverse(block.at()), std::cmp::Reverse(id.number)));
        let max = self.shown_max();
        open.truncate(max - done.len().min(max / 2));
        done.truncate(max - open.len());
        let mut shown = [open, done].concat();
        shown.sort_by_key(|(id, block)| (block.at(), id.number));
        shown
    }

    /// Returns how many blocks an answer has at most: a block tells of each stage.
    pub fn shown_max(&self) -> usize {
        let definitions = self.chains.values().filter_map(Chain::definition);
        let stages =
            definitions.map(|definition| definition.proofs.iter().map(|proof| proof.stages.len()).sum());
        (STAGES_SHOWN_MAX / stages.max().unwrap_or(1).max(1)).min(SHOWN_MAX)
    }

    /// Returns how many blocks are held, and how many bytes they take, roughly.
    pub fn size(&self) -> (usize, usize) {
        (self.blocks.len(), self.blocks.bytes())
    }

    /// Returns the name of a stage's kind.
    pub fn kind_of(stage: &push0_domain::pipeline::Stage) -> &'static str {
        shown::kind(stage.kind)
    }

    /// Returns the current definition of a pipeline, and the pipeline's view.
    pub fn pipeline(&self, name: &PipelineId, now: Timestamp) -> Option<(Arc<Pipeline>, view::Pipeline)> {
        let chain = self.chains.get(name)?;
        Some((chain.definition()?, self.pipeline_view(name, chain, now)))
    }

    fn pipeline_view(&self, name: &PipelineId, chain: &Chain, now: Timestamp) -> view::Pipeline {
        chain.view(name, self.next_observed_at(name, chain), now)
    }

    /// Returns when the block was observed that is to be emitted next.
    fn next_observed_at(&self, name: &PipelineId, chain: &Chain) -> Option<Timestamp> {
        let next = chain.next()?;
        let of_number = self.blocks.of_numbers(name, next..=next);
        of_number.map(|(_, block)| block.at()).max()
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

    /// Returns a pipeline, which is new if nothing was told of it yet; `None` if there are too many.
    fn chain(&mut self, name: &PipelineId) -> Option<&mut Chain> {
        if self.chains.len() >= PIPELINES_MAX && !self.chains.contains_key(name) {
            return None;
        }
        self.dirty.chains.insert(name.clone());
        Some(self.chains.entry(name.clone()).or_default())
    }
}
