//! The next record, when it can be written, and records that amend others.

use super::{Collector, REORG_DEPTH_MAX, Step};
use crate::{
    range::Range,
    record,
    state::{At, Block, Handle},
};
use push0_domain::{
    BlockHash, Timestamp,
    message::{BlockEnded, Emission, EmissionOutcome},
    output::Emitted,
    pipeline::Pipeline,
};
use std::{collections::VecDeque, sync::Arc};

/// How many blocks may be on their way to a new record; beyond it the oldest stay dead.
const AMENDING_MAX: usize = 256;

impl Collector {
    /// The next record, if it can be written.
    pub(super) fn emit(&mut self, definition: &impl Fn(u32) -> Option<Arc<Pipeline>>) -> Option<Step> {
        let parent = self
            .next
            .checked_sub(1)
            .and_then(|before| self.emitted.get(&before));
        let parent = parent.map(|parent| parent.hash);
        let outcome = |block: &Block| {
            let linked = parent.is_none_or(|parent| parent == block.context.parent_hash);
            let definition = definition(block.context.revision);
            linked.then(|| record::outcome(block, definition.as_deref()))?
        };
        let range = self.ranges.beginning_at(self.next);
        let range = range.filter_map(|(key, range)| Some((*key, outcome(&range.unit)?)));
        if let Some((key, outcome)) = range.min_by_key(|(key, _)| *key) {
            let range = self.ranges.take(&key)?;
            return Some(self.emit_range(range, outcome));
        }
        let (least, most) = (BlockHash::default(), BlockHash([0xff; 32]));
        let mut here = self.blocks.range((self.next, least)..=(self.next, most));
        let (at, outcome) = here.find_map(|(at, block)| Some((*at, outcome(block)?)))?;
        let mut block = self.blocks.remove(&at)?;
        let mut handles = block.take_handles();
        let standing = Emitted::standing(&self.emitted, at.0);
        handles.extend(self.go_on([(at, block.context.stored_at)]));
        let (emission, trace) = record::emission(&self.pipeline, &block, outcome, self.next);
        let emission = Emission { standing, ..emission };
        Some(Step::Emit(Box::new(emission), vec![trace], handles))
    }

    fn emit_range(&mut self, mut range: Range, outcome: EmissionOutcome) -> Step {
        let members = range.members.iter().filter_map(|at| self.blocks.remove(at));
        let mut members: Vec<Block> = members.collect();
        let mut handles = range.unit.take_handles();
        handles.extend(members.iter_mut().flat_map(Block::take_handles));
        let at = |block: &Block| (block.block.number, block.block.hash);
        let settled: Vec<(At, Timestamp)> = members.iter().map(|b| (at(b), b.context.stored_at)).collect();
        let standing = Emitted::standing(&self.emitted, self.next);
        handles.extend(self.go_on(settled));
        let (emission, trace) = record::emission(&self.pipeline, &range.unit, outcome, self.next);
        let emission = Emission {
            hashes: range.members.iter().map(|(_, hash)| *hash).collect(),
            standing,
            ..emission
        };
        // The last one's trace is that of the range.
        members.pop();
        let traces = [trace].into_iter().chain(members.iter().map(record::trace));
        Step::Emit(Box::new(emission), traces.collect(), handles)
    }

    /// The output goes on behind these blocks. Returns what else is settled by their record.
    fn go_on(&mut self, blocks: impl IntoIterator<Item = (At, Timestamp)>) -> Vec<Handle> {
        self.intake.decided();
        let before = self.next;
        let blocks: Vec<_> = blocks.into_iter().collect();
        let covered_to = blocks.last().map_or(before, |((number, _), _)| *number);
        for ((number, hash), announced_at) in blocks {
            self.next = number + 1;
            let emitted = Emitted {
                hash,
                announced_at,
                covered_to,
            };
            self.emitted.insert(number, emitted);
        }
        while self.emitted.len() > REORG_DEPTH_MAX {
            self.emitted.pop_first();
        }
        let next = self.next;
        let (over, kept) = std::mem::take(&mut self.ends)
            .into_iter()
            .partition(|(e, _)| e.last < next);
        self.ends = kept;
        let over: Vec<(BlockEnded, Handle)> = over;
        let mut handles: Vec<Handle> = over.into_iter().map(|(_, handle)| handle).collect();
        // Other blocks of these numbers lost the race to the chain.
        let losers = (before, BlockHash::default())..(next, BlockHash::default());
        let losers: Vec<At> = self.blocks.range(losers).map(|(at, _)| *at).collect();
        for at in losers {
            let block = self.blocks.remove(&at);
            handles.extend(block.into_iter().flat_map(|mut block| block.take_handles()));
            handles.extend(self.ranges.without(&at, &self.blocks));
        }
        handles.extend(self.ranges.pass(next, &self.blocks));
        handles
    }

