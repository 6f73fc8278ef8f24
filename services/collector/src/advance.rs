//! What follows within one proof: another attempt, a dead letter, the next level of a tree, the next
//! stage, or the proof.

use crate::{
    decide::{Opening, Step},
    state::Proof,
    task::{Need, Task},
};
use push0_domain::{
    BlockRef, Payloads, PipelineId, ProofType, ProverId, Timestamp, ZkvmId,
    message::{AttemptRecord, Dead, DeadLetter, StageReady, TaskRange},
    pipeline::{NextStage, ProofSpec, Stage, tree_levels},
    task::{StageKey, TaskId},
};

/// Whose proof it is.
pub(crate) struct ProofKey {
    pub(crate) pipeline: PipelineId,
    /// The block; the last one of a range.
    pub(crate) block: BlockRef,
    /// The first block of a range.
    pub(crate) first: Option<BlockRef>,
    pub(crate) proof_type: ProofType,
}

/// All that follows from what is known of one proof.
///
/// Whether it is dead follows too: a late completion, or an operator's retry, brings it back.
pub(crate) fn advance(proof: &mut Proof, spec: &ProofSpec, key: &ProofKey, now: Timestamp) -> Vec<Step> {
    let failing = proof.failing.iter();
    let needs: Vec<(u32, Need)> = failing
        .filter_map(|index| Some((*index, proof.tasks.get(index)?.need())))
        .collect();
    let dead = needs.iter().find(|(_, need)| *need == Need::Burial);
    if let Some(task) = dead.and_then(|(index, _)| proof.tasks.get(index)) {
        return bury(task, spec, &mut proof.dead, now).into_iter().collect();
    }
    proof.dead = None;
    let mut steps = Vec::new();
    for (index, need) in needs {
        if let (
            Need::Attempt {
                number,
                avoid,
                inputs,
            },
            Some(task),
        ) = (need, proof.tasks.get_mut(&index))
        {
            // Where there is more memory it must not be taken for a copy of the hedge.
            let moves = *takers(task, spec) != task.header().zkvm;
            let number = number + u32::from(moves && task.may_be_hedged());
            task.ask(number);
            let opening = another(task, spec, number, avoid, inputs);
            steps.push(Step::Open(Box::new(opening), Vec::new()));
        }
    }
    if let Some(stage) = spec.stages.get(proof.position) {
        steps.extend(next_level_or_stage(proof, spec, stage, key));
    }
    steps
}

/// Writes the letter of a dead task, unless it is written already.
fn bury(task: &Task, spec: &ProofSpec, dead: &mut Option<(String, String)>, now: Timestamp) -> Option<Step> {
    let letter = letter(task, spec, now);
    let named = Some((letter.id.clone(), letter.reason.clone()));
    if *dead == named {
        return None;
    }
    *dead = named;
    Some(Step::Bury(Box::new(letter), task.trace().clone()))
}

/// The zkVM whose provers take a further attempt. Where one ran out of memory, those that have more.
fn takers<'a>(task: &'a Task, spec: &'a ProofSpec) -> &'a ZkvmId {
    let header = task.header();
    let stage = spec.stage(&header.id.stage.stage);
    let more_memory = stage.and_then(|(_, stage)| stage.more_memory.as_ref());
    more_memory
        .filter(|_| task.ran_out_of_memory())
        .unwrap_or(&header.zkvm)
}

fn another(task: &Task, spec: &ProofSpec, number: u32, avoid: Vec<ProverId>, inputs: Payloads) -> Opening {
    let header = task.header();
    let ready = StageReady {
        stage: header.id.stage.clone(),
        context: header.context.clone(),
        zkvm: takers(task, spec).clone(),
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
        trace: task.trace().clone(),
    }
}

fn letter(task: &Task, spec: &ProofSpec, now: Timestamp) -> DeadLetter {
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
    let mut retry = another(task, spec, number, Vec::new(), task.inputs()).ready;
    // By the time an operator looks, the block's record is written.
    retry.context.amends = true;
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
    let context = any.header().context.clone();
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
    let inputs = outputs(proof);
    let (target, tasks) = match spec.next(&stage.name)? {
        _ if level_end < of => (stage, level(stage, of, level_end)),
        NextStage::Stage(next) => (next, level(next, next.task_count(inputs.count()), 0)),
        NextStage::Proof | NextStage::Range(_) => {
            proof.handles = proof.take_handles();
            proof.done = Some(last);
            return None;
        }
    };
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
        attempt: 1,
        hedge_of: None,
        avoid: Vec::new(),
        inputs,
        busy_us: last.busy_us,
    };
    let position = if tasks.first > 0 {
        proof.position
    } else {
        proof.position + 1
    };
    let mut handles = proof.move_to(position, tasks.first);
    if key.first.is_some() {
        // The last that tells of a range until the next result comes: without it, whoever starts over
        // would prove the range again.
        proof.handles = std::mem::take(&mut handles);
    }
    let trace = last.trace;
    Some(Step::Open(Box::new(Opening { ready, trace }), handles))
}

/// The level that begins at `first`, of a stage that has `of` tasks.
pub(crate) fn level(stage: &Stage, of: u32, first: u32) -> TaskRange {
    TaskRange {
        first,
        count: level_end(stage, of, first) - first,
        of,
    }
}

/// The outputs of the open level in order of index. What a split wrote is passed on as it lies.
fn outputs(proof: &Proof) -> Payloads {
    let mut done = proof
        .tasks
        .values()
        .filter_map(|t| t.done.as_ref())
        .map(|d| &d.outputs);
    if let (1, Some(only)) = (proof.tasks.len(), done.next()) {
        return only.clone();
    }
    let done = proof.tasks.values().filter_map(|t| t.done.as_ref());
    Payloads::List(
        done.flat_map(|d| (0..d.outputs.count()).filter_map(|i| d.outputs.get(i)))
            .collect(),
    )
}

/// Notes that the last stage of a block that has ended is done: its proof may have come in time.
pub(crate) fn finish(proof: &mut Proof, spec: &ProofSpec) {
    let is_last = proof.position + 1 == spec.stages.len();
    let Some((stage, (_, any))) = spec.stages.get(proof.position).zip(proof.tasks.first_key_value()) else {
        return;
    };
    let of = any.header().of;
    if is_last && level_end(stage, of, proof.settled) == of && proof.completed == of - proof.settled {
        let done = proof
            .tasks
            .values()
            .filter_map(|t| t.done.as_ref())
            .max_by_key(|d| d.order)
            .cloned();
        proof.handles = proof.take_handles();
        proof.done = done;
    }
}

/// The index of the first task of the level that `index` is on.
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
