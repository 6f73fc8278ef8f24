//! The next record, once it can be written, and records that amend others.

use super::{AMENDED_MAX, Collector, REORG_DEPTH_MAX, Step};
use crate::{
    intake::Handle,
    record::{self, Outcome},
    recorded::Recorded,
    run::Key,
    state::{At, Block, block_ref},
};
use push0_domain::{
    Announcement, BlockHash, BlockRef, Timestamp,
    message::Emission,
    output::Emitted,
    pipeline::Pipeline,
    time::micros,
    trace::{Member, Span, TraceContext},
};
use std::{collections::VecDeque, sync::Arc};

/// How many blocks may wait for an amended record. Beyond this number the oldest stay dead.
const AMENDING_MAX: usize = 256;
/// How far ahead of their turn blocks are read again.
const READ_AHEAD: u64 = 2048;

impl Collector {
    /// Returns the next record if it can be written, and `None` while needed messages are being read.
    pub(super) fn emit(
        &mut self,
        now: Timestamp,
        definition: &impl Fn(u32) -> Option<Arc<Pipeline>>,
    ) -> Option<Step> {
        if !self.intake.has_room() {
            return None;
        }
        let parent = self
            .next
            .checked_sub(1)
            .and_then(|before| self.emitted.get(&before));
        let parent = parent.map(|parent| parent.hash);
        let outcome = |block: &Block, is_range| {
            let linked = parent.is_none_or(|parent| parent == block.parent_hash);
            let definition = definition(block.revision);
            linked.then(|| record::outcome(block, is_range, definition.as_deref()))?
        };
        let range = self.ranges.beginning_at(self.next);
        let range = range.filter_map(|(key, range)| Some((*key, outcome(&range.unit, true)?)));
        if let Some((key, outcome)) = range.min_by_key(|(key, _)| *key) {
            return self.emit_range(key, &outcome, now);
        }
        let (least, most) = (BlockHash::default(), BlockHash([0xff; 32]));
        let mut here = self.blocks.range((self.next, least)..=(self.next, most));
        let (at, outcome) = here.find_map(|(at, block)| Some((*at, outcome(block, false)?)))?;
        self.read_ahead();
        let block = self.blocks.get(&at)?;
        if !self.bodies.have(&record::made_of(block, &outcome)) {
            return None;
        }
        let this = (&**block, block_ref(at), block_ref(at));
        let (emission, trace) = record::emission(&self.pipeline, this, &outcome, self.next, &self.bodies)?;
        let standing = Emitted::standing(&self.emitted, at.0);
        let definition = definition(block.revision);
        let recorded = Recorded {
            unit: block,
            block: block_ref(at),
            first: None,
            emission: &emission,
            pipeline: definition.as_deref(),
            bodies: &self.bodies,
        };
        let spans = recorded.spans(None, Vec::new());
        let mut block = self.blocks.remove(&at)?;
        let ready_at = record::ready_at(&block, &outcome);
        let order_us = self.order_us(ready_at);
        let mut handles = block.take_handles();
        handles.extend(self.go_on([(at, block.announcement)], record::size(&emission), now));
        self.spans.decided(spans);
        let emission = Emission {
            standing,
            order_us,
            next: self.next,
            ..emission
        };
        Some(Step::Emit(Box::new(emission), vec![trace], handles, ready_at))
    }

    /// Reads waiting blocks again a while before their turn, as far as there is room.
    fn read_ahead(&mut self) {
        let from = self.read_to.max(self.next);
        let to = self.next.saturating_add(READ_AHEAD);
        for (at, block) in self.blocks.range((from, BlockHash::default())..) {
            if at.0 >= to || !self.bodies.has_room_ahead() {
                break;
            }
            if block.is_parked() {
                let done: Vec<Handle> = block.done().map(|(_, done)| done.handle).collect();
                self.bodies.have(&done);
            }
            self.read_to = at.0 + 1;
        }
    }

