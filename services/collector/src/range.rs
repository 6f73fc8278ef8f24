//! Ranges: which consecutive blocks are proved together.
//!
//! A block whose own stages are done is *ready*. A range is a run of linked ready blocks, each the parent of
//! the next, that begins where the previous range ends. A range is closed
//!
//! - before a multiple of `every`, so every collector finds the same cuts, wherever it starts;
//! - before a block that is in another range, or gets no proof;
//! - `close_after` after its first block was ready, with the blocks that were ready by then.
//!
//! The results of its blocks stay unacknowledged until the record of the range is stored. So a range can be
//! taken apart at any time, and its blocks are free for another range: when one of them is cancelled or
//! replaced, or when two halves are tried after the whole range has failed.

mod lost;

use crate::{
    advance::{self, ProofKey},
    around::{Around, context, first_stage, from_its_blocks, newest_of, ready_in},
    bodies::Bodies,
    intake::Handle,
    run::{Key, Rules},
    spans::Spans,
    state::{At, Block, Blocks, Origin, block_ref},
    step::{Opening, Step},
};
use push0_domain::{BlockHash, BlockRef, Timestamp, pipeline::Pipeline};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Blocks proved as one.
#[derive(Debug)]
pub(crate) struct Range {
    /// State of the range's proof, as if it were a block: its hash and number are those of the last block.
    pub(crate) unit: Block,
    /// First block of the range.
    pub(crate) first: BlockRef,
    /// Blocks of the range, from first to last. Empty while the range is known only from its results.
    pub(crate) members: Vec<At>,
    /// Whether the budget is used up and two halves are tried instead. The range is kept until they are
    /// emitted, so a collector that starts over finds the same cut.
    halved: bool,
    /// The newest start of the proof that was asked for, because the work of earlier ones was lost.
    start: u32,
}

/// All ranges of a pipeline without a record.
#[derive(Debug, Default)]
pub(crate) struct Ranges {
    all: BTreeMap<Key, Range>,
    /// Ready blocks in no range.
    free: BTreeSet<At>,
    /// Those of them that became ready since ranges were last formed.
    fresh: BTreeSet<At>,
    /// The range of each block in one.
    taken: BTreeMap<At, Key>,
    /// Ranges with new results since they were last advanced.
    touched: BTreeSet<Key>,
    /// Ranges whose next step needs messages to be read again.
    deferred: BTreeSet<Key>,
    /// Ranges to begin anew, each with the newest message about it when its work was missed.
    lost: BTreeMap<Key, Option<Handle>>,
}

impl Ranges {
    /// Handles a block becoming ready.
    pub(crate) fn ready(&mut self, at: At) {
        if !self.taken.contains_key(&at) {
            let is_fresh = self.free.insert(at);
            self.fresh.extend(is_fresh.then_some(at));
        }
    }

    /// Handles a message about a range, after reading it again.
    pub(crate) fn touch(&mut self, key: Key) {
        if self.all.contains_key(&key) {
            self.touched.insert(key);
        }
    }

    /// Returns the state of the range a result came for. An unknown range is created from `new`.
    pub(crate) fn unit(&mut self, key: Key, first: BlockRef, new: impl FnOnce() -> Block) -> &mut Block {
        self.touched.insert(key);
        let range = self.all.entry(key).or_insert_with(|| Range {
            unit: new(),
            first,
            members: Vec::new(),
            halved: false,
            start: 0,
        });
        &mut range.unit
    }

    /// Removes a block no longer wanted, and takes its range apart. Returns the settled messages.
    pub(crate) fn without(&mut self, at: &At, blocks: &Blocks) -> Vec<Handle> {
        self.free.remove(at);
        let key = self.taken.get(at).copied();
        key.map(|key| self.take_apart(&key, blocks)).unwrap_or_default()
    }

    /// Takes apart ranges that begin before `next`, the number to emit next, except those amending a record.
    /// Returns the settled messages.
    pub(crate) fn pass(&mut self, next: u64, blocks: &Blocks) -> Vec<Handle> {
        let behind = self.all.range(..(next, (0, BlockHash::default())));
        let behind: Vec<Key> = behind
            .filter(|(_, range)| !range.unit.amends)
            .map(|(key, _)| *key)
            .collect();
        behind
            .iter()
            .flat_map(|key| self.take_apart(key, blocks))
            .collect()
    }

