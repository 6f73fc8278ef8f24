//! The collector's decisions for one pipeline.
//!
//! An event updates the state ([`Collector::result`], [`Collector::end`]); [`Collector::advance`] then
//! returns the steps that follow from the whole state. A restart works the same way: the unacknowledged
//! messages are fed in, then the collector advances once. Every step names the results it settles; they are
//! acknowledged when the step is stored, and not before.

mod ends;
mod held;
mod lost;
mod records;

pub use crate::step::{Opening, Step};

use crate::{
    advance::{self, ProofKey},
    around::Around,
    bodies::{Bodies, Body},
    ends::Ends,
    evidence::Evidence,
    intake::{Handle, Intake},
    judge::{self, Came},
    range::Ranges,
    spans::{Spans, of_stage, of_task},
    state::{At, Block, Blocks, Origin, block_ref},
};
use push0_domain::{
    PipelineId, StageKey, Timestamp,
    message::{Dead, TaskResult},
    output::Emitted,
    pipeline::{Pipeline, ProofSpec},
    trace::{Span, TraceContext},
    wanted::Claim,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// How many emitted hashes are remembered.
pub const REORG_DEPTH_MAX: usize = push0_domain::output::DEPTH;
/// Bytes of message bodies kept in memory, so that messages need not be read again.
const ROOM: usize = 2 * 1024 * 1024;
/// How many amended records are remembered.
const AMENDED_MAX: usize = 1024;

/// Delivery metadata of a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Whether a verifier reported the result.
    pub verified: bool,
    /// Whether the block's record is dead, so that the result may amend the record.
    pub amends: bool,
    /// When the broker stored the result.
    pub stored_at: Timestamp,
}

/// The blocks in flight of one pipeline.
#[derive(Debug)]
pub struct Collector {
    pipeline: PipelineId,
    /// The number to emit next.
    next: u64,
    /// When `next` moved last, as the turn of the blocks that wait for it.
    turn_at: Timestamp,
    /// The blocks emitted last, by number. The next block must link to the newest one.
    emitted: BTreeMap<u64, Emitted>,
    blocks: Blocks,
    /// Bodies of unacknowledged messages, as far as they fit.
    bodies: Bodies,
    /// Blocks proved together, if the pipeline has ranges.
    ranges: Ranges,
    /// Cancellations and reorgs that may still concern a block.
    ends: Ends,
    /// Which failures are the task's own.
    evidence: Evidence,
    /// Blocks touched by an event since they were last advanced.
    touched: BTreeSet<At>,
    /// Blocks whose next step needs messages to be read again.
    deferred: BTreeSet<At>,
    intake: Intake,
    spans: Spans,
    /// Blocks whose records were amended in this session: once is enough.
    amended: BTreeSet<At>,
    /// Earliest time at which the deadline of a block may pass.
    due: Timestamp,
    /// Number below which waiting blocks were already read ahead of their turn.
    read_to: u64,
}

impl Collector {
    /// Creates a collector whose next record is for `next`, after the records in `emitted`.
    pub fn new(pipeline: PipelineId, next: u64, emitted: BTreeMap<u64, Emitted>) -> Self {
        Self {
            pipeline,
            next,
            turn_at: Timestamp::default(),
            emitted,
            blocks: BTreeMap::new(),
            bodies: Bodies::new(ROOM),
            ranges: Ranges::default(),
            ends: Ends::default(),
            evidence: Evidence::default(),
            touched: BTreeSet::new(),
            deferred: BTreeSet::new(),
            intake: Intake::default(),
            spans: Spans::default(),
            amended: BTreeSet::new(),
            due: Timestamp(u64::MAX),
            read_to: 0,
        }
    }

    /// Limits the bytes of message bodies kept in memory. The decisions do not depend on this limit.
    #[must_use]
    pub fn with_room(self, bytes: usize) -> Self {
        Self {
            bodies: Bodies::new(bytes),
            ..self
        }
    }