    fn emit_range(&mut self, key: Key, outcome: &Outcome, now: Timestamp) -> Option<Step> {
        let range = self.ranges.get(&key)?;
        let members = range.members.iter().filter_map(|at| self.blocks.get(at));
        let done = members.flat_map(|block| block.done().map(|(_, done)| done.handle));
        let mut needed: Vec<Handle> = done.collect();
        needed.extend(record::made_of(&range.unit, outcome));
        if !self.bodies.have(&needed) {
            return None;
        }
        let this = (&range.unit, range.first, block_ref(key.1));
        let (emission, trace) = record::emission(&self.pipeline, this, outcome, self.next, &self.bodies)?;
        let spans = self.spans_of_range(&key, &emission);
        self.spans.decided(spans);
        let range = self.ranges.take(&key)?;
        let mut unit = range.unit;
        let ready_at = record::ready_at(&unit, outcome);
        let mut handles = unit.take_handles();
        let mut traces: Vec<TraceContext> = vec![trace];
        let mut covered: Vec<(At, Announcement)> = Vec::new();
        for at in &range.members {
            if let Some(mut block) = self.blocks.remove(at) {
                traces.push(record::trace(&block, &self.bodies));
                covered.push((*at, block.announcement));
                handles.extend(block.take_handles());
            }
        }
        // The last block's trace is the trace of the range.
        traces.pop();
        let standing = Emitted::standing(&self.emitted, self.next);
        let order_us = self.order_us(ready_at);
        handles.extend(self.go_on(covered, record::size(&emission), now));
        let emission = Emission {
            hashes: range.members.iter().map(|(_, hash)| *hash).collect(),
            standing,
            order_us,
            next: self.next,
            ..emission
        };
        Some(Step::Emit(Box::new(emission), traces, handles, ready_at))
    }

    /// Returns the spans of a range, and those of its blocks, that end with its record.
    fn spans_of_range(&self, key: &Key, emission: &Emission) -> Vec<Span> {
        let Some(range) = self.ranges.get(key) else {
            return Vec::new();
        };
        let recorded = |unit, block, first| Recorded {
            unit,
            block,
            first,
            emission,
            pipeline: None,
            bodies: &self.bodies,
        };
        let unit = recorded(&range.unit, block_ref(key.1), Some(range.first));
        let members = range.members.iter();
        let members: Vec<Recorded<'_>> = members
            .filter_map(|at| Some(recorded(&**self.blocks.get(at)?, block_ref(*at), None)))
            .collect();
        let covers = members.iter().filter_map(Recorded::trace).collect();
        let mut spans = unit.spans(None, covers);
        let trace = unit.trace();
        let member_of = trace.as_ref().map(|range| Member {
            range,
            end: unit.end().unwrap_or(range.times.proof_from),
        });
        spans.extend(
            members
                .iter()
                .flat_map(|block| block.spans(member_of, Vec::new())),
        );
        spans
    }

    /// Returns how long a block or range whose proofs were complete at `ready_at` waited for its turn, in microseconds.
    fn order_us(&self, ready_at: Option<Timestamp>) -> u64 {
        ready_at.map_or(0, |ready_at| micros(self.turn_at.since(ready_at)))
    }

