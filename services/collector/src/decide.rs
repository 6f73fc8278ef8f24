//! The collector's decisions for one pipeline.
//!
//! An event changes what is known ([`Collector::result`], [`Collector::end`]); [`Collector::advance`]
//! then says what follows from all that is known. A restart is the same: it feeds what is
//! unacknowledged and advances once. Every step names the results that it settles; they are
//! acknowledged when the step is stored, and not before.

use crate::{
    advance, record,
    state::{Block, Handle, Proof},
    task::Task,
};
use push0_domain::{
    BlockHash, BlockRef, PipelineId, Timestamp,
    message::{
        BlockEnded, BlockFacts, DeadLetter, Emission, EmissionOutcome, EndReason, Failure, FailureClass,
        Outcome, StageReady, TaskResult,
    },
    pipeline::{Pipeline, ProofSpec},
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
    emitted: BTreeMap<u64, BlockHash>,
    blocks: BTreeMap<(u64, BlockHash), Block>,
    /// Cancels and reorgs that may still concern a block.
    ends: Vec<(BlockEnded, Handle)>,
    /// Blocks that an event touched since they were last advanced.
    touched: BTreeSet<(u64, BlockHash)>,
    order: u64,
    /// Blocks whose records were amended in this session: once is enough.
    amended: BTreeSet<(u64, BlockHash)>,
}

