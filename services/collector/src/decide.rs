//! The collector's decisions for one pipeline.
//!
//! An event changes what is known ([`Collector::result`], [`Collector::end`]); [`Collector::advance`]
//! then says what follows from all that is known. A restart is the same: it feeds what is
//! unacknowledged and advances once. Every step names the results that it settles; they are
//! acknowledged when the step is stored, and not before.

use crate::{
    state::{Block, Handle, Proof},
    task::{Done, Need, Task},
};
use push0_domain::{
    BlockHash, BlockRef, Payload, PipelineId, ProofType, Timestamp,
    message::{
        AttemptRecord, BlockEnded, BlockFacts, Dead, DeadLetter, Emission, EmissionOutcome, EndReason,
        Failure, FailureClass, Outcome, Proof as Emitted, StageReady, TaskRange, TaskResult,
    },
    pipeline::{NextStage, Pipeline, ProofSpec, Stage, tree_levels},
    task::{StageKey, TaskId},
    trace::TraceContext,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// How many emitted hashes are remembered: a reorg deeper than this is not undone.
pub const REORG_DEPTH_MAX: usize = 256;

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

/// A stage to open: [`StageReady`] but for the form of its inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The message, its inputs empty.
    pub ready: StageReady,
    /// Its inputs.
    pub inputs: Vec<Payload>,
    /// The trace that it goes on.
    pub trace: TraceContext,
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

    /// An attempt ended. `verified` tells whether a verifier reported it.
    pub fn result(
        &mut self,
        handle: Handle,
        result: TaskResult,
        verified: bool,
        trace: &TraceContext,
        pipeline: &Arc<Pipeline>,
        now: Timestamp,
    ) -> Vec<Step> {
        let ack = vec![Step::Ack(vec![handle])];
        let stage = result.header.id.stage.clone();
        let at = (stage.block.number, stage.block.hash);
        let Some(proof_spec) = pipeline.proof(&stage.proof_type) else {
            return ack;
        };
        let Some((position, _)) = proof_spec.stage(&stage.stage) else {
            return ack;
        };
        if at.0 < self.next || self.is_replaced(&stage.block) {
            return ack;
        }
        let ended = self.end_of(&stage.block);
        let block = self.blocks.entry(at).or_insert_with(|| Block {
            block: stage.block,
            context: result.header.context.clone(),
            proofs: Default::default(),
            trace: trace.clone(),
            ended,
        });
        let proof = block.proofs.entry(stage.proof_type.clone()).or_default();
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
            proof, proof_spec, handle, result, verified, trace, self.order, now,
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
            .map(|(at, _)| *at)
            .filter(|at| names(&ended, &at.1))
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
                handles.extend(block.take_handles());
                block.ended.get_or_insert(ended.reason.clone());
                self.touched.insert(at);
            }
        }
        self.ends.push((ended, handle));
        vec![Step::Ack(handles)]
    }

    fn is_replaced(&self, block: &BlockRef) -> bool {
        self.ends
            .iter()
            .any(|(e, _)| e.reason == EndReason::Reorged && covers(e, block))
    }

    fn end_of(&self, block: &BlockRef) -> Option<EndReason> {
        self.ends
            .iter()
            .find(|(e, _)| e.reason != EndReason::Reorged && covers(e, block))
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
        if self.is_replaced(&block) {
            return;
        }
        let Some(ended) = self.end_of(&block) else { return };
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
    pub fn tick(&mut self, now: Timestamp) -> Vec<Step> {
        let mut steps = Vec::new();
        for (at, block) in &mut self.blocks {
            let late = block.context.deadline_at.is_some_and(|deadline| deadline <= now);
            let proved = block.proofs.values().filter(|p| p.done.is_some()).count();
            if late && block.ended.is_none() && proved == 0 {
                block.ended = Some(EndReason::DeadlinePassed);
                steps.push(Step::Ack(block.take_handles()));
                self.touched.insert(*at);
            }
        }
        steps
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
                if let Some(spec) = pipeline.proof(proof_type).filter(|_| block.ended.is_none()) {
                    let key = (self.pipeline.clone(), block.block, proof_type.clone());
                    steps.extend(advance_proof(proof, spec, &key, now));
                }
            }
        }
        while let Some(step) = self.emit(&definition) {
            steps.push(step);
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
            .filter_map(|(at, block)| Some((*at, outcome(block, &*definition(block.context.revision)?)?)))
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
            .range(..(next, BlockHash::default()))
            .map(|(at, _)| *at)
            .collect();
        handles.extend(
            losers
                .iter()
                .filter_map(|at| self.blocks.remove(at))
                .flat_map(|mut b| b.take_handles()),
        );
        let busy_us = block
            .proofs
            .values()
            .filter_map(|p| p.done.as_ref())
            .max_by_key(|d| d.order)
            .map_or(0, |d| d.busy_us);
        let trace = block
            .proofs
            .values()
            .filter_map(|p| p.done.as_ref())
            .max_by_key(|d| d.order);
        let trace = trace.map_or(block.trace, |d| d.trace.clone());
        let emission = Emission {
            pipeline: self.pipeline.clone(),
            first: block.block,
            last: block.block,
            parent_hash: block.context.parent_hash,
            outcome,
            next,
            stored_at: block.context.stored_at,
            busy_us,
            facts: block.context.facts,
        };
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

fn covers(ended: &BlockEnded, block: &BlockRef) -> bool {
    (ended.first..=ended.last).contains(&block.number) && names(ended, &block.hash)
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

type ProofKey = (PipelineId, BlockRef, ProofType);

fn advance_proof(proof: &mut Proof, spec: &ProofSpec, key: &ProofKey, now: Timestamp) -> Vec<Step> {
    let mut steps = Vec::new();
    for task in proof.tasks.values_mut() {
        match task.need() {
            Need::Nothing => {}
            Need::Attempt {
                number,
                avoid,
                inputs,
            } => {
                task.ask(number);
                steps.push(Step::Open(
                    Box::new(another(task, number, avoid, inputs)),
                    Vec::new(),
                ));
            }
            Need::Burial => {
                let letter = letter(task, now);
                steps.push(Step::Bury(Box::new(letter.clone()), task.trace().clone()));
                proof.dead = Some((letter.id, letter.reason));
                break;
            }
        }
    }
    if proof.dead.is_none()
        && let Some(stage) = spec.stages.get(proof.position)
    {
        steps.extend(next_level_or_stage(proof, spec, stage, key));
    }
    steps
}

fn another(
    task: &Task,
    number: u32,
    avoid: Vec<push0_domain::ProverId>,
    inputs: push0_domain::Payloads,
) -> Opening {
    let header = task.header();
    let ready = StageReady {
        stage: header.id.stage.clone(),
        context: header.context.clone(),
        tasks: TaskRange {
            first: header.id.index,
            count: 1,
            of: header.of,
        },
        attempt: number,
        hedge_of: None,
        avoid,
        inputs,
        busy_us: header.busy_us,
    };
    Opening {
        ready,
        inputs: Vec::new(),
        trace: task.trace().clone(),
    }
}

fn letter(task: &Task, now: Timestamp) -> DeadLetter {
    let id = letter_id(&task.header().id);
    let history = task.history();
    let last = history.last().map_or_else(String::new, |r: &AttemptRecord| {
        let first_line = r.failure.message.lines().next().unwrap_or_default();
        format!("{} by {}: {first_line}", r.failure.class.as_str(), r.prover)
    });
    let number = history.last().map_or(1, |r| r.attempt + 1);
    let reason = format!(
        "task {} failed {} times; last: {last}",
        task.header().id,
        history.len()
    );
    let retry = Opening {
        ..another(task, number, Vec::new(), task.inputs())
    }
    .ready;
    DeadLetter {
        id,
        reason,
        at: now,
        what: Dead::Task { retry, history },
    }
}

/// The same task's death is the same letter, whoever writes it and however often.
fn letter_id(task: &TaskId) -> String {
    let hash = blake3::hash(task.to_string().as_bytes());
    hex::encode(hash.as_bytes().iter().take(8).copied().collect::<Vec<u8>>())
}

/// What follows when all tasks of the open level are done: the next level of a tree, the next
/// stage, or the proof.
fn next_level_or_stage(proof: &mut Proof, spec: &ProofSpec, stage: &Stage, key: &ProofKey) -> Option<Step> {
    let (_, any) = proof.tasks.first_key_value()?;
    let of = any.header().of;
    let level_end = level_end(stage, of, proof.settled);
    if proof.completed < level_end - proof.settled {
        return None;
    }
    let last = proof
        .tasks
        .values()
        .filter_map(|t| t.done.as_ref())
        .max_by_key(|d| d.order)?
        .clone();
    let next = spec.next(&stage.name)?;
    let (target, first, total) = match (&next, level_end < of) {
        (_, true) => (stage, level_end, of),
        (NextStage::Stage(next), false) => (*next, 0, 0),
        (NextStage::Proof, false) => {
            proof.handles = proof.take_handles();
            proof.done = Some(last);
            return None;
        }
    };
    let context = any.header().context.clone();
    let inputs = outputs(proof);
    let count = u32::try_from(inputs.len()).unwrap_or(u32::MAX);
    let tasks = if total > 0 {
        TaskRange {
            first,
            count: self::level_end(stage, of, first) - first,
            of,
        }
    } else {
        let of = target.task_count(count);
        TaskRange {
            first: 0,
            count: self::level_end(target, of, 0),
            of,
        }
    };
    let (pipeline, block, proof_type) = key.clone();
    let ready = StageReady {
        stage: StageKey {
            pipeline,
            block,
            proof_type,
            stage: target.name.clone(),
        },
        context,
        tasks,
        attempt: 1,
        hedge_of: None,
        avoid: Vec::new(),
        inputs: push0_domain::Payloads::List(Vec::new()),
        busy_us: last.busy_us,
    };
    let handles = if total > 0 {
        proof.move_to(proof.position, first)
    } else {
        proof.move_to(proof.position + 1, 0)
    };
    Some(Step::Open(
        Box::new(Opening {
            ready,
            inputs,
            trace: last.trace,
        }),
        handles,
    ))
}

/// The outputs of the open level in order of index; a list of lists is one list.
fn outputs(proof: &Proof) -> Vec<Payload> {
    let done = proof.tasks.values().filter_map(|t| t.done.as_ref());
    done.flat_map(|d| (0..d.outputs.count()).filter_map(|i| d.outputs.get(i)))
        .collect()
}

/// The index behind the last task of the level that begins at `start`. All tasks of a stage are one
/// level, except in a tree.
fn level_end(stage: &Stage, of: u32, start: u32) -> u32 {
    let Some(arity) = stage.arity else { return of };
    let mut end = 0;
    for width in tree_of(of, arity) {
        end += width;
        if end > start {
            break;
        }
    }
    end.min(of)
}

/// The levels of the tree that has `of` tasks: the width of its first level determines the rest, and
/// a wider one has more tasks.
fn tree_of(of: u32, arity: u32) -> Vec<u32> {
    let levels = |width: u32| {
        if width <= 1 {
            vec![1]
        } else {
            [vec![width], tree_levels(width, arity)].concat()
        }
    };
    let (mut low, mut high) = (1, of.max(1));
    while low < high {
        let middle = low + (high - low) / 2;
        if levels(middle).iter().sum::<u32>() < of {
            low = middle + 1
        } else {
            high = middle
        }
    }
    levels(low)
}

/// What a block's record says, if it can be written now.
fn outcome(block: &Block, pipeline: &Pipeline) -> Option<EmissionOutcome> {
    if let Some(reason) = &block.ended {
        return Some(EmissionOutcome::Abandoned(reason.clone()));
    }
    let done = |spec: &ProofSpec| Some((spec.clone(), block.proofs.get(&spec.proof_type)?.done.clone()?));
    let proofs: Vec<(ProofSpec, Done)> = pipeline.proofs.iter().filter_map(done).collect();
    if proofs.len() >= pipeline.quorum as usize {
        return Some(EmissionOutcome::Proved(
            proofs
                .into_iter()
                .map(|(spec, done)| emitted(&spec, done))
                .collect(),
        ));
    }
    let mut dead = block.proofs.values().filter_map(|p| p.dead.clone());
    let dead_count = block.proofs.values().filter(|p| p.dead.is_some()).count();
    if pipeline.proofs.len() - dead_count >= pipeline.quorum as usize {
        return None;
    }
    dead.next()
        .map(|(dead_letter, reason)| EmissionOutcome::Dead { dead_letter, reason })
}

fn emitted(spec: &ProofSpec, done: Done) -> Emitted {
    let payload = done.outputs.get(0).unwrap_or_else(Payload::empty);
    Emitted {
        proof_type: spec.proof_type.clone(),
        zkvm: spec
            .stages
            .last()
            .map_or_else(|| spec.zkvm.clone(), |stage| stage.zkvm.clone()),
        program_id: spec.program_id.clone(),
        prover: done.prover,
        verifier: done.verifier,
        bytes: payload.len(),
        payload,
        prove_us: done.prove_us,
        verify_us: done.verify_us,
        attempt: done.attempt,
    }
}
