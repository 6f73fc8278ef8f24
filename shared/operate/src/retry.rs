//! Asks for another proof of a dead block or range.
//!
//! | the record | the letter's task | the request |
//! |---|---|---|
//! | none yet | the only task of its stage | one more attempt at the task: everything else about the block is still there |
//! | none yet | one of several | nothing: the record comes first |
//! | dead | the only task of its stage, in a pipeline with a quorum of one | one more attempt at the task |
//! | dead, of a range | one of several | the first stage of the range, whose inputs are in the letter |
//! | dead, of a block | any other, or the letter is gone | the first stage of every proof, with the witness that the ingester remembers |
//! | dead, of a range | any other | nothing: the outputs of its blocks are gone |
//! | any other | any | nothing |
//!
//! The work is stored before the letter is dropped. If the command is interrupted in between, it can be run again:
//! an attempt's subject holds one message, so the attempt is stored once.

use crate::OperateError;
use crate::letters::Place;
use crate::{known, letters};
use push0_bus::{Bus, Kept, Message, Pipelines, PublishError, Stream, now};
use push0_domain::message::{
    AttemptRecord, BlockContext, Dead, DeadLetter, Emission, EmissionOutcome, KnownBlock, StageReady,
    TaskRange,
};
use push0_domain::pipeline::{Pipeline, ProofSpec};
use push0_domain::subject::{self, AttemptKey};
use push0_domain::trace::{Cause, TraceContext};
use push0_domain::{BlockKey, BlockRef, CriticalPath, Payload, Payloads, PipelineId, StageKey, Timestamp};
use serde::Serialize;
use std::collections::BTreeMap;

/// A dead task and the letter about it.
#[derive(Clone, Debug)]
pub struct DeadTask {
    /// Where the letter lies.
    pub place: Place,
    /// When the letter was written.
    pub at: Timestamp,
    retry: Box<StageReady>,
    history: Vec<AttemptRecord>,
    trace: TraceContext,
}

/// Identifies a dead block or range.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct DeadBlock {
    /// The pipeline of the block.
    pub pipeline: PipelineId,
    /// The first block of the range, or the block itself.
    pub first: BlockRef,
    /// The last block of the range, or the block itself.
    pub last: BlockRef,
}

impl DeadBlock {
    /// Returns the token of the block or range in subjects.
    pub fn key(&self) -> BlockKey {
        let blocks = self.last.number.saturating_sub(self.first.number) + 1;
        BlockKey {
            blocks: u32::try_from(blocks).unwrap_or(u32::MAX),
            ..self.last.key()
        }
    }
}

/// Work that was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// One attempt at each of these tasks.
    Attempts(Vec<u32>),
    /// The first stage of the range.
    Range,
    /// The first stage of this many proofs.
    Proofs(usize),
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Attempts(numbers) => {
                let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
                write!(f, "attempt {} is asked for", numbers.join(", "))
            }
            Self::Range => write!(f, "its range is proved again"),
            Self::Proofs(1) => write!(f, "it is proved again from its first stage"),
            Self::Proofs(count) => write!(f, "its {count} proofs are proved again from their first stages"),
        }
    }
}

/// Reads dead letters, and sorts those about tasks by block. Returns the letters about messages as well, which no
/// retry can help.
pub async fn read(
    bus: &Bus,
    places: Vec<Place>,
) -> Result<(BTreeMap<DeadBlock, Vec<DeadTask>>, Vec<Place>), OperateError> {
    let (mut blocks, mut rest): (BTreeMap<_, Vec<_>>, Vec<_>) = Default::default();
    for place in places {
        let Some(kept) = letters::read(bus, &place).await? else {
            continue;
        };
        match task_of(place, kept) {
            Ok((block, task)) => blocks.entry(block).or_default().push(task),
            Err(place) => rest.push(place),
        }
    }
    Ok((blocks, rest))
}