    /// Moves the output behind these blocks. Returns further messages settled by their record.
    fn go_on(
        &mut self,
        blocks: impl IntoIterator<Item = (At, Announcement)>,
        bytes: usize,
        now: Timestamp,
    ) -> Vec<Handle> {
        self.intake.decided(bytes);
        self.turn_at = now;
        let before = self.next;
        let blocks: Vec<_> = blocks.into_iter().collect();
        let covered_to = blocks.last().map_or(before, |((number, _), _)| *number);
        for ((number, hash), announcement) in blocks {
            self.next = number.saturating_add(1);
            let emitted = Emitted {
                hash,
                announcement,
                covered_to,
            };
            self.emitted.insert(number, emitted);
        }
        while self.emitted.len() > REORG_DEPTH_MAX {
            self.emitted.pop_first();
        }
        let next = self.next;
        let mut handles = self.ends.pass(next);
        // Other blocks with these numbers are not on the emitted chain.
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

    /// Returns new records for emitted blocks that were dead and are proved now.
    pub(super) fn amend(&mut self, definition: &impl Fn(u32) -> Option<Arc<Pipeline>>) -> Vec<Step> {
        let outcome =
            |block: &Block, is_range| record::outcome(block, is_range, definition(block.revision).as_deref());
        let late = self.blocks.range(..(self.next, BlockHash::default()));
        let blocks = over(late.map(|(at, block)| (*at, outcome(block, false))));
        let amending = self.ranges.amending(self.next);
        let ranges = over(amending.map(|(key, range)| (*key, outcome(&range.unit, true))));
        let mut steps = Vec::new();
        for (at, outcome) in blocks {
            if let Some(outcome) = &outcome {
                let made_of = self.blocks.get(&at).map(|block| record::made_of(block, outcome));
                if !self.bodies.have(&made_of.unwrap_or_default()) {
                    continue;
                }
            }
            let mut handles = self.ranges.without(&at, &self.blocks);
            if let Some(mut block) = self.blocks.remove(&at) {
                let this = (&*block, block_ref(at), block_ref(at));
                let emission = self.amendment(this, outcome.as_ref(), false);
                handles.extend(block.take_handles());
                steps.push(amended(emission, handles));
            }
        }
        for (key, outcome) in ranges {
            if let Some(outcome) = &outcome {
                let made_of = self.ranges.get(&key).map(|r| record::made_of(&r.unit, outcome));
                if !self.bodies.have(&made_of.unwrap_or_default()) {
                    continue;
                }
            }
            let Some(mut range) = self.ranges.take(&key) else {
                continue;
            };
            let members = range.members.iter().filter_map(|at| self.blocks.remove(at));
            let mut handles: Vec<Handle> = members.flat_map(|mut block| block.take_handles()).collect();
            let this = (&range.unit, range.first, block_ref(key.1));
            let emission = self.amendment(this, outcome.as_ref(), true);
            handles.extend(range.unit.take_handles());
            steps.push(amended(emission, handles));
        }
        steps
    }

    /// Returns whether an emitted block is still the one with its number. Below the depth of any reorg it is.
    pub(super) fn stands(&self, (number, hash): &At) -> bool {
        self.emitted
            .get(number)
            .is_none_or(|emitted| emitted.hash == *hash)
    }

    /// Returns the new record of a block or range, if it is proved now.
    fn amendment(
        &mut self,
        this: (&Block, BlockRef, BlockRef),
        outcome: Option<&Outcome>,
        is_range: bool,
    ) -> Option<(Emission, TraceContext)> {
        let at = (this.2.number, this.2.hash);
        let outcome = outcome.filter(|outcome| matches!(outcome, Outcome::Proved(_)))?;
        if !self.stands(&at) || !self.amended.insert(at) {
            return None;
        }
        if self.amended.len() > AMENDED_MAX {
            // A forgotten block is not amended again either, because its record says proved by now.
            self.amended.pop_first();
        }
        let (emission, trace) = record::emission(&self.pipeline, this, outcome, self.next, &self.bodies)?;
        self.intake.decided(record::size(&emission));
        let recorded = Recorded {
            unit: this.0,
            block: this.2,
            first: is_range.then_some(this.1),
            emission: &emission,
            pipeline: None,
            bodies: &self.bodies,
        };
        self.spans.decided(recorded.spans(None, Vec::new()));
        // If a hash is missing, the record is older than any reorg, and consumers do not need the hashes.
        let numbers = emission.first.number..=emission.last.number;
        let hashes = numbers.map(|number| self.emitted.get(&number).map(|emitted| emitted.hash));
        let hashes = Some(hashes.collect::<Option<Vec<_>>>()).filter(|_| is_range);
        let hashes = hashes.flatten().unwrap_or_default();
        // The frontier may lie inside the range of an older record, and this record becomes the newest one.
        let standing = Emitted::standing(&self.emitted, self.next);
        let emission = Emission {
            hashes,
            standing,
            ..emission
        };
        Some((emission, trace))
    }
}

fn amended(emission: Option<(Emission, TraceContext)>, handles: Vec<Handle>) -> Step {
    match emission {
        Some((emission, trace)) => Step::Emit(Box::new(emission), vec![trace], handles, None),
        None => Step::Ack(handles),
    }
}

/// Returns the amendments that can be closed: decided ones, and the oldest beyond [`AMENDING_MAX`]. A block
/// dead again is closed too: its next retry begins anew.
fn over<K>(amending: impl Iterator<Item = (K, Option<Outcome>)>) -> Vec<(K, Option<Outcome>)> {
    let mut amending: VecDeque<_> = amending.collect();
    let crowded = amending.len().saturating_sub(AMENDING_MAX);
    let mut over: Vec<_> = amending.drain(..crowded).map(|(key, _)| (key, None)).collect();
    over.extend(amending.into_iter().filter(|(_, outcome)| outcome.is_some()));
    over
}
