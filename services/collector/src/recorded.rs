//! The spans that end with a record: the root of a block or range, its proofs, and work unfinished at the record.

use crate::{
    advance::{ProofKey, death_in},
    bodies::{Bodies, Failing},
    record,
    state::{Block, Proof},
};
use push0_domain::{
    BlockRef, ProofType, Timestamp,
    message::{Emission, Failure},
    pipeline::Pipeline,
    trace::{Branch, Member, RecordTold, Span, StageTold, Trace, UNENDED, record as of_record, stage, task},
};

/// A block or range whose record is decided. Its bodies are in memory.
pub(crate) struct Recorded<'a> {
    pub(crate) unit: &'a Block,
    pub(crate) block: BlockRef,
    /// The first block of a range.
    pub(crate) first: Option<BlockRef>,
    pub(crate) emission: &'a Emission,
    /// `None` if no work can be open.
    pub(crate) pipeline: Option<&'a Pipeline>,
    pub(crate) bodies: &'a Bodies,
}

impl Recorded<'_> {
    /// Returns the trace of the block or range.
    pub(crate) fn trace(&self) -> Option<Trace> {
        record::trace(self.unit, self.bodies).trace()
    }

    /// Returns when the last result that counts was stored.
    pub(crate) fn end(&self) -> Option<Timestamp> {
        let done = self.unit.done().map(|(_, done)| done.stored_at);
        let dead = self.unit.proofs().iter();
        let dead = dead.filter_map(|(_, proof)| Some(self.death(proof)?.record.ended_at));
        done.chain(dead).max()
    }

    /// Returns the last failure of a dead task.
    fn death(&self, proof: &Proof) -> Option<&Failing> {
        let failures = death_in(proof, proof.dead?).into_iter();
        let failures = failures.filter_map(|handle| self.bodies.failed(handle));
        failures.max_by_key(|failing| failing.record.ended_at)
    }

    /// Returns the spans that end with the record.
    pub(crate) fn spans(&self, member_of: Option<Member<'_>>, covers: Vec<Trace>) -> Vec<Span> {
        let Some(trace) = self.trace() else {
            return Vec::new();
        };
        let done = self.unit.done();
        let mut proofs: Vec<(ProofType, Option<Timestamp>)> = done
            .map(|(kind, done)| (kind.clone(), Some(done.stored_at)))
            .collect();
        let open = self
            .unit
            .proofs()
            .iter()
            .filter(|(_, proof)| proof.done.is_none());
        proofs.extend(open.clone().map(|(kind, _)| (kind.clone(), None)));
        let told = RecordTold {
            trace: &trace,
            block: self.block,
            is_range: self.first.is_some(),
            emission: self.emission,
            proofs,
            last_end: self.end(),
            member_of,
            covers,
        };
        let mut spans = of_record(&told);
        for (kind, proof) in open {
            spans.extend(self.open_stage(&trace, kind, proof).unwrap_or_default());
        }
        spans
    }

    /// Returns the spans of a stage that the record leaves unfinished.
    fn open_stage(&self, trace: &Trace, kind: &ProofType, proof: &Proof) -> Option<Vec<Span>> {
        let spec = self.pipeline?.proof(kind)?;
        let key = ProofKey {
            pipeline: self.emission.pipeline.clone(),
            block: self.block,
            first: self.first,
            proof_type: kind.clone(),
        };
        let key = key.stage(spec, proof.position)?;
        let death = self.death(proof);
        let trace = death
            .and_then(|failing| failing.trace.trace())
            .unwrap_or_else(|| trace.clone());
        let branch = Branch {
            trace: &trace,
            stage: &key,
        };
        let end = death.map_or(UNENDED, |failing| failing.record.ended_at);
        let failure: Option<&Failure> = death.map(|failing| &failing.record.failure);
        let tasks = proof.tasks.iter();
        let unfinished = tasks
            .filter(|(_, task)| task.done.is_none())
            .map(|(index, _)| *index);
        let mut unfinished: Vec<u32> = unfinished.collect();
        if proof.tasks.is_empty() {
            unfinished.push(0);
        }
        let died = death.map(|failing| failing.header.id.index);
        let told = StageTold {
            first_done: end,
            end,
            tasks: proof.tasks.values().next().map_or(1, |task| task.of),
            failure,
        };
        let of_task = |index: &u32| task(&branch, *index, end, failure.filter(|_| died == Some(*index)));
        let tasks = unfinished.iter().map(of_task);
        Some(tasks.chain(stage(&branch, &told)).collect())
    }
}