/// Reads the dead tasks of one block. One letter is in memory at a time, besides those of the block: letters hold inputs,
/// and there may be very many.
pub async fn tasks_of(bus: &Bus, block: &DeadBlock) -> Result<Vec<DeadTask>, OperateError> {
    let of_pipeline = subject::dead(Some(&block.pipeline), ">");
    let (mut tasks, mut from) = (Vec::new(), 1);
    while let Some(kept) = bus.scan(Stream::Dead, &of_pipeline, from, 1).await?.pop() {
        from = kept.sequence + 1;
        let task = letters::parse(&kept.subject).and_then(|place| task_of(place, kept).ok());
        tasks.extend(task.filter(|(of, _)| of == block).map(|(_, task)| task));
    }
    tasks.sort_by(|a, b| a.place.subject.cmp(&b.place.subject));
    Ok(tasks)
}

/// Returns the dead task in a letter and its block; the letter's place if the letter is about none.
fn task_of(place: Place, kept: Kept<DeadLetter>) -> Result<(DeadBlock, DeadTask), Place> {
    let Ok(DeadLetter {
        at,
        what: Dead::Task { retry, history },
        ..
    }) = kept.body
    else {
        return Err(place);
    };
    // The broker's permissions fix the subject, and the body may say anything.
    if place.pipeline.as_ref() != Some(&retry.stage.pipeline) {
        return Err(place);
    }
    let block = DeadBlock {
        pipeline: retry.stage.pipeline.clone(),
        first: retry.stage.first_block(),
        last: retry.stage.block,
    };
    let task = DeadTask {
        place,
        at,
        retry: Box::new(retry),
        history,
        trace: kept.trace,
    };
    Ok((block, task))
}

/// Returns the newest record of a block or range.
async fn record(bus: &Bus, block: &DeadBlock) -> Result<Option<Emission>, OperateError> {
    let subject = subject::proof(&block.pipeline, block.last.number);
    let record = bus.last::<Emission>(Stream::Proofs, &subject).await?;
    let record = record.and_then(|kept| kept.body.ok());
    Ok(record.filter(|record| (record.first, record.last) == (block.first, block.last)))
}

/// Returns whether the newest record of a block says proved. Letters about the block are dropped then.
pub async fn is_proved(bus: &Bus, block: &DeadBlock) -> Result<bool, OperateError> {
    let outcome = record(bus, block).await?.map(|record| record.outcome);
    let is_proved = matches!(outcome, Some(EmissionOutcome::Proved(_)));
    if is_proved {
        drop_letters(bus, &tasks_of(bus, block).await?).await?;
    }
    Ok(is_proved)
}

/// Asks for another proof of a dead block. Returns the work asked for, or the reason why there is none.
pub async fn retry(
    bus: &Bus,
    pipelines: &Pipelines,
    block: &DeadBlock,
    tasks: &[DeadTask],
) -> Result<Result<Asked, String>, OperateError> {
    let record = record(bus, block).await?;
    let is_dead = record
        .as_ref()
        .map(|r| matches!(r.outcome, EmissionOutcome::Dead { .. }));
    match is_dead {
        Some(false) => {
            drop_letters(bus, tasks).await?;
            let outcome = record.map(|r| crate::outcome(&r.outcome)).unwrap_or_default();
            return Ok(Err(format!("its record says {outcome}, so nothing is asked for")));
        }
        None if tasks.is_empty() => {
            return Ok(Err(
                "it has no record and no dead letter, so it is not dead".into()
            ));
        }
        _ => {}
    }
    let (is_recorded, is_range) = (is_dead.is_some(), block.first != block.last);
    let is_anew = |task: &&DeadTask| task.retry.attempt == 1;
    let asked_at = now();
    let next = |task| next(task, asked_at, is_recorded);
    let ready: Vec<(StageReady, TraceContext)> = match tasks {
        tasks if !is_recorded => {
            // Other tasks of the stage may be dead too, and only the first of them has a letter.
            if tasks.iter().any(|task| task.retry.tasks.of > 1) {
                return Ok(Err(
                    "it has no record yet: retry it when its record says dead".into()
                ));
            }
            tasks.iter().map(next).collect()
        }
        [only] if only.retry.tasks.of == 1 && quorum(pipelines, only).await? == Some(1) => vec![next(only)],
        tasks if is_range => match tasks.iter().find(is_anew) {
            Some(task) => vec![next(task)],
            None => return Ok(Err("the outputs of its blocks are gone: drop the letter".into())),
        },
        tasks => return from_the_witness(bus, pipelines, block, tasks).await,
    };
    let mut attempts = Vec::new();
    for (ready, trace) in &ready {
        if let Err(reason) = is_possible(bus, pipelines, ready).await? {
            return Ok(Err(reason));
        }
        // The root of a recorded block has ended, so its retry has a root of its own.
        let trace = trace.map(|trace| match is_recorded {
            true => trace.again(asked_at),
            false => trace.next_attempt(Cause::Failure, asked_at),
        });
        ask(bus, ready, &trace).await?;
        attempts.push(ready.attempt);
        attempts.dedup();
    }
    if is_range && is_recorded && attempts == [1] {
        // If the range dies again, the next retry needs the same inputs.
        return Ok(Ok(Asked::Range));
    }
    drop_letters(bus, tasks).await?;
    Ok(Ok(Asked::Attempts(attempts)))
}

