//! The next step within one proof: another attempt, a dead letter, the next level of a tree, the next stage,
//! or the finished proof.

use crate::{
    bodies::{Bodies, Failing},
    intake::Handle,
    spans::{Over, of_stage},
    state::{Dead, Proof},
    step::{Opening, Step},
    task::{Need, Task},
};
use push0_domain::{
    BlockRef, CriticalPath, Payload, Payloads, PipelineId, ProofType, ProverId, Timestamp, ZkvmId,
    message::{AttemptRecord, Dead as DeadTask, DeadLetter, StageReady, TaskRange},
    pipeline::{NextStage, ProofSpec, Stage, tree_levels},
    task::{StageKey, TaskId, first_attempt},
    trace::{Cause, Span},
};

/// Most copies of an attempt that may be in flight under the numbers behind its own: a hedge, or copies of attempts
/// whose provers fell silent. An attempt that moves to provers with more memory skips these numbers, because it must
/// not collide with a copy on the smaller ones.
const COPIES_MAX: u32 = 2;

/// Identifies a proof.
pub(crate) struct ProofKey {
    pub(crate) pipeline: PipelineId,
    /// The block, or the last block of a range.
    pub(crate) block: BlockRef,
    /// The first block of a range.
    pub(crate) first: Option<BlockRef>,
    pub(crate) proof_type: ProofType,
}

impl ProofKey {
    /// Returns the key of the stage at a position of the proof.
    pub(crate) fn stage(&self, spec: &ProofSpec, position: usize) -> Option<StageKey> {
        Some(StageKey {
            pipeline: self.pipeline.clone(),
            block: self.block,
            first: self.first,
            proof_type: self.proof_type.clone(),
            stage: spec.stages.get(position)?.name.clone(),
        })
    }
}

/// The next steps, as far as the bodies in memory allow.
#[derive(Default)]
pub(crate) struct Follows {
    pub(crate) steps: Vec<Step>,
    /// The spans that end with these steps.
    pub(crate) spans: Vec<Span>,
    /// Whether further steps wait for messages being read again.
    pub(crate) waits: bool,
}

/// Returns all steps that follow from the state of one proof.
///
/// Death is decided anew each time: a late completion or an operator's retry revives a dead proof.
pub(crate) fn advance(
    proof: &mut Proof,
    spec: &ProofSpec,
    key: &ProofKey,
    bodies: &mut Bodies,
    now: Timestamp,
) -> Follows {
    let mut follows = Follows::default();
    let failing = proof.failing.iter();
    let needs: Vec<(u32, Need)> = failing
        .filter_map(|index| Some((*index, proof.tasks.get(index)?.need())))
        .collect();
    let dead = needs.iter().find(|(_, need)| *need == Need::Burial);
    if let Some((index, task)) = dead.and_then(|(index, _)| Some((*index, proof.tasks.get(index)?))) {
        let dead = (index, task.failed_times());
        if proof.dead != Some(dead) {
            // The proof is dead only once its letter is written.
            match bury(task, spec, bodies, now) {
                Some(step) => {
                    follows.steps.push(step);
                    proof.dead = Some(dead);
                }
                None => follows.waits = true,
            }
        }
        return follows;
    }
    proof.dead = None;
    for (index, need) in needs {
        let (Need::Attempt(number), Some(task)) = (need, proof.tasks.get_mut(&index)) else {
            continue;
        };
        match one_more(task, spec, number, bodies) {
            Some(step) => follows.steps.push(step),
            None => follows.waits = true,
        }
    }
    let position = proof.position;
    if let Some(over) = finish(proof, spec) {
        let stage = key.stage(spec, position);
        follows.spans = stage.map_or_else(Vec::new, |stage| of_stage(&stage, &over, bodies));
    }
    if let Some(stage) = spec.stages.get(proof.position)
        && is_level_complete(proof, stage)
    {
        match next_level_or_stage(proof, spec, stage, key, bodies) {
            Some((step, spans)) => {
                follows.steps.push(step);
                follows.spans.extend(spans);
            }
            None => follows.waits = true,
        }
    }
    follows
}

/// Builds the dead letter of a task. Returns `None` while messages about its failures are being read.
fn bury(task: &Task, spec: &ProofSpec, bodies: &mut Bodies, now: Timestamp) -> Option<Step> {
    let failures = history(task, bodies)?;
    let trace = failures.first()?.trace.clone();
    let letter = letter(task, spec, &failures, now)?;
    Some(Step::Bury(Box::new(letter), trace))
}

/// Returns the failed attempts of a task, oldest first, or `None` while messages about them are being read.
fn history<'a>(task: &Task, bodies: &'a mut Bodies) -> Option<Vec<&'a Failing>> {
    let handles = task.failed_in();
    if !bodies.have(&handles) {
        return None;
    }
    handles.iter().map(|handle| bodies.failed(*handle)).collect()
}