    /// Returns the number to emit next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Returns the number of blocks in flight.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Returns whether no block is in flight.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Handles `records` more stored records, in the order of decision. [`Self::advance`] may now
    /// return more steps.
    pub fn stored(&mut self, records: usize) -> Vec<Step> {
        let settled = self.intake.stored(records);
        self.told(vec![Step::Ack(settled)])
    }

    /// Notes that `records` more records were stored by `at`, for their spans. Comes before [`Self::stored`].
    pub fn recorded(&mut self, records: usize, at: Timestamp) {
        self.spans.stored(records, at);
    }

    /// Takes the spans that have ended.
    pub fn take_spans(&mut self) -> Vec<Span> {
        self.spans.take()
    }

    /// Returns whether a step waits for the body of this message.
    pub fn waits_for(&self, handle: Handle) -> bool {
        self.bodies.is_wanted(handle)
    }

    /// Handles a message read again. [`Self::advance`] returns the steps that follow.
    pub fn recalled(
        &mut self,
        handle: Handle,
        result: TaskResult,
        told: Told,
        trace: &TraceContext,
        pipeline: &Pipeline,
    ) {
        let stage = &result.header.id.stage;
        let Some(spec) = pipeline.proof(&stage.proof_type) else {
            return;
        };
        let (number, first) = (stage.first_block().number, stage.first);
        let at = (stage.block.number, stage.block.hash);
        let verdict = judge::verdict(&result, spec, told.verified);
        let body = Body::of(result, verdict, told.stored_at, trace);
        if self.bodies.read(handle, number, body) {
            match first {
                None => drop(self.touched.insert(at)),
                Some(_) => self.ranges.touch((number, at)),
            }
        }
    }

    /// Forgets the bodies of messages these steps settle, makes room, and adds a step for messages
    /// to read again.
    fn told(&mut self, mut steps: Vec<Step>) -> Vec<Step> {
        for step in &steps {
            if let Step::Ack(handles) | Step::Open(_, handles) | Step::Emit(_, _, handles, _) = step {
                handles.iter().for_each(|handle| self.bodies.forget(*handle));
            }
        }
        self.bodies.shrink(self.next);
        let asking = self.bodies.take_asking();
        if !asking.is_empty() {
            steps.push(Step::Recall(asking));
        }
        steps
    }

    /// Returns whether a result is only of use if the block's record is dead.
    pub fn asks_to_amend(&self, result: &TaskResult) -> bool {
        let stage = &result.header.id.stage;
        let at = (stage.block.number, stage.block.hash);
        let first = stage.first_block().number;
        result.header.context.amends && first < self.next && !self.amended.contains(&at)
    }

    /// Handles the end of an attempt.
    pub fn result(
        &mut self,
        handle: Handle,
        result: TaskResult,
        told: Told,
        trace: &TraceContext,
        pipeline: &Arc<Pipeline>,
    ) -> Vec<Step> {
        if !self.intake.take_in(handle) {
            return Vec::new();
        }
        let (ack, stage) = (vec![Step::Ack(vec![handle])], result.header.id.stage.clone());
        let (at, number) = ((stage.block.number, stage.block.hash), stage.first_block().number);
        let Some(spec) = proof_of(pipeline, &stage) else {
            return ack;
        };
        let claim = self.claim_of(&result, told, &at);
        let charges = self.weigh(&result, spec, told);
        if number < self.next && !claim.is_retry {
            return vec![Step::Ack(self.intake.settled(handle))];
        }
        // If any block of a range was replaced, so was its last block: checking the last one suffices.
        if self.ends.is_replaced(&stage.block, claim.announcement) {
            return ack;
        }
        let context = &result.header.context;
        let Some(mut outdated) = self.outdated(&stage, claim, context.stored_at) else {
            return ack;
        };
        let origin = || Origin {
            context: Arc::new(context.clone()),
            trace: trace.clone(),
        };
        let ends = &self.ends;
        let block = match stage.first {
            None => &mut **self.blocks.entry(at).or_insert_with(|| {
                let ended = ends.find(&stage.block, claim);
                self.due = self.due.min(context.deadline_at.unwrap_or(self.due));
                let mut block = Block::new(context, Some(origin()), ended);
                block.facts = spec.range().map(|_| Box::new(context.facts));
                Box::new(block)
            }),
            Some(first) => self.ranges.unit((first.number, at), first, || {
                Block::new(context, Some(origin()), None)
            }),
        };
        if !block.takes(told.stored_at) {
            // Kept unacknowledged until the record is stored, because no other message may mention the block.
            let open = block.open();
            open.origin.get_or_insert_with(origin);
            open.proof(&stage.proof_type).handles.push(handle);
            return self.told(vec![Step::Ack(outdated)]);
        }
        let came = Came {
            handle,
            number,
            verified: told.verified,
            trace,
            charges,
            stored_at: told.stored_at,
        };
        let held = (&mut self.bodies, &mut self.spans);
        outdated.extend(note(block, spec, result, &came, held));
        // A parked block has no next step before its turn, unless it goes into a range.
        let waits_for_its_turn = block.is_parked() && spec.range().is_none();
        if stage.first.is_none() && !waits_for_its_turn {
            self.touched.insert(at);
        }
        self.told(vec![Step::Ack(outdated)])
    }

