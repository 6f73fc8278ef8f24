//! The collector's decisions for one pipeline.
//!
//! An event changes what is known ([`Collector::result`], [`Collector::end`]); [`Collector::advance`]
//! then says what follows from all that is known. A restart is the same: it feeds what is
//! unacknowledged and advances once. Every step names the results that it settles; they are
//! acknowledged when the step is stored, and not before.

mod ends;
mod records;

pub use self::ends::BlockContextOf;
use crate::{
    advance::{self, ProofKey},
    bodies::{Bodies, Body},
    ends::Ends,
    intake::Intake,
    judge::{self, Came},
    range::{Around, Ranges},
    state::{At, Block, Blocks, Handle, Origin, block_ref},
};
use push0_domain::{
    PipelineId, StageKey, Timestamp,
    message::{DeadLetter, Emission, StageReady, TaskResult},
    output::Emitted,
    pipeline::{Pipeline, ProofSpec},
    trace::TraceContext,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// How many emitted hashes are remembered: a reorg deeper than this is not undone.
pub const REORG_DEPTH_MAX: usize = push0_domain::output::DEPTH;
/// What messages may take, in bytes, that are kept so as not to read them again.
const ROOM: usize = 2 * 1024 * 1024;
/// How many amended records are remembered.
const AMENDED_MAX: usize = 1024;

/// What is to be done. The handles of a step are acknowledged when it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Acknowledge: nothing follows from these any more.
    Ack(Vec<Handle>),
    /// Store a ready stage or attempt. The list of inputs may be long.
    Open(Box<Opening>, Vec<Handle>),
    /// Store a dead letter. What led to it stays unacknowledged until the block's record is stored.
    Bury(Box<DeadLetter>, TraceContext),
    /// Emit a record, in this order. The first trace is the record's; of a range, those of its other
    /// blocks follow.
    Emit(Box<Emission>, Vec<TraceContext>, Vec<Handle>),
    /// Read these messages again, and tell [`Collector::recalled`] what they say.
    Recall(Vec<Handle>),
}

/// A stage or attempt to open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The message; its list of inputs may be too long for one.
    pub ready: StageReady,
    /// The trace that it goes on.
    pub trace: TraceContext,
}

/// What the shell knows of a result beside what it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// A verifier reported it.
    pub verified: bool,
    /// The block's record says that it is dead, and this result may change that.
    pub amends: bool,
    /// When the broker had stored it.
    pub stored_at: Timestamp,
}

/// One pipeline's blocks on their way.
#[derive(Debug)]
pub struct Collector {
    pipeline: PipelineId,
    /// The number that is emitted next.
    next: u64,
    /// What was emitted last, by number: what the next block must link to.
    emitted: BTreeMap<u64, Emitted>,
    blocks: Blocks,
    /// What the messages said that the rest rests on.
    bodies: Bodies,
    /// Blocks that are proved together.
    ranges: Ranges,
    /// Cancels and reorgs that may still concern a block.
    ends: Ends,
    /// Blocks that an event touched since they were last advanced.
    touched: BTreeSet<At>,
    /// Blocks of which something follows once messages are read again.
    deferred: BTreeSet<At>,
    intake: Intake,
    /// Blocks whose records were amended in this session: once is enough.
    amended: BTreeSet<At>,
    /// No deadline of a block passes before.
    due: Timestamp,
    /// Up to which number messages were read ahead of their turn.
    read_to: u64,
}

impl Collector {
    /// A collector that emits `next` next, after the records in `emitted`.
    pub fn new(pipeline: PipelineId, next: u64, emitted: BTreeMap<u64, Emitted>) -> Self {
        Self {
            pipeline,
            next,
            emitted,
            blocks: BTreeMap::new(),
            bodies: Bodies::new(ROOM),
            ranges: Ranges::default(),
            ends: Ends::default(),
            touched: BTreeSet::new(),
            deferred: BTreeSet::new(),
            intake: Intake::default(),
            amended: BTreeSet::new(),
            due: Timestamp(u64::MAX),
            read_to: 0,
        }
    }

    /// With room for so many bytes of what messages said. What follows is the same.
    #[must_use]
    pub fn with_room(self, bytes: usize) -> Self {
        Self {
            bodies: Bodies::new(bytes),
            ..self
        }
    }

    /// The number that is emitted next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// How many blocks are on their way.
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Whether a message comes for the first time.
    pub fn is_new(&self, handle: Handle) -> bool {
        self.intake.is_new(handle)
    }

    /// So many more records are stored, in the order in which they were decided. More may follow:
    /// [`Self::advance`].
    pub fn stored(&mut self, records: usize) -> Vec<Step> {
        let settled = self.intake.stored(records);
        self.told(vec![Step::Ack(settled)])
    }

