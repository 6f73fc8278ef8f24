//! Ranges whose work is lost: a prover took a task away and gave no result.
//!
//! The blocks' results are held until the record of a range is stored, so the first stage of a range can be made
//! again at any time. The state of the range stays as it is: the first result of the new start replaces it.

use super::{Range, Ranges};
use crate::{
    around::{Around, first_stage, newest_of, ready_in},
    bodies::Bodies,
    intake::Handle,
    run::Key,
    state::{Proof, block_ref},
    step::{Opening, Step},
};
use push0_domain::{
    BlockKey, Timestamp,
    pipeline::Pipeline,
    subject::{AttemptKey, Kind},
    task::{first_attempt, start_of},
};
use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

impl Ranges {
    /// Returns the ranges that wait for a result, each with the newest message about it. A range without blocks is not among
    /// them: the blocks of one that amends a record may be gone, and with them its results.
    pub(crate) fn waiting(&self) -> BTreeMap<BlockKey, Option<Handle>> {
        let about_to_step = |key: &Key| self.touched.contains(key) || self.deferred.contains(key);
        let waits = |(key, range): &(&Key, &Range)| range.waits() && !about_to_step(key);
        let waiting = self.all.iter().filter(waits);
        waiting.map(|(key, range)| (token(key), range.newest())).collect()
    }

    /// Returns the ranges to which one of these attempts belongs whose result would change something. A prover may repeat
    /// an earlier result of an attempt, and a copy of a done task says nothing of the others.
    pub(crate) fn in_flight(
        &self,
        found: &[(Kind, AttemptKey)],
        definition: impl Fn(u32) -> Option<Arc<Pipeline>>,
    ) -> BTreeSet<BlockKey> {
        let ranges: BTreeMap<BlockKey, &Range> =
            self.all.iter().map(|(key, range)| (token(key), range)).collect();
        let is_of_range = |(kind, attempt): &&(Kind, AttemptKey)| {
            let range = ranges.get(&attempt.block);
            range.is_some_and(|range| {
                let definition = definition(range.unit.revision);
                definition.is_none_or(|definition| range.awaits(*kind, attempt, &definition))
            })
        };
        let in_flight = found.iter().filter(is_of_range);
        in_flight.map(|(_, attempt)| attempt.block).collect()
    }

    /// Handles the loss of a range's work, unless a message about the range has come since the one that is named.
    pub(crate) fn lose(&mut self, range: BlockKey, newest: Option<Handle>) {
        let is_it = |key: &&Key| token(key) == range;
        if let Some(key) = self.all.keys().find(is_it).copied() {
            self.lost.insert(key, newest);
        }
    }

    /// Returns the steps that begin lost ranges anew, as far as the outputs of their blocks are in memory.
    pub(super) fn begin_anew<F>(
        &mut self,
        around: &Around<'_, F>,
        bodies: &mut Bodies,
        now: Timestamp,
    ) -> Vec<Step>
    where
        F: Fn(u32) -> Option<Arc<Pipeline>>,
    {
        let mut steps = Vec::new();
        for (key, newest) in std::mem::take(&mut self.lost) {
            let range = self.all.get_mut(&key);
            let Some(range) = range.filter(|range| range.waits() && range.newest() == newest) else {
                continue;
            };
            if bodies.have(&ready_in(&range.members, around)) {
                steps.extend(range.anew(around, bodies, now));
            } else {
                self.lost.insert(key, newest);
            }
        }
        steps
    }
}

impl Range {
    /// Returns whether the range needs a result: it is neither done nor dead, nor tried as two halves.
    fn waits(&self) -> bool {
        let proofs = self.unit.proofs();
        let needs_none = |proof: &Proof| proof.done.is_some() || proof.dead.is_some() || proof.is_hopeless();
        !self.halved && !self.members.is_empty() && proofs.iter().all(|(_, proof)| !needs_none(proof))
    }

    /// Returns whether a result of this attempt would change the range.
    fn awaits(&self, kind: Kind, attempt: &AttemptKey, definition: &Pipeline) -> bool {
        let Some(spec) = definition.proof(&attempt.proof_type) else {
            return false;
        };
        let mut proofs = self.unit.proofs().iter();
        let proof = proofs.find(|(proof_type, _)| *proof_type == attempt.proof_type);
        let range = spec.range().and_then(|range| spec.stage(&range.name));
        let stages = range.zip(spec.stage(&attempt.stage));
        let Some(((_, proof), ((range, _), (position, _)))) = proof.zip(stages) else {
            return false;
        };
        let is_open = || match kind {
            // A ready stage is named by the first of its tasks.
            Kind::Stage => attempt.index >= proof.settled,
            _ => proof.takes(attempt.index, attempt.attempt),
        };
        let is_of_start = match position.cmp(&proof.position) {
            Ordering::Greater => true,
            Ordering::Equal => is_open(),
            Ordering::Less => false,
        };
        match start_of(attempt.attempt).cmp(&proof.start) {
            // A range of one block has the block's key.
            Ordering::Greater => position >= range,
            Ordering::Equal => is_of_start,
            Ordering::Less => false,
        }
    }

    /// Returns the newest message held about the range.
    fn newest(&self) -> Option<Handle> {
        let proofs = self.unit.proofs().iter();
        proofs.filter_map(|(_, proof)| proof.newest()).max()
    }

    /// Returns the first stage of the range, with attempts that follow all earlier ones.
    fn anew<F>(&mut self, around: &Around<'_, F>, bodies: &Bodies, now: Timestamp) -> Option<Step>
    where
        F: Fn(u32) -> Option<Arc<Pipeline>>,
    {
        let (_, closed_by) = newest_of(&self.members, around)?;
        let (mut ready, _) = first_stage(&self.members, around, bodies, closed_by.stored_at)?;
        let starts = self.unit.proofs().iter().map(|(_, proof)| proof.start);
        self.start = starts.max().unwrap_or_default().max(self.start) + 1;
        ready.attempt = first_attempt(self.start);
        ready.path = ready.path.failed_at(now);
        let trace = self.unit.origin()?.trace.map(|trace| trace.begun(now));
        Some(Step::Open(Box::new(Opening { ready, trace }), Vec::new()))
    }
}

/// Returns the range as subjects name it.
fn token((first, last): &Key) -> BlockKey {
    let more = u32::try_from(last.0.saturating_sub(*first)).unwrap_or(u32::MAX);
    BlockKey {
        blocks: more.saturating_add(1),
        ..block_ref(*last).key()
    }
}
