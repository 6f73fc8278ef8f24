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
    intake::Intake,
    judge::{self, Came},
    range::{Around, Ranges},
    state::{At, Block, Handle},
};
use push0_domain::{
    PipelineId, Timestamp,
    message::{BlockEnded, DeadLetter, Emission, StageReady, TaskResult},
    output::Emitted,
    pipeline::Pipeline,
    trace::TraceContext,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// How many emitted hashes are remembered: a reorg deeper than this is not undone.
pub const REORG_DEPTH_MAX: usize = push0_domain::output::DEPTH;

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
    blocks: BTreeMap<At, Block>,
    /// Blocks that are proved together.
    ranges: Ranges,
    /// Cancels and reorgs that may still concern a block.
    ends: Vec<(BlockEnded, Handle)>,
    /// Blocks that an event touched since they were last advanced.
    touched: BTreeSet<At>,
    order: u64,
    intake: Intake,
    /// Blocks whose records were amended in this session: once is enough.
    amended: BTreeSet<At>,
}

impl Collector {
    /// A collector that emits `next` next, after the records in `emitted`.
    pub fn new(pipeline: PipelineId, next: u64, emitted: BTreeMap<u64, Emitted>) -> Self {
        Self {
            pipeline,
            next,
            emitted,
            blocks: BTreeMap::new(),
            ranges: Ranges::default(),
            ends: Vec::new(),
            touched: BTreeSet::new(),
            order: 0,
            intake: Intake::default(),
            amended: BTreeSet::new(),
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

    /// So many more records are stored, in the order in which they were decided.
    pub fn stored(&mut self, records: usize) -> Vec<Step> {
        vec![Step::Ack(self.intake.stored(records))]
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
        now: Timestamp,
    ) -> Vec<Step> {
        if !self.intake.take_in(handle) {
            return Vec::new();
        }
        let ack = vec![Step::Ack(vec![handle])];
        let stage = result.header.id.stage.clone();
        let at = (stage.block.number, stage.block.hash);
        let announced_at = result.header.context.stored_at;
        let Some(spec) = pipeline.proof(&stage.proof_type) else {
            return ack;
        };
        let Some((position, _)) = spec.stage(&stage.stage) else {
            return ack;
        };
        let range = spec.range().and_then(|range| spec.stage(&range.name));
        if range.is_some_and(|(range, _)| position >= range) != stage.first.is_some() {
            return ack;
        }
        let amends = told.amends && self.stands(&at);
        if stage.first_block().number < self.next && !amends {
            return vec![Step::Ack(self.intake.settled(handle))];
        }
        // Of a range, the chain replaces no block without the last one.
        if self.is_replaced(&stage.block, announced_at) {
            return ack;
        }
        let new = |ended| Block {
            block: stage.block,
            first: stage.first,
            context: result.header.context.clone(),
            proofs: BTreeMap::new(),
            trace: trace.clone(),
            ended,
        };
        let ended = self.end_of(&stage.block, announced_at, amends);
        let block = match stage.first {
            None => self.blocks.entry(at).or_insert_with(|| new(ended)),
            Some(first) => self.ranges.unit((first.number, at), || new(None)),
        };
        let counts = block.takes(told.stored_at);
        let proof = block.proofs.entry(stage.proof_type.clone()).or_default();
        if !counts {
            // Kept until the record is stored: it may be the last message that tells of the block.
            proof.handles.push(handle);
            return Vec::new();
        }
        if stage.first.is_none() {
            self.touched.insert(at);
        }
        self.order += 1;
        let came = Came {
            handle,
            verified: told.verified,
            order: self.order,
            trace,
            stored_at: told.stored_at,
            now,
        };
        vec![Step::Ack(judge::note(proof, spec, result, came))]
    }

    /// All that follows from what is known.
    pub fn advance(
        &mut self,
        now: Timestamp,
        definition: impl Fn(u32) -> Option<Arc<Pipeline>>,
    ) -> Vec<Step> {
        let mut steps = Vec::new();
        for at in std::mem::take(&mut self.touched) {
            let Some(block) = self.blocks.get_mut(&at) else {
                continue;
            };
            let Some(pipeline) = definition(block.context.revision) else {
                continue;
            };
            for (proof_type, proof) in &mut block.proofs {
                let Some(spec) = pipeline.proof(proof_type) else {
                    continue;
                };
                if block.ended.is_some() {
                    advance::finish(proof, spec);
                    continue;
                }
                let key = ProofKey {
                    pipeline: self.pipeline.clone(),
                    block: block.block,
                    first: None,
                    proof_type: proof_type.clone(),
                };
                steps.extend(advance::advance(proof, spec, &key, now));
            }
            if pipeline.range().is_some() && block.ready().is_some() {
                self.ranges.ready(at);
            }
        }
        let around = Around {
            pipeline: &self.pipeline,
            blocks: &self.blocks,
            next: self.next,
            cancelled: self.cancelled(),
            definition: &definition,
        };
        steps.extend(self.ranges.advance(&around, now));
        while let Some(step) = self.emit(&definition) {
            steps.push(step);
        }
        steps.extend(self.amend(&definition));
        steps
    }
}