    /// Whether what a message says is waited for.
    pub fn waits_for(&self, handle: Handle) -> bool {
        self.bodies.is_wanted(handle)
    }

    /// A message was read again. What follows is said by [`Self::advance`].
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
        let body = Body::of(result, spec, told.verified, told.stored_at, trace);
        if self.bodies.read(handle, number, body) {
            match first {
                None => drop(self.touched.insert(at)),
                Some(_) => self.ranges.touch((number, at)),
            }
        }
    }

    /// These steps are taken: what they settle need not be known any more.
    fn told(&mut self, mut steps: Vec<Step>) -> Vec<Step> {
        for step in &steps {
            if let Step::Ack(handles) | Step::Open(_, handles) | Step::Emit(_, _, handles) = step {
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

    /// Whether a result is of use only if the block's record says that it is dead.
    pub fn asks_to_amend(&self, result: &TaskResult) -> bool {
        let stage = &result.header.id.stage;
        let at = (stage.block.number, stage.block.hash);
        let first = stage.first_block().number;
        result.header.context.amends && first < self.next && !self.amended.contains(&at)
    }

    /// An attempt ended.
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
        let ack = vec![Step::Ack(vec![handle])];
        let stage = result.header.id.stage.clone();
        let at = (stage.block.number, stage.block.hash);
        let announced_at = result.header.context.stored_at;
        let Some(spec) = proof_of(pipeline, &stage) else {
            return ack;
        };
        let amends = told.amends && self.stands(&at);
        let number = stage.first_block().number;
        if number < self.next && !amends {
            return vec![Step::Ack(self.intake.settled(handle))];
        }
        // Of a range, the chain replaces no block without the last one.
        if self.ends.is_replaced(&stage.block, announced_at) {
            return ack;
        }
        let context = &result.header.context;
        let origin = || Origin {
            context: Arc::new(context.clone()),
            trace: trace.clone(),
        };
        let ends = &self.ends;
        let block = match stage.first {
            None => &mut **self.blocks.entry(at).or_insert_with(|| {
                let ended = ends.of(&stage.block, announced_at, amends);
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
            // Kept until the record is stored: it may be the last message that tells of the block.
            let open = block.open();
            open.origin.get_or_insert_with(origin);
            open.proof(&stage.proof_type).handles.push(handle);
            return Vec::new();
        }
        let came = Came {
            handle,
            number,
            verified: told.verified,
            trace,
            stored_at: told.stored_at,
        };
        let settled = note(block, spec, result, &came, &mut self.bodies);
        // Of a parked block nothing follows before its turn, unless it goes into a range.
        let waits_for_its_turn = block.is_parked() && spec.range().is_none();
        if stage.first.is_none() && !waits_for_its_turn {
            self.touched.insert(at);
        }
        self.told(vec![Step::Ack(settled)])
    }

    /// All that follows from what is known.
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
        steps.extend(self.ranges.advance(&around, &mut self.bodies, now));
        while let Some(step) = self.emit(&definition) {
            steps.push(step);
        }
        steps.extend(self.amend(&definition));
        self.told(steps)
    }

    /// What follows from what is known of one block, beside its record.
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

/// The proof that a stage belongs to, if its pipeline has it: of one block before the stage of ranges, and
/// of a range from there on.
fn proof_of<'a>(pipeline: &'a Pipeline, stage: &StageKey) -> Option<&'a ProofSpec> {
    let spec = pipeline.proof(&stage.proof_type)?;
    let (position, _) = spec.stage(&stage.stage)?;
    let range = spec.range().and_then(|range| spec.stage(&range.name));
    let of_range = range.is_some_and(|(range, _)| position >= range);
    (of_range == stage.first.is_some()).then_some(spec)
}

/// Notes a result with its block, which is parked if that is all it needs. Returns what is settled.
fn note(
    block: &mut Block,
    spec: &ProofSpec,
    result: TaskResult,
    came: &Came<'_>,
    bodies: &mut Bodies,
) -> Vec<Handle> {
    let is_done = block.done().any(|(proof_type, _)| *proof_type == spec.proof_type);
    if is_done && block.is_parked() {
        return vec![came.handle];
    }
    let is_range = result.header.id.stage.first.is_some();
    let open = block.open();
    let origin = open.origin.get_or_insert_with(|| Origin {
        context: Arc::new(result.header.context.clone()),
        trace: came.trace.clone(),
    });
    let origin = origin.clone();
    let proof = open.proof(&spec.proof_type);
    let settled = judge::note((proof, &origin), spec, result, came, bodies);
    if !is_range {
        advance::finish(proof, spec);
        block.park();
    }
    settled
}