    /// New records for emitted blocks that were dead and are no more.
    pub(super) fn amend(&mut self, definition: &impl Fn(u32) -> Option<Arc<Pipeline>>) -> Vec<Step> {
        let outcome = |block: &Block| record::outcome(block, definition(block.context.revision).as_deref());
        let late = self.blocks.range(..(self.next, BlockHash::default()));
        let blocks = over(late.map(|(at, block)| (*at, outcome(block))));
        let amending = self.ranges.amending(self.next);
        let ranges = over(amending.map(|(key, range)| (*key, outcome(&range.unit))));
        let mut steps = Vec::new();
        for (at, outcome) in blocks {
            let mut handles = self.ranges.without(&at, &self.blocks);
            if let Some(mut block) = self.blocks.remove(&at) {
                handles.extend(block.take_handles());
                steps.push(self.amendment(&block, outcome, handles));
            }
        }
        for (key, outcome) in ranges {
            let Some(mut range) = self.ranges.take(&key) else {
                continue;
            };
            let members = range.members.iter().filter_map(|at| self.blocks.remove(at));
            let mut handles: Vec<Handle> = members.flat_map(|mut block| block.take_handles()).collect();
            handles.extend(range.unit.take_handles());
            steps.push(self.amendment(&range.unit, outcome, handles));
        }
        steps
    }

    /// Whether an emitted block is still the one of its number. Deeper than any reorg it is.
    pub(super) fn stands(&self, (number, hash): &At) -> bool {
        self.emitted
            .get(number)
            .is_none_or(|emitted| emitted.hash == *hash)
    }

    fn amendment(&mut self, unit: &Block, outcome: Option<EmissionOutcome>, handles: Vec<Handle>) -> Step {
        let at = (unit.block.number, unit.block.hash);
        let stands = self.stands(&at);
        match outcome {
            Some(outcome @ EmissionOutcome::Proved(_)) if stands && self.amended.insert(at) => {
                self.intake.decided();
                let (emission, trace) = record::emission(&self.pipeline, unit, outcome, self.next);
                // Those of a record that is not remembered lie deeper than any reorg.
                let numbers = emission.first.number..=emission.last.number;
                let hashes = numbers.map(|number| self.emitted.get(&number).map(|emitted| emitted.hash));
                let hashes = Some(hashes.collect::<Option<Vec<_>>>()).filter(|_| unit.first.is_some());
                let hashes = hashes.flatten().unwrap_or_default();
                // Where the output goes on may be within what an older record covers, and this one will be
                // the newest.
                let standing = Emitted::standing(&self.emitted, self.next);
                let emission = Emission {
                    hashes,
                    standing,
                    ..emission
                };
                Step::Emit(Box::new(emission), vec![trace], handles)
            }
            _ => Step::Ack(handles),
        }
    }
}

/// What is not on its way to a new record any more: the oldest beyond [`AMENDING_MAX`], and what is
/// decided. One that is dead again stays as it is, with what was proved of it: another retry may
/// complete it.
fn over<K>(
    amending: impl Iterator<Item = (K, Option<EmissionOutcome>)>,
) -> Vec<(K, Option<EmissionOutcome>)> {
    let mut amending: VecDeque<_> = amending.collect();
    let crowded = amending.len().saturating_sub(AMENDING_MAX);
    let mut over: Vec<_> = amending.drain(..crowded).map(|(key, _)| (key, None)).collect();
    let is_dead = |outcome: &EmissionOutcome| matches!(outcome, EmissionOutcome::Dead { .. });
    let is_over = |outcome: &Option<EmissionOutcome>| outcome.as_ref().is_some_and(|o| !is_dead(o));
    over.extend(amending.into_iter().filter(|(_, outcome)| is_over(outcome)));
    over
}
