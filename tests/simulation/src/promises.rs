//! What must hold at every step, and at the end. Nothing here shares code with what it judges.

mod records;
mod releases;

use crate::{
    broker::Body,
    chain::Chain,
    plan::Lane,
    proofs::{self, Written},
};
use push0_dispatcher::decide::{Ready, SourceId};
use push0_domain::{
    Announcement, BlockHash, BlockRef, PipelineId, ProverId, Timestamp, ZkvmId,
    message::{
        BlockEvent, Cancel, Dead, DeadLetter, Emission, EndReason, FailureClass, Outcome, TaskHeader,
        TaskResult,
    },
    task::{AttemptId, StageKey, TaskId},
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt::Arguments,
};

/// What waits in the dispatcher, as an onlooker has it.
#[derive(Clone, Debug)]
struct Waiting {
    source: SourceId,
    zkvm: ZkvmId,
    ready: Ready,
    /// When it cannot be ready in time any more.
    out_of_reach_at: Option<Timestamp>,
    next: u32,
    end: u32,
    /// Deadline, block, stages left, attempts (more first), age.
    rank: (u64, u64, usize, Reverse<u32>, u64),
}

/// The onlooker.
pub(crate) struct Promises {
    pub(crate) broken: Option<String>,
    lanes: Vec<Lane>,
    /// Per lane, the output as its consumers have it.
    views: Vec<BTreeMap<u64, (BlockRef, Emission)>>,
    /// The parents of all blocks that were announced.
    parents: BTreeMap<(usize, BlockRef), BlockHash>,
    reorgs: Vec<Vec<Cancel>>,
    waiting: Vec<Waiting>,
    /// The messages that its session has not let go of.
    open: BTreeSet<SourceId>,
    age: u64,
    /// What the dispatcher's session was told to give up.
    given_up: Vec<(Cancel, Announcement)>,
    attempts: BTreeMap<(TaskId, Announcement), BTreeSet<u32>>,
    stopped: BTreeMap<(TaskId, Announcement), BTreeSet<u32>>,
    /// Tasks that are done.
    completed: BTreeSet<(TaskId, Announcement)>,
    honest: BTreeSet<(AttemptId, ProverId, Vec<u64>)>,
    expected: BTreeMap<(usize, Vec<BlockRef>, usize), Written>,
    letters: BTreeSet<String>,
    /// How often an operator retried a task.
    retried: BTreeMap<(TaskId, Announcement), usize>,
    /// Per lane, the farthest number that was ever the next to emit.
    farthest: Vec<u64>,
    pub(crate) outcomes: [u64; 4],
    pub(crate) ranges: u64,
    pub(crate) rollbacks: u64,
    pub(crate) amended: u64,
}

impl Promises {
    pub(crate) fn new(lanes: &[Lane]) -> Self {
        Self {
            broken: None,
            lanes: lanes.to_vec(),
            views: vec![BTreeMap::new(); lanes.len()],
            parents: BTreeMap::new(),
            reorgs: vec![Vec::new(); lanes.len()],
            waiting: Vec::new(),
            open: BTreeSet::new(),
            age: 0,
            given_up: Vec::new(),
            attempts: BTreeMap::new(),
            stopped: BTreeMap::new(),
            completed: BTreeSet::new(),
            honest: BTreeSet::new(),
            expected: BTreeMap::new(),
            letters: BTreeSet::new(),
            retried: BTreeMap::new(),
            farthest: lanes.iter().map(|lane| lane.first).collect(),
            outcomes: [0; 4],
            ranges: 0,
            rollbacks: 0,
            amended: 0,
        }
    }

    pub(crate) fn break_with(&mut self, what: Arguments<'_>) {
        self.broken.get_or_insert(what.to_string());
    }

    fn lane(&self, pipeline: &PipelineId) -> usize {
        let found = self.lanes.iter().position(|lane| lane.pipeline.name == *pipeline);
        found.unwrap_or_default()
    }

    /// Sees what is stored.
    pub(crate) fn stored(&mut self, body: &Body) {
        match body {
            Body::Block(BlockEvent::Cancelled(cancel)) if cancel.reason == EndReason::Reorged => {
                let lane = self.lane(&cancel.pipeline);
                self.reorgs[lane].push(cancel.clone());
            }
            Body::Block(BlockEvent::Observed(block)) => {
                let lane = self.lane(&block.pipeline);
                self.parents.insert((lane, block.block), block.parent_hash);
            }
            Body::Result(result) | Body::Verdict(result) => {
                let key = (result.header.id.clone(), result.header.context.announcement);
                let valid = result
                    .verdict
                    .as_ref()
                    .is_none_or(|verdict| verdict.invalid.is_none());
                match &result.outcome {
                    Outcome::Completed { .. } if valid => drop(self.completed.insert(key)),
                    Outcome::Failed(failure) if failure.class == FailureClass::Stopped => {
                        self.stopped.entry(key).or_default().insert(result.header.attempt);
                    }
                    _ => {}
                }
            }
            Body::Stage(ready) if ready.context.amends && ready.tasks.count == 1 => {
                let key = (ready.stage.task(ready.tasks.first), ready.context.announcement);
                *self.retried.entry(key).or_default() += 1;
            }
            Body::Letter(letter) => self.letter(letter),
            Body::Records(lane, _, records) => {
                for record in records {
                    self.farthest[*lane] = self.farthest[*lane].max(record.next);
                    self.record(*lane, record);
                }
            }
            _ => {}
        }
    }