/// Returns the id and reason of a task's dead letter, or `None` while messages about its failures
/// are being read.
pub(crate) fn death(proof: &Proof, dead: Dead, bodies: &Bodies) -> Option<(String, String)> {
    let task = proof.tasks.get(&dead.0)?;
    let failures = task.failed_in();
    let failures: Option<Vec<&Failing>> = failures.iter().map(|handle| bodies.failed(*handle)).collect();
    let failures = failures?;
    let id = &failures.first()?.header.id;
    Some((letter_id(id), reason(id, task.failed_times(), &failures)))
}

/// Returns the messages about a dead task's failures.
pub(crate) fn death_in(proof: &Proof, dead: Dead) -> Vec<Handle> {
    proof.tasks.get(&dead.0).map(Task::failed_in).unwrap_or_default()
}

/// Asks for another attempt. Returns `None` while messages about earlier ones are being read.
fn one_more(task: &mut Task, spec: &ProofSpec, number: u32, bodies: &mut Bodies) -> Option<Step> {
    let failures = history(task, bodies)?;
    let newest = newest(&failures)?;
    let mut avoid: Vec<ProverId> = failures.iter().map(|f| f.record.prover.clone()).collect();
    avoid.dedup();
    let moves = *takers(task, &newest.header.zkvm, spec, newest) != newest.header.zkvm;
    let number = if moves { number + COPIES_MAX } else { number };
    let ready = another(task, spec, &failures, number, avoid)?;
    let trace = &newest.trace;
    let trace = trace.map(|trace| trace.next_attempt(Cause::Failure, newest.record.ended_at));
    task.ask(number);
    Some(Step::Open(Box::new(Opening { ready, trace }), Vec::new()))
}

/// Returns the failure with the highest attempt number, whose header is the model for the next attempt.
fn newest<'a>(failures: &[&'a Failing]) -> Option<&'a Failing> {
    failures.iter().copied().max_by_key(|f| f.header.attempt)
}

/// Returns the zkVM whose provers take a further attempt: the one with more memory if an attempt ran out of
/// memory and the stage names one.
fn takers<'a>(task: &Task, zkvm: &'a ZkvmId, spec: &'a ProofSpec, newest: &Failing) -> &'a ZkvmId {
    let stage = spec.stage(&newest.header.id.stage.stage);
    let more_memory = stage.and_then(|(_, stage)| stage.more_memory.as_ref());
    more_memory.filter(|_| task.ran_out_of_memory()).unwrap_or(zkvm)
}

fn another(
    task: &Task,
    spec: &ProofSpec,
    failures: &[&Failing],
    number: u32,
    avoid: Vec<ProverId>,
) -> Option<StageReady> {
    let newest = newest(failures)?;
    let header = &newest.header;
    let inputs = failures.iter().find_map(|failed| failed.inputs.clone());
    Some(StageReady {
        stage: header.id.stage.clone(),
        context: header.context.clone(),
        zkvm: takers(task, &header.zkvm, spec, newest).clone(),
        tasks: TaskRange {
            first: header.id.index,
            count: 1,
            of: header.of,
        },
        attempt: number,
        hedge_of: None,
        failed: task.setbacks(),
        avoid,
        // The inputs are unknown, but an operator who retries the task may know them.
        inputs: inputs.unwrap_or_else(|| Payloads::one(Payload::empty())),
        path: header.path.failed_at(newest.record.ended_at),
    })
}

fn letter(task: &Task, spec: &ProofSpec, failures: &[&Failing], now: Timestamp) -> Option<DeadLetter> {
    let id = &failures.first()?.header.id;
    let history: Vec<AttemptRecord> = failures.iter().map(|f| f.record.clone()).collect();
    let number = history.last().map_or(1, |r| r.attempt + 1);
    let mut retry = another(task, spec, failures, number, Vec::new())?;
    // By the time an operator looks at the letter, the block's record is written.
    retry.context.amends = true;
    retry.failed = 0;
    Some(DeadLetter {
        id: letter_id(id),
        reason: reason(id, task.failed_times(), failures),
        at: now,
        what: DeadTask::Task { retry, history },
    })
}

fn reason(id: &TaskId, times: usize, failures: &[&Failing]) -> String {
    let last = failures.last().map_or_else(String::new, |failed| {
        let record = &failed.record;
        let first_line = record.failure.message.lines().next().unwrap_or_default();
        format!(
            "{} by {}: {first_line}",
            record.failure.class.as_str(),
            record.prover
        )
    });
    format!("task {id} failed {times} times; last: {last}")
}

/// The id depends on the task only, so that each death has one letter, however often and by which collector
/// it is written.
fn letter_id(task: &TaskId) -> String {
    let hash = blake3::hash(task.to_string().as_bytes());
    hex::encode(hash.as_bytes().iter().take(8).copied().collect::<Vec<u8>>())
}