/// Drops letters that are not needed any more.
async fn drop_letters(bus: &Bus, tasks: &[DeadTask]) -> Result<(), OperateError> {
    for task in tasks {
        bus.purge(Stream::Dead, &task.place.subject).await?;
    }
    Ok(())
}

async fn from_the_witness(
    bus: &Bus,
    pipelines: &Pipelines,
    block: &DeadBlock,
    tasks: &[DeadTask],
) -> Result<Result<Asked, String>, OperateError> {
    let Some(record) = record(bus, block).await? else {
        return Ok(Err("its record is gone".into()));
    };
    let Some(known) = known::of_block(bus, &block.pipeline, &block.last).await? else {
        return Ok(Err("the ingester's facts about it have expired".into()));
    };
    let Some(input) = &known.input else {
        return Ok(Err(
            "its ingester did not remember the witness: submit the block under another pipeline".into(),
        ));
    };
    let Some(pipeline) = pipelines.revision(&block.pipeline, known.revision).await? else {
        return Ok(Err(format!(
            "pipeline {} has no revision {}",
            block.pipeline, known.revision
        )));
    };
    let context = BlockContext {
        announcement: record.announcement,
        stored_at: now(),
        // The block is late already, or the operator would not ask.
        deadline_at: None,
        amends: true,
        ..context(&pipeline, &known)
    };
    let path = CriticalPath::behind(Vec::new(), context.stored_at);
    let stages = first_stages(&pipeline, &known, &context, input, &path);
    let trace = tasks.first().map(|task| task.trace.clone()).unwrap_or_default();
    let trace = trace.map(|trace| trace.again(context.stored_at));
    for ready in &stages {
        ask(bus, ready, &trace).await?;
    }
    drop_letters(bus, tasks).await?;
    Ok(Ok(Asked::Proofs(stages.len())))
}

/// Returns the context of a block without a record, as the dispatcher would write it. Of the announcement, the earliest
/// possible position is known.
pub fn context(pipeline: &Pipeline, known: &KnownBlock) -> BlockContext {
    BlockContext {
        revision: known.revision,
        parent_hash: known.parent_hash,
        announcement: known.announced_after.next(),
        stored_at: known.observed_at,
        first_announcement: None,
        deadline_at: pipeline.deadline_at(known.observed_at),
        amends: false,
        facts: known.facts,
    }
}