    fn claim_of(&self, result: &TaskResult, told: Told, at: &At) -> Claim {
        Claim {
            announcement: result.header.context.announcement,
            is_retry: told.amends && self.stands(at),
        }
    }

    /// Returns the messages that a result of a retry settles: those of an earlier retry. Returns `None` if the result
    /// itself is of an earlier one.
    fn outdated(&mut self, stage: &StageKey, claim: Claim, asked_at: Timestamp) -> Option<Vec<Handle>> {
        match self.retried_at(stage).filter(|_| claim.is_retry) {
            Some(at) if asked_at < at => None,
            Some(at) if at < asked_at => Some(self.forget_retry(stage)),
            _ => Some(Vec::new()),
        }
    }

    /// Returns when the retry was asked for whose results are known for a block or range.
    fn retried_at(&self, stage: &StageKey) -> Option<Timestamp> {
        let at = (stage.block.number, stage.block.hash);
        match stage.first {
            None => self.blocks.get(&at).map(|block| block.stored_at),
            Some(first) => self
                .ranges
                .get(&(first.number, at))
                .map(|range| range.unit.stored_at),
        }
    }

    /// Forgets the results of an earlier retry, which may be those of a few tasks only: the rest of that retry was
    /// forgotten when it died. Returns their messages.
    fn forget_retry(&mut self, stage: &StageKey) -> Vec<Handle> {
        let at = (stage.block.number, stage.block.hash);
        if let Some(first) = stage.first {
            return self.ranges.forget(&(first.number, at), &self.blocks);
        }
        let mut handles = self.ranges.without(&at, &self.blocks);
        let block = self.blocks.remove(&at);
        handles.extend(block.into_iter().flat_map(|mut block| block.take_handles()));
        handles
    }

    /// Takes a result as evidence for or against its prover. Returns how many failures of its own the task has.
    fn weigh(&mut self, result: &TaskResult, spec: &ProofSpec, told: Told) -> u32 {
        let (task, prover) = (&result.header.id, &result.prover);
        match judge::verdict(result, spec, told.verified) {
            Ok(()) => {
                let began_at = told.stored_at.minus(Duration::from_micros(result.prove_us));
                self.evidence.completed(task, prover, began_at, told.stored_at);
                0
            }
            Err(failure) if failure.class.is_evidence() => {
                self.evidence
                    .failed(&result.header.attempt_id(), prover, told.stored_at)
            }
            // Any other failure says nothing of the task, so the task does not die of it.
            Err(_) => 0,
        }
    }