    /// P6: a task dies of failures that count, as many as its budget, or of a final one.
    fn letter(&mut self, letter: &DeadLetter) {
        self.letters.insert(letter.id.clone());
        let Dead::Task { retry, history } = &letter.what else {
            return;
        };
        let lane = self.lane(&retry.stage.pipeline);
        let spec = self.lanes[lane].pipeline.proof(&retry.stage.proof_type);
        let budget = spec
            .and_then(|spec| spec.stage(&retry.stage.stage))
            .map_or(0, |(_, s)| s.attempts);
        let counted = history
            .iter()
            .filter(|r| r.failure.class != FailureClass::Stopped)
            .count();
        let fatal = history.iter().any(|r| r.failure.class == FailureClass::Fatal);
        if !fatal && counted < budget as usize {
            self.break_with(format_args!(
                "P6: {} died of {counted} failures, its budget is {budget}",
                retry.stage
            ));
        }
    }

    /// The blocks that a stage is about.
    fn blocks_of(&self, lane: usize, stage: &StageKey) -> Vec<BlockRef> {
        let mut blocks = vec![stage.block];
        while let Some(block) = blocks
            .last()
            .filter(|block| block.number > *stage.numbers().start())
            && let Some(parent) = self.parents.get(&(lane, *block))
        {
            blocks.push(BlockRef {
                number: block.number - 1,
                hash: *parent,
            });
        }
        blocks.reverse();
        blocks
    }

    /// Whether a completed attempt wrote what it must.
    pub(crate) fn is_genuine(&mut self, result: &TaskResult) -> bool {
        let stage = &result.header.id.stage;
        let lane = self.lane(&stage.pipeline);
        let pipeline = self.lanes[lane].pipeline.clone();
        let Some(at) = pipeline
            .proofs
            .iter()
            .position(|p| p.proof_type == stage.proof_type)
        else {
            return false;
        };
        let Some((position, _)) = pipeline.proofs[at].stage(&stage.stage) else {
            return false;
        };
        let Outcome::Completed { outputs } = &result.outcome else {
            return false;
        };
        let blocks = self.blocks_of(lane, stage);
        let expected = self.expect(lane, &blocks, at);
        expected[position].get(result.header.id.index as usize) == Some(&proofs::numbers(outputs))
    }

    /// An attempt that did its work.
    pub(crate) fn honest(&mut self, attempt: AttemptId, prover: &ProverId, wrote: Vec<u64>) {
        self.honest.insert((attempt, prover.clone(), wrote));
    }

    /// A verifier found a proof to be false: then its prover must have lied. If it did not, it was
    /// given the wrong inputs.
    pub(crate) fn refused(&mut self, result: &TaskResult) {
        let Outcome::Completed { outputs } = &result.outcome else {
            return;
        };
        let id = result.header.attempt_id();
        let wrote = proofs::numbers(outputs);
        if self.honest.contains(&(id.clone(), result.prover.clone(), wrote)) {
            self.break_with(format_args!(
                "{id} was honest and is wrong: it read the wrong inputs"
            ));
        }
    }

    /// P6: an attempt begins at a task that is not done. Besides those that the task may spend there
    /// is a hedge, another one of the attempt that moved on to provers with more memory, and there are
    /// those that were told to stop.
    pub(crate) fn starts(&mut self, header: &TaskHeader) {
        let key = (header.id.clone(), header.context.announcement);
        // What a crash made forget may run again, although it is settled.
        if self.completed.contains(&key) {
            return;
        }
        let attempts = self.attempts.entry(key.clone()).or_default();
        attempts.insert(header.attempt);
        let stopped = self.stopped.get(&key).map_or(0, BTreeSet::len);
        let budgets = 1 + self.retried.get(&key).copied().unwrap_or_default();
        let count = attempts.len();
        let lane = &self.lanes[self.lane(&header.id.stage.pipeline)];
        let stage = lane.pipeline.proof(&header.id.stage.proof_type);
        let stage = stage.and_then(|proof| proof.stage(&header.id.stage.stage));
        let moves =
            stage.is_some_and(|(_, stage)| stage.hedge_after.is_some() && stage.more_memory.is_some());
        let hedges = 1 + usize::from(moves);
        let max = (header.attempts_max as usize + hedges) * budgets + stopped;
        if count > max {
            self.break_with(format_args!("P6: attempt {count} of {max} at {}", header.id));
        }
    }

    /// P1: whether the output is the chain.
    pub(crate) fn is_emitted(&self, lane: usize, chain: &Chain) -> bool {
        let view = self.views[lane].values().map(|(block, _)| *block);
        chain.is_over() && view.eq(chain.canonical.iter().map(|link| link.block))
    }

    /// Whether the output of a pipeline is not that far yet.
    pub(crate) fn is_to_come(&self, pipeline: &PipelineId, number: u64) -> bool {
        let view = &self.views[self.lane(pipeline)];
        view.last_key_value().is_none_or(|(newest, _)| number > *newest)
    }
}