/// Returns whether all tasks of the open level are done.
fn is_level_complete(proof: &Proof, stage: &Stage) -> bool {
    proof.tasks.first_key_value().is_some_and(|(_, any)| {
        let end = level_end(stage, any.of, proof.settled);
        proof.completed >= end - proof.settled
    })
}

/// Returns the step after a complete level: the next level of a tree, or the next stage. Returns `None` while
/// the outputs are being read.
fn next_level_or_stage(
    proof: &mut Proof,
    spec: &ProofSpec,
    stage: &Stage,
    key: &ProofKey,
    bodies: &mut Bodies,
) -> Option<(Step, Vec<Span>)> {
    let (_, any) = proof.tasks.first_key_value()?;
    let of = any.of;
    let context = (*any.context).clone();
    let done: Vec<Handle> = proof
        .tasks
        .values()
        .filter_map(|t| Some(t.done?.handle))
        .collect();
    if !bodies.have(&done) {
        return None;
    }
    let inputs = outputs(&done, bodies);
    let level_end = level_end(stage, of, proof.settled);
    let (target, tasks) = match spec.next(&stage.name)? {
        _ if level_end < of => (stage, level(stage, of, level_end)),
        NextStage::Stage(next) => (next, level(next, next.task_count(inputs.count()), 0)),
        NextStage::Proof | NextStage::Range(_) => return None,
    };
    let over = Over::of(proof)?;
    let last = bodies.completed(over.last.handle)?;
    let trace = &last.trace;
    let (ready_at, is_level) = (over.last.stored_at, tasks.first > 0);
    let trace = trace.map(|trace| match is_level {
        true => trace.next_level(ready_at),
        false => trace.next_stage(ready_at),
    });
    let ended = key.stage(spec, proof.position).filter(|_| !is_level);
    let spans = ended.map_or_else(Vec::new, |stage| of_stage(&stage, &over, bodies));
    let ready = StageReady {
        stage: StageKey {
            pipeline: key.pipeline.clone(),
            block: key.block,
            first: key.first,
            proof_type: key.proof_type.clone(),
            stage: target.name.clone(),
        },
        context,
        zkvm: target.zkvm.clone(),
        tasks,
        attempt: first_attempt(proof.start),
        hedge_of: None,
        failed: 0,
        avoid: Vec::new(),
        inputs,
        path: CriticalPath::behind(last.legs.clone(), ready_at),
    };
    let position = if is_level {
        proof.position
    } else {
        proof.position + 1
    };
    let mut handles = proof.move_to(position, tasks.first);
    if key.first.is_some() {
        // These are the last messages about the range until the next result comes. Without them, a collector
        // that starts over would prove the range again.
        proof.handles = std::mem::take(&mut handles);
    }
    Some((Step::Open(Box::new(Opening { ready, trace }), handles), spans))
}

/// Returns the level that begins at task `first`, in a stage of `of` tasks.
pub(crate) fn level(stage: &Stage, of: u32, first: u32) -> TaskRange {
    TaskRange {
        first,
        count: level_end(stage, of, first) - first,
        of,
    }
}

/// Returns the outputs of these tasks, in this order. The output list of a single task, such as a split,
/// is forwarded unchanged.
fn outputs(done: &[Handle], bodies: &Bodies) -> Payloads {
    let mut outputs = done
        .iter()
        .filter_map(|handle| Some(&bodies.completed(*handle)?.outputs));
    if done.len() == 1
        && let Some(only) = outputs.next()
    {
        return only.clone();
    }
    Payloads::List(
        outputs
            .flat_map(|outputs| (0..outputs.count()).filter_map(|i| outputs.get(i)))
            .collect(),
    )
}

/// Marks a proof as done if its last own stage is complete. No message follows from this, so it is decided as
/// soon as the result comes, even for a block that has ended, whose proof may have come in time.
/// Returns how its last stage ended.
pub(crate) fn finish(proof: &mut Proof, spec: &ProofSpec) -> Option<Over> {
    let (stage, (_, any)) = spec
        .stages
        .get(proof.position)
        .zip(proof.tasks.first_key_value())?;
    let is_last = matches!(
        spec.next(&stage.name),
        Some(NextStage::Proof | NextStage::Range(_))
    );
    if is_last && level_end(stage, any.of, proof.settled) >= any.of && is_level_complete(proof, stage) {
        let over = Over::of(proof);
        proof.finish();
        return over;
    }
    None
}

/// Returns the index of the first task in the level of `index`.
pub(crate) fn level_start(stage: &Stage, of: u32, index: u32) -> u32 {
    let mut start = 0;
    loop {
        let end = level_end(stage, of, start);
        if index < end || end >= of {
            return start;
        }
        start = end;
    }
}

/// Returns the index behind the last task of the level that begins at `start`. All tasks of a stage are one
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

/// Returns the widths of a tree's levels, given its `of` tasks in total. The width of the first level
/// determines the rest, and a wider first level means more tasks, so the width is found by bisection.
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