    /// Takes apart ranges the chain has replaced, as far as no waiting block leads to them: ranges known only
    /// from their results, and ranges amending a record.
    pub(crate) fn replaced(
        &mut self,
        is_replaced: impl Fn(&BlockRef, &Block) -> bool,
        blocks: &Blocks,
    ) -> Vec<Handle> {
        let all = self.all.iter();
        let alone = all.filter(|(_, range)| range.members.is_empty() || range.unit.amends);
        let replaced = alone.filter(|((_, at), range)| is_replaced(&block_ref(*at), &range.unit));
        let replaced: Vec<Key> = replaced.map(|(key, _)| *key).collect();
        let settled = replaced.iter().flat_map(|key| self.take_apart(key, blocks));
        settled.collect()
    }

    /// Forgets a range that amends a record. Returns the settled messages.
    pub(crate) fn forget(&mut self, key: &Key, blocks: &Blocks) -> Vec<Handle> {
        self.take_apart(key, blocks)
    }

    fn take_apart(&mut self, key: &Key, blocks: &Blocks) -> Vec<Handle> {
        let Some(mut range) = self.all.remove(key) else {
            return Vec::new();
        };
        self.touched.remove(key);
        self.release(key, &range.members, blocks);
        range.unit.take_handles()
    }

    /// Frees the blocks of a range, except those another range has taken after this one was halved.
    fn release(&mut self, key: &Key, members: &[At], blocks: &Blocks) {
        for at in members {
            if self.taken.get(at) == Some(key) {
                self.taken.remove(at);
                let wanted = blocks.get(at).is_some_and(|block| block.ready().is_some());
                self.free.extend(wanted.then_some(*at));
            }
        }
    }