/// Returns the first stage of every proof of a block, with its witness as the input and this critical path behind it.
pub fn first_stages(
    pipeline: &Pipeline,
    known: &KnownBlock,
    context: &BlockContext,
    input: &Payload,
    path: &CriticalPath,
) -> Vec<StageReady> {
    let first = |proof: &ProofSpec| {
        let stage = proof.first()?;
        Some(StageReady {
            stage: StageKey {
                pipeline: pipeline.name.clone(),
                block: known.block,
                first: None,
                proof_type: proof.proof_type.clone(),
                stage: stage.name.clone(),
            },
            context: context.clone(),
            zkvm: stage.zkvm.clone(),
            tasks: TaskRange {
                first: 0,
                count: 1,
                of: 1,
            },
            attempt: 1,
            hedge_of: None,
            failed: 0,
            avoid: Vec::new(),
            inputs: Payloads::one(input.clone()),
            path: path.clone(),
        })
    };
    pipeline.proofs.iter().filter_map(first).collect()
}

/// Stores a ready stage. A stage that is stored already is left alone.
pub async fn ask(bus: &Bus, ready: &StageReady, trace: &TraceContext) -> Result<(), OperateError> {
    let attempt = ready.stage.task(ready.tasks.first).attempt(ready.attempt);
    let key = AttemptKey::of(&ready.zkvm, &attempt);
    match bus
        .publish(Message::new(subject::stage(&key), ready, trace)?)
        .await
    {
        Ok(_) | Err(PublishError::Occupied { .. }) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

async fn quorum(pipelines: &Pipelines, task: &DeadTask) -> Result<Option<u32>, OperateError> {
    let retry = &task.retry;
    let definition = pipelines
        .revision(&retry.stage.pipeline, retry.context.revision)
        .await?;
    Ok(definition.map(|pipeline| pipeline.quorum))
}

/// Returns the reason why the letter asks for something no letter of a service asks for: of a stage or a zkVM that
/// the definition lacks, or of a block the ingester knows otherwise.
async fn is_possible(
    bus: &Bus,
    pipelines: &Pipelines,
    ready: &StageReady,
) -> Result<Result<(), String>, OperateError> {
    for block in [ready.stage.first_block(), ready.stage.block] {
        let known = known::of_block(bus, &ready.stage.pipeline, &block).await?;
        let is_first = block == ready.stage.first_block();
        let differs = |known: &KnownBlock| {
            ready.stage.first.is_none() && known.revision != ready.context.revision
                || is_first && known.parent_hash != ready.context.parent_hash
        };
        if known.as_ref().is_some_and(differs) {
            return Ok(Err(format!(
                "the letter says otherwise of block {block} than the ingester: drop the letter, and retry the block with \
                 `push0 retry`"
            )));
        }
    }
    let (stage, revision) = (&ready.stage, ready.context.revision);
    let definition = pipelines.revision(&stage.pipeline, revision).await?;
    let proof = definition
        .as_ref()
        .and_then(|pipeline| pipeline.proof(&stage.proof_type));
    let spec = proof.and_then(|proof| proof.stage(&stage.stage));
    if spec.is_some_and(|(_, spec)| spec.zkvms().any(|zkvm| *zkvm == ready.zkvm)) {
        return Ok(Ok(()));
    }
    let pipeline = &stage.pipeline;
    Ok(Err(format!(
        "revision {revision} of pipeline {pipeline} has no stage {stage} on zkVM {}",
        ready.zkvm
    )))
}

/// Returns the work requested by the letter: an attempt after all others, or the first stage of a range. The time
/// of a recorded block counts anew.
fn next(task: &DeadTask, asked_at: Timestamp, is_recorded: bool) -> (StageReady, TraceContext) {
    let mut ready = (*task.retry).clone();
    ready.context.stored_at = asked_at;
    ready.path = match is_recorded {
        true => CriticalPath::behind(Vec::new(), asked_at),
        false => ready.path.asked_at(asked_at),
    };
    let newest = task.history.iter().map(|record| record.attempt).max();
    if let Some(newest) = newest.filter(|_| ready.attempt > 1) {
        ready.attempt = newest + 1;
    }
    ready.hedge_of = None;
    (ready, task.trace.clone())
}