impl Collector {
    /// A collector that emits `next` next, after the records in `emitted`.
    pub fn new(pipeline: PipelineId, next: u64, emitted: BTreeMap<u64, BlockHash>) -> Self {
        let (blocks, touched) = (BTreeMap::new(), BTreeSet::new());
        Self {
            pipeline,
            next,
            emitted,
            blocks,
            ends: Vec::new(),
            touched,
            order: 0,
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
        let ack = vec![Step::Ack(vec![handle])];
        let stage = result.header.id.stage.clone();
        let at = (stage.block.number, stage.block.hash);
        let announced_at = result.header.context.stored_at;
        let Some(proof_spec) = pipeline.proof(&stage.proof_type) else {
            return ack;
        };
        let Some((position, _)) = proof_spec.stage(&stage.stage) else {
            return ack;
        };
        if (at.0 < self.next && !told.amends) || self.is_replaced(&stage.block, announced_at) {
            return ack;
        }
        let ended = self.end_of(&stage.block, announced_at);
        let block = self.blocks.entry(at).or_insert_with(|| Block {
            block: stage.block,
            context: result.header.context.clone(),
            proofs: Default::default(),
            trace: trace.clone(),
            ended,
        });
        let proof = block.proofs.entry(stage.proof_type.clone()).or_default();
        if result.header.context.amends && proof.dead.take().is_some() {
            // Retried before the block's turn came: its record need not say that it is dead.
            proof.handles = proof.take_handles();
        }
        if block.ended.is_some() || proof.done.is_some() || proof.dead.is_some() || position < proof.position
        {
            return ack;
        }
        let mut steps = Vec::new();
        if position > proof.position {
            // A later stage has results: what is left of the earlier one is settled.
            steps.push(Step::Ack(proof.move_to(position, 0)));
        }
        if result.header.id.index < proof.settled {
            steps.push(Step::Ack(vec![handle]));
            return steps;
        }
        self.order += 1;
        note(
            proof,
            proof_spec,
            handle,
            result,
            told.verified,
            trace,
            self.order,
            now,
        );
        self.touched.insert(at);
        steps
    }

    /// Blocks are no longer wanted.
    pub fn end(&mut self, handle: Handle, ended: BlockEnded) -> Vec<Step> {
        if ended.reason == EndReason::Reorged {
            let replaced = self
                .emitted
                .range(ended.first..=ended.last)
                .find(|(_, hash)| ended.hashes.contains(hash));
            if let Some((number, _)) = replaced {
                // These were emitted already: the output goes back, and their successors follow.
                let number = *number;
                self.emitted.split_off(&number);
                self.next = self.next.min(number);
            }
        }
        if ended.last < self.next {
            return vec![Step::Ack(vec![handle])];
        }
        let numbers = (ended.first, BlockHash::default())..=(ended.last, BlockHash([0xff; 32]));
        let concerned: Vec<_> = self
            .blocks
            .range(numbers)
            .filter(|(_, block)| covers(&ended, &block.block, block.context.stored_at))
            .map(|(at, _)| *at)
            .collect();
        let mut handles = Vec::new();
        for at in concerned {
            if ended.reason == EndReason::Reorged {
                handles.extend(
                    self.blocks
                        .remove(&at)
                        .map(|mut b| b.take_handles())
                        .unwrap_or_default(),
                );
            } else if let Some(block) = self.blocks.get_mut(&at) {
                // What it holds stays unacknowledged until its record is stored: a proof that came in
                // time still counts after its deadline, also for a collector that starts over.
                block.ended.get_or_insert(ended.reason.clone());
                self.touched.insert(at);
            }
        }
        self.ends.push((ended, handle));
        vec![Step::Ack(handles)]
    }

    fn is_replaced(&self, block: &BlockRef, announced_at: Timestamp) -> bool {
        self.ends
            .iter()
            .any(|(e, _)| e.reason == EndReason::Reorged && covers(e, block, announced_at))
    }

    fn end_of(&self, block: &BlockRef, announced_at: Timestamp) -> Option<EndReason> {
        self.ends
            .iter()
            .find(|(e, _)| e.reason != EndReason::Reorged && covers(e, block, announced_at))
            .map(|(e, _)| e.reason.clone())
    }

    /// A block that ends without a proof and of which no result came: an emission needs to know it.
    pub fn unseen_end(&self) -> Option<u64> {
        let seen = self
            .blocks
            .range((self.next, BlockHash::default())..)
            .next()
            .is_some_and(|((n, _), _)| *n == self.next);
        let ended = self
            .ends
            .iter()
            .any(|(e, _)| e.reason != EndReason::Reorged && (e.first..=e.last).contains(&self.next));
        (ended && !seen).then_some(self.next)
    }

    /// Tells about a block that [`Self::unseen_end`] asked for.
    pub fn known(&mut self, block: BlockRef, context: BlockContextOf) {
        let announced_at = context.0.stored_at;
        if self.is_replaced(&block, announced_at) {
            return;
        }
        let Some(ended) = self.end_of(&block, announced_at) else {
            return;
        };
        let at = (block.number, block.hash);
        let entry = Block {
            block,
            context: context.0,
            proofs: Default::default(),
            trace: TraceContext::default(),
            ended: Some(ended),
        };
        self.blocks.entry(at).or_insert(entry);
        self.touched.insert(at);
    }

    /// Gives up blocks whose deadline passed.
    pub fn tick(&mut self, now: Timestamp) {
        for (at, block) in &mut self.blocks {
            if block.ended.is_none() && block.context.deadline_at.is_some_and(|deadline| deadline <= now) {
                block.ended = Some(EndReason::DeadlinePassed);
                self.touched.insert(*at);
            }
        }
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

    /// New records for emitted blocks that were dead and are no more.
    fn amend(&mut self, definition: &impl Fn(u32) -> Option<Arc<Pipeline>>) -> Vec<Step> {
        let late = self.blocks.range(..(self.next, BlockHash::default()));
        let ready: Vec<_> = late
            .filter_map(|(at, block)| {
                Some((
                    *at,
                    record::outcome(block, &*definition(block.context.revision)?)?,
                ))
            })
            .collect();
        let mut steps = Vec::new();
        for (at, outcome) in ready {
            let Some(mut block) = self.blocks.remove(&at) else {
                continue;
            };
            let handles = block.take_handles();
            if matches!(outcome, EmissionOutcome::Proved(_)) && self.amended.insert(at) {
                let (emission, trace) = record::emission(&self.pipeline, &block, outcome, self.next);
                steps.push(Step::Emit(Box::new(emission), trace, handles));
            } else {
                // Dead again: the letter is back, and the record says so already.
                steps.push(Step::Ack(handles));
            }
        }
        steps
    }

    fn emit(&mut self, definition: &impl Fn(u32) -> Option<Arc<Pipeline>>) -> Option<Step> {
        let parent = self
            .next
            .checked_sub(1)
            .and_then(|number| self.emitted.get(&number))
            .copied();
        let candidates = self
            .blocks
            .range((self.next, BlockHash::default())..=(self.next, BlockHash([0xff; 32])));
        let linked = candidates.filter(|(_, b)| parent.is_none_or(|parent| parent == b.context.parent_hash));
        let (at, outcome) = linked
            .filter_map(|(at, block)| {
                Some((
                    *at,
                    record::outcome(block, &*definition(block.context.revision)?)?,
                ))
            })
            .next()?;
        let mut block = self.blocks.remove(&at)?;
        let mut handles = block.take_handles();
        self.next += 1;
        self.emitted.insert(at.0, at.1);
        while self.emitted.len() > REORG_DEPTH_MAX {
            self.emitted.pop_first();
        }
        let next = self.next;
        let (over, kept) = std::mem::take(&mut self.ends)
            .into_iter()
            .partition(|(e, _)| e.last < next);
        self.ends = kept;
        let over: Vec<(BlockEnded, Handle)> = over;
        handles.extend(over.into_iter().map(|(_, handle)| handle));
        // Other blocks of this number lost the race to the chain.
        let losers: Vec<_> = self
            .blocks
            .range((at.0, BlockHash::default())..(next, BlockHash::default()))
            .map(|(at, _)| *at)
            .collect();
        handles.extend(
            losers
                .iter()
                .filter_map(|at| self.blocks.remove(at))
                .flat_map(|mut b| b.take_handles()),
        );
        let (emission, trace) = record::emission(&self.pipeline, &block, outcome, next);
        Some(Step::Emit(Box::new(emission), trace, handles))
    }
}

/// The context of a block of which only the ingester's record is known.
#[derive(Clone, Debug)]
pub struct BlockContextOf(pub push0_domain::message::BlockContext);

impl BlockContextOf {
    /// From the ingester's record.
    pub fn known(known: &push0_domain::message::KnownBlock) -> Self {
        Self(push0_domain::message::BlockContext {
            amends: false,
            revision: known.revision,
            parent_hash: known.parent_hash,
            stored_at: known.observed_at,
            deadline_at: None,
            facts: BlockFacts::default(),
        })
    }
}

fn names(ended: &BlockEnded, hash: &BlockHash) -> bool {
    ended.hashes.is_empty() || ended.hashes.contains(hash)
}

/// Whether an end concerns a block that was announced at `announced_at`. One that is announced again
/// later, because the chain went back to it, is wanted.
fn covers(ended: &BlockEnded, block: &BlockRef, announced_at: Timestamp) -> bool {
    (ended.first..=ended.last).contains(&block.number)
        && names(ended, &block.hash)
        && announced_at <= ended.at
}

/// Notes a result with its task.
#[expect(
    clippy::too_many_arguments,
    reason = "a result with all that gives it its meaning; grouping them would only rename them"
)]
fn note(
    proof: &mut Proof,
    spec: &ProofSpec,
    handle: Handle,
    result: TaskResult,
    verified: bool,
    trace: &TraceContext,
    order: u64,
    now: Timestamp,
) {
    let index = result.header.id.index;
    let task = proof
        .tasks
        .entry(index)
        .or_insert_with(|| Task::new(&result.header, trace));
    task.handles.push(handle);
    let was_done = task.done.is_some();
    match judge(&result, spec, verified) {
        Ok(outputs) => task.complete(result, outputs, order, trace.clone()),
        Err(failure) => task.fail(result, failure, now),
    }
    if !was_done && task.done.is_some() {
        proof.completed += 1;
    }
}

/// Whether a result counts: a completed attempt only with a verifier's word where the pipeline asks
/// for one.
fn judge(result: &TaskResult, spec: &ProofSpec, verified: bool) -> Result<push0_domain::Payloads, Failure> {
    let outputs = match &result.outcome {
        Outcome::Failed(failure) => return Err(failure.clone()),
        Outcome::Completed { outputs } => outputs.clone(),
    };
    if !spec.is_checked(&result.header.id.stage.stage) {
        return Ok(outputs);
    }
    match &result.verdict {
        Some(verdict) if verified => match &verdict.invalid {
            None => Ok(outputs),
            Some(reason) => Err(Failure::new(FailureClass::InvalidProof, reason)),
        },
        _ => Err(Failure::new(
            FailureClass::InvalidProof,
            "reported as complete without a verifier's word",
        )),
    }
}