    /// Removes a range whose blocks have their record.
    pub(crate) fn take(&mut self, key: &Key) -> Option<Range> {
        let range = self.all.remove(key)?;
        self.touched.remove(key);
        for at in &range.members {
            self.taken.remove(at);
        }
        Some(range)
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Range> {
        self.all.get(key)
    }

    /// Returns the ranges that begin with this number and whose blocks are all known.
    pub(crate) fn beginning_at(&self, number: u64) -> impl Iterator<Item = (&Key, &Range)> {
        let (least, most) = ((0, BlockHash::default()), (u64::MAX, BlockHash([0xff; 32])));
        let here = self.all.range((number, least)..=(number, most));
        here.filter(|(_, range)| !range.members.is_empty())
    }

    /// Returns the ranges that amend a record.
    pub(crate) fn amending(&self, next: u64) -> impl Iterator<Item = (&Key, &Range)> {
        let behind = self.all.range(..(next, (0, BlockHash::default())));
        behind.filter(|(_, range)| range.unit.amends)
    }

    /// Returns all steps that follow from the current blocks and ranges.
    pub(crate) fn advance<F>(
        &mut self,
        around: &Around<'_, F>,
        (bodies, spans): (&mut Bodies, &mut Spans),
        now: Timestamp,
    ) -> Vec<Step>
    where
        F: Fn(u32) -> Option<Arc<Pipeline>>,
    {
        if bodies.is_quiet() {
            self.touched.append(&mut self.deferred);
        }
        let mut steps = vec![Step::Ack(self.claim(around))];
        for key in std::mem::take(&mut self.touched) {
            steps.extend(self.advance_one(&key, around, (bodies, spans), now));
        }
        steps.extend(self.begin_anew(around, bodies, now));
        let mut opened = true;
        while opened && !self.free.is_empty() {
            opened = false;
            for run in self.runs(around, now) {
                let opening = self.open(run, around, bodies, now);
                opened |= opening.is_some();
                steps.extend(opening.map(|opening| Step::Open(Box::new(opening), Vec::new())));
            }
        }
        if bodies.is_quiet() {
            self.fresh.clear();
        }
        steps
    }

    /// Reattaches ranges known only from their results, as after a restart, to their blocks. A range goes on
    /// if its blocks are ready and in no other range. Overlapping ranges are resolved by progress first, so
    /// that the one that can be emitted wins, and then by size: halves came after the whole range, and get
    /// their blocks when the whole range is halved again. Returns the settled messages, which are the results
    /// of the other ranges.
    fn claim<F>(&mut self, around: &Around<'_, F>) -> Vec<Handle>
    where
        F: Fn(u32) -> Option<Arc<Pipeline>>,
    {
        let unclaimed = self.touched.iter().filter(|key| {
            let range = self.all.get(key);
            range.is_some_and(|range| range.members.is_empty())
        });
        let mut unclaimed: Vec<Key> = unclaimed.copied().collect();
        unclaimed.sort_by_key(|key| {
            let (first, (last, _)) = *key;
            let proofs = self.all.get(key).map(|range| range.unit.proofs().iter());
            let progress =
                proofs.and_then(|all| all.map(|(_, proof)| (proof.position, proof.completed)).max());
            Reverse((progress, last.saturating_sub(first)))
        });
        let mut settled = Vec::new();
        for key in unclaimed {
            match self.members(&key, around) {
                Some(members) => {
                    self.occupy(key, members, around);
                    self.halve(&key, around);
                }
                // The blocks have their record. The retry goes on without them.
                None if self.all.get(&key).is_some_and(|range| range.unit.amends) => {}
                None => settled.extend(self.take_apart(&key, around.blocks)),
            }
        }
        settled
    }

    fn members<F>(&self, key: &Key, around: &Around<'_, F>) -> Option<Vec<At>> {
        let (first, mut at) = *key;
        let mut members = Vec::new();
        while self.free.contains(&at) && at.0 >= first {
            members.push(at);
            if at.0 == first {
                members.reverse();
                return Some(members);
            }
            at = (at.0 - 1, around.blocks.get(&at)?.parent_hash);
        }
        None
    }

    fn occupy<F>(&mut self, key: Key, members: Vec<At>, around: &Around<'_, F>) {
        let context = context(&members, around);
        if let Some((range, (first, context))) = self.all.get_mut(&key).zip(context) {
            // Recompute the context: the copy in the results comes from provers and is not trusted.
            range.unit.set_context(context);
            range.first = first;
            range.members = members;
            for at in &range.members {
                self.free.remove(at);
                self.taken.insert(*at, key);
            }
        }
    }

    fn advance_one<F>(
        &mut self,
        key: &Key,
        around: &Around<'_, F>,
        (bodies, spans): (&mut Bodies, &mut Spans),
        now: Timestamp,
    ) -> Vec<Step>
    where
        F: Fn(u32) -> Option<Arc<Pipeline>>,
    {
        self.halve(key, around);
        let Some(range) = self.all.get_mut(key).filter(|range| !range.halved) else {
            return Vec::new();
        };
        let (first, unit) = (range.first, &mut range.unit);
        let Some(pipeline) = (around.definition)(unit.revision) else {
            return Vec::new();
        };
        let dies = unit
            .proofs()
            .iter()
            .any(|(_, p)| p.dead.is_none() && p.is_hopeless());
        if dies && !bodies.have(&ready_in(&range.members, around)) {
            // The dead letter holds the inputs of the whole range.
            self.deferred.insert(*key);
            return Vec::new();
        }
        let mut steps = Vec::new();
        for (proof_type, proof) in &mut unit.open().proofs {
            let Some(spec) = pipeline.proof(proof_type) else {
                continue;
            };
            let whose = ProofKey {
                pipeline: around.pipeline.clone(),
                block: block_ref(key.1),
                first: Some(first),
                proof_type: proof_type.clone(),
            };
            let follows = advance::advance(proof, spec, &whose, bodies, now);
            let anew = |letter| from_its_blocks(letter, &range.members, around, bodies);
            spans.add(follows.spans);
            steps.extend(follows.steps.into_iter().map(|step| match step {
                Step::Bury(letter, trace) => Step::Bury(Box::new(anew(*letter)), trace),
                other => other,
            }));
            if follows.waits {
                self.deferred.insert(*key);
            }
        }
        steps
    }

    /// Frees the blocks of a range that cannot be proved as a whole, if halves may be.
    fn halve<F>(&mut self, key: &Key, around: &Around<'_, F>)
    where
        F: Fn(u32) -> Option<Arc<Pipeline>>,
    {
        let Some(range) = self.all.get_mut(key) else {
            return;
        };
        let pipeline = (around.definition)(range.unit.revision);
        let splits = |pipeline: Arc<Pipeline>| pipeline.range().is_some_and(|stage| stage.split_on_failure);
        let divisible = range.members.len() > 1 && pipeline.is_some_and(splits);
        if divisible && !range.halved && range.unit.proofs().iter().any(|(_, p)| p.is_hopeless()) {
            range.halved = true;
            let members = range.members.clone();
            self.release(key, &members, around.blocks);
        }
    }

    /// Returns the closed runs of free blocks.
    fn runs<F>(&self, around: &Around<'_, F>, now: Timestamp) -> Vec<Vec<At>>
    where
        F: Fn(u32) -> Option<Arc<Pipeline>>,
    {
        let cuts = self.cuts();
        let closed = |at: &At| {
            let revision = around.blocks.get(at)?.revision;
            let definition = (around.definition)(revision)?;
            let stage = definition.range()?;
            let rules = Rules {
                blocks: around.blocks,
                next: around.next,
                ends: around.ends,
                free: &self.free,
                taken: &self.taken,
                cuts: &cuts,
                every: u64::from(stage.every?),
                close_after: stage.close_after?,
                revision,
            };
            rules.run(at, now)
        };
        self.free.iter().filter_map(closed).collect()
    }

    /// Returns the numbers at the beginning, middle and end of halved ranges, where new ranges must begin.
    fn cuts(&self) -> BTreeSet<u64> {
        let halved = self.all.iter().filter(|(_, range)| range.halved);
        let cuts = halved.flat_map(|((first, (last, _)), range)| {
            let middle = range.members.get(range.members.len() / 2);
            [Some(*first), middle.map(|(number, _)| *number), Some(last + 1)]
        });
        cuts.flatten().collect()
    }

    /// Forms a range of these blocks. Returns `None` while messages about them are being read.
    fn open<F>(
        &mut self,
        run: Vec<At>,
        around: &Around<'_, F>,
        bodies: &mut Bodies,
        now: Timestamp,
    ) -> Option<Opening>
    where
        F: Fn(u32) -> Option<Arc<Pipeline>>,
    {
        let handles = ready_in(&run, around);
        if !bodies.have(&handles) {
            return None;
        }
        for at in &run {
            self.free.remove(at);
        }
        // Of a range that its last block closed, no time passed between both. Of any other, the clock tells.
        let (newest_at, newest) = newest_of(&run, around)?;
        let is_closed_by_it = self.fresh.contains(&newest_at);
        let closed_at = if is_closed_by_it { newest.stored_at } else { now };
        let (ready, position) = first_stage(&run, around, bodies, closed_at)?;
        let last_handle = handles.last()?;
        let first_ready = run.iter().filter_map(|at| around.blocks.get(at)?.ready());
        let first_ready_at = first_ready.map(|done| done.stored_at).min().unwrap_or(now);
        let (first, last) = (ready.stage.first_block(), ready.stage.block);
        let trace = &bodies.completed(*last_handle)?.trace;
        let trace = trace.map(|trace| trace.of_range(&first, &last, first_ready_at, now));
        let origin = Origin {
            context: Arc::new(ready.context.clone()),
            trace: trace.clone(),
        };
        let mut unit = Block::new(&ready.context, Some(origin), None);
        unit.open().proof(&ready.stage.proof_type).position = position;
        let last_at = *run.last()?;
        let key = (first.number, last_at);
        self.taken.extend(run.iter().map(|at| (*at, key)));
        let range = Range {
            unit,
            first,
            members: run,
            halved: false,
            start: 0,
        };
        self.all.insert(key, range);
        Some(Opening { ready, trace })
    }
}
