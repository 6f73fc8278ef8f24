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
    advance,
    intake::Intake,
    judge::{self, Came},
    state::{Block, Handle},
};
use push0_domain::{
    BlockHash, PipelineId, Timestamp,
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
    /// Emit a record, in this order.
    Emit(Box<Emission>, TraceContext, Vec<Handle>),
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
}

/// One pipeline's blocks on their way.
#[derive(Debug)]
pub struct Collector {
    pipeline: PipelineId,
    /// The number that is emitted next.
    next: u64,
    /// What was emitted last, by number: what the next block must link to.
    emitted: BTreeMap<u64, Emitted>,
    blocks: BTreeMap<(u64, BlockHash), Block>,
    /// Cancels and reorgs that may still concern a block.
    ends: Vec<(BlockEnded, Handle)>,
    /// Blocks that an event touched since they were last advanced.
    touched: BTreeSet<(u64, BlockHash)>,
    order: u64,
    intake: Intake,
    /// Blocks whose records were amended in this session: once is enough.
    amended: BTreeSet<(u64, BlockHash)>,
}

impl Collector {
    /// A collector that emits `next` next, after the records in `emitted`.
    pub fn new(pipeline: PipelineId, next: u64, emitted: BTreeMap<u64, Emitted>) -> Self {
        let (blocks, touched) = (BTreeMap::new(), BTreeSet::new());
        Self {
            pipeline,
            next,
            emitted,
            blocks,
            ends: Vec::new(),
            touched,
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
        let block = &result.header.id.stage.block;
        let at = (block.number, block.hash);
        result.header.context.amends && block.number < self.next && !self.amended.contains(&at)
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
        let Some(proof_spec) = pipeline.proof(&stage.proof_type) else {
            return ack;
        };
        if proof_spec.stage(&stage.stage).is_none() {
            return ack;
        }
        if at.0 < self.next && !told.amends {
            return vec![Step::Ack(self.intake.settled(handle))];
        }
        if self.is_replaced(&stage.block, announced_at) {
            return ack;
        }
        let ended = self.end_of(&stage.block, announced_at, result.header.context.amends);
        let block = self.blocks.entry(at).or_insert_with(|| Block {
            block: stage.block,
            context: result.header.context.clone(),
            proofs: Default::default(),
            trace: trace.clone(),
            ended,
        });
        let proof = block.proofs.entry(stage.proof_type).or_default();
        if block.ended.is_some() {
            // Kept until the record is stored: it may be the last message that tells of the block.
            proof.handles.push(handle);
            return Vec::new();
        }
        self.touched.insert(at);
        self.order += 1;
        let came = Came {
            handle,
            verified: told.verified,
            order: self.order,
            trace,
            now,
        };
        vec![Step::Ack(judge::note(proof, proof_spec, result, came))]
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
                let key = (self.pipeline.clone(), block.block, proof_type.clone());
                steps.extend(advance::advance(proof, spec, &key, now));
            }
        }
        while let Some(step) = self.emit(&definition) {
            steps.push(step);
        }
        steps.extend(self.amend(&definition));
        steps
    }
}