    /// Returns all steps that follow from the current state.
    pub fn advance(
        &mut self,
        now: Timestamp,
        definition: impl Fn(u32) -> Option<Arc<Pipeline>>,
    ) -> Vec<Step> {
        if self.bodies.is_quiet() {
            self.touched.append(&mut self.deferred);
        }
        let mut steps = Vec::new();
        for at in std::mem::take(&mut self.touched) {
            steps.extend(self.advance_block(at, now, &definition));
        }
        let around = Around {
            pipeline: &self.pipeline,
            blocks: &self.blocks,
            next: self.next,
            ends: &self.ends,
            definition: &definition,
        };
        let held = (&mut self.bodies, &mut self.spans);
        steps.extend(self.ranges.advance(&around, held, now));
        while let Some(step) = self.emit(now, &definition) {
            steps.push(step);
        }
        steps.extend(self.amend(&definition));
        self.acquit_buried(&steps);
        self.told(steps)
    }

    /// Forgets the evidence against the tasks of a dead block: a retry of the block begins anew.
    fn acquit_buried(&mut self, steps: &[Step]) {
        for step in steps {
            if let Step::Bury(letter, _) = step
                && let Dead::Task { retry, .. } = &letter.what
            {
                self.evidence.forget(retry.stage.block_key());
            }
        }
    }

    /// Returns the steps that follow for one block, except its record.
    fn advance_block(
        &mut self,
        at: At,
        now: Timestamp,
        definition: &impl Fn(u32) -> Option<Arc<Pipeline>>,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        let Some(block) = self.blocks.get_mut(&at) else {
            return steps;
        };
        let Some(pipeline) = definition(block.revision) else {
            return steps;
        };
        if !block.is_parked() && block.ended.is_none() {
            for (proof_type, proof) in &mut block.open().proofs {
                let Some(spec) = pipeline.proof(proof_type) else {
                    continue;
                };
                let key = ProofKey {
                    pipeline: self.pipeline.clone(),
                    block: block_ref(at),
                    first: None,
                    proof_type: proof_type.clone(),
                };
                let follows = advance::advance(proof, spec, &key, &mut self.bodies, now);
                steps.extend(follows.steps);
                self.spans.add(follows.spans);
                if follows.waits {
                    self.deferred.insert(at);
                }
            }
            block.park();
        }
        if pipeline.range().is_some() && block.ready().is_some() {
            self.ranges.ready(at);
        }
        steps
    }
}

/// Returns the specification of the proof a stage belongs to, if the pipeline has it. Stages before the range
/// stage must be for single blocks, later ones for ranges.
fn proof_of<'a>(pipeline: &'a Pipeline, stage: &StageKey) -> Option<&'a ProofSpec> {
    let spec = pipeline.proof(&stage.proof_type)?;
    let (position, _) = spec.stage(&stage.stage)?;
    let range = spec.range().and_then(|range| spec.stage(&range.name));
    let of_range = range.is_some_and(|(range, _)| position >= range);
    (of_range == stage.first.is_some()).then_some(spec)
}

/// Adds a result to its block, and parks the block if nothing else is needed. Returns the settled messages.
fn note(
    block: &mut Block,
    spec: &ProofSpec,
    result: TaskResult,
    came: &Came<'_>,
    (bodies, spans): (&mut Bodies, &mut Spans),
) -> Vec<Handle> {
    let is_done = block.done().any(|(proof_type, _)| *proof_type == spec.proof_type);
    if is_done && block.is_parked() {
        return vec![came.handle];
    }
    let id = result.header.id.clone();
    let is_range = id.stage.first.is_some();
    let open = block.open();
    let origin = open.origin.get_or_insert_with(|| Origin {
        context: Arc::new(result.header.context.clone()),
        trace: came.trace.clone(),
    });
    let origin = origin.clone();
    let proof = open.proof(&spec.proof_type);
    let settled = judge::note((proof, &origin), spec, result, came, bodies);
    let task = proof.tasks.get(&id.index).and_then(|task| task.done);
    if task.is_some_and(|done| done.handle == came.handle) {
        spans.add(of_task(came.trace, &id, came.stored_at));
    }
    if !is_range {
        if let Some(over) = advance::finish(proof, spec) {
            spans.add(of_stage(&id.stage, &over, bodies));
        }
        block.park();
    }
    settled
}
