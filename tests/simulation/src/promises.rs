//! Checks of the promises, at every step and at the end. The checks share no logic with the services
//! that they judge.

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

/// An entry in the dispatcher's queue, as reconstructed from outside.
#[derive(Clone, Debug)]
struct Waiting {
    source: SourceId,
    zkvm: ZkvmId,
    ready: Ready,
    /// Time after which the entry cannot be ready by its deadline; `None` without a deadline.
    out_of_reach_at: Option<Timestamp>,
    next: u32,
    end: u32,
    /// Deadline, block, stages left, attempts (more first), age.
    rank: (u64, u64, usize, Reverse<u32>, u64),
}

/// Most second copies of a task in flight because its provers are silent.
const COPIES_MAX: usize = 2;
/// Number of failures that a letter holds at most.
const FAILURES_KEPT: usize = 16;

/// The onlooker: the state of all checks.
pub(crate) struct Promises {
    pub(crate) broken: Option<String>,
    lanes: Vec<Lane>,
    /// Per lane, the output as consumers see it: block and record by number.
    views: Vec<BTreeMap<u64, (BlockRef, Emission)>>,
    /// Parents of all announced blocks, by lane and block.
    parents: BTreeMap<(usize, BlockRef), BlockHash>,
    reorgs: Vec<Vec<Cancel>>,
    waiting: Vec<Waiting>,
    /// Source messages still held by the dispatcher's session.
    open: BTreeSet<SourceId>,
    age: u64,
    /// Cancels read by the dispatcher's session, with their sequence in BLOCKS.
    given_up: Vec<(Cancel, Announcement)>,
    attempts: BTreeMap<(TaskId, Announcement), BTreeSet<u32>>,
    failed: BTreeMap<(TaskId, Announcement), BTreeSet<u32>>,
    provers_that_completed: BTreeSet<ProverId>,
    /// Tasks with a valid completed attempt.
    completed: BTreeSet<(TaskId, Announcement)>,
    honest: BTreeSet<(AttemptId, ProverId, Vec<u64>)>,
    expected: BTreeMap<(usize, Vec<BlockRef>, usize), Written>,
    letters: BTreeSet<String>,
    /// Number of retries of a task by an operator.
    retried: BTreeMap<(TaskId, Announcement), usize>,
    /// Per lane, the highest number that was ever the next to emit.
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
            failed: BTreeMap::new(),
            provers_that_completed: BTreeSet::new(),
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

    /// Observes a stored message.
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
                    Outcome::Completed { .. } if valid => {
                        self.completed.insert(key);
                        self.provers_that_completed.insert(result.prover.clone());
                    }
                    _ => drop(self.failed.entry(key).or_default().insert(result.header.attempt)),
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

    /// Checks P6: a task dies of a final failure that two provers report or one reports again and again, of as many deaths as their budget, or of failures of its own:
    /// at least as many as its budget, one of them by a prover that completes other tasks. If a prover called one of them
    /// its surroundings', they are more than a letter holds.
    fn letter(&mut self, letter: &DeadLetter) {
        self.letters.insert(letter.id.clone());
        let Dead::Task { retry, history } = &letter.what else {
            return;
        };
        let lane = self.lane(&retry.stage.pipeline);
        let spec = self.lanes[lane].pipeline.proof(&retry.stage.proof_type);
        // A letter that asks for the whole range does not name the stage that died.
        let is_anew = retry.attempt == 1;
        let stages = spec.into_iter().flat_map(|spec| &spec.stages);
        let died = stages.filter(|stage| is_anew || stage.name == retry.stage.stage);
        let budgets = died.map(|stage| (stage.attempts, stage.deaths));
        let (budget, deaths_max) = budgets.min().unwrap_or((0, 0));
        let fatal: Vec<_> = history
            .iter()
            .filter(|r| r.failure.class == FailureClass::Fatal)
            .collect();
        let speakers: BTreeSet<_> = fatal.iter().map(|r| &r.prover).collect();
        let fatal = speakers.len() > 1 || fatal.len() >= (budget as usize).max(2);
        let deaths = history.iter().filter(|r| r.failure.class == FailureClass::Died);
        let (deaths, own) = (
            deaths.count(),
            history.iter().filter(|r| r.failure.class.is_evidence()),
        );
        let has_witness = own
            .clone()
            .any(|r| self.provers_that_completed.contains(&r.prover));
        let is_blamed = own.clone().any(|r| r.failure.class == FailureClass::Surroundings);
        let believed = !is_blamed || history.len() >= FAILURES_KEPT;
        let is_own = own.clone().count() >= budget as usize && has_witness && believed;
        if !fatal && deaths < deaths_max as usize && !is_own {
            let own = own.count();
            self.break_with(format_args!(
                "P6: {} died of {own} failures and {deaths} deaths, its budgets are {budget} and {deaths_max}",
                retry.stage
            ));
        }
    }

    /// Returns the blocks covered by a stage, in ascending order.
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

    /// Returns whether a completed attempt wrote the expected outputs.
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

    /// Notes the outputs of an honest attempt.
    pub(crate) fn honest(&mut self, attempt: AttemptId, prover: &ProverId, wrote: Vec<u64>) {
        self.honest.insert((attempt, prover.clone(), wrote));
    }

    /// Checks that the prover of a refused proof lied. An honest attempt with a refused proof was given
    /// the wrong inputs.
    pub(crate) fn refused(&mut self, result: &TaskResult) {
        let Outcome::Completed { outputs } = &result.outcome else {
            return;
        };
        let id = result.header.attempt_id();
        let wrote = proofs::numbers(outputs);
        if self.honest.contains(&(id.clone(), result.prover.clone(), wrote)) {
            self.break_with(format_args!(
                "{id} was honest and its proof is refused: the attempt was given wrong inputs"
            ));
        }
    }

    /// Checks P6: each attempt at an unfinished task has a cause. An attempt is the first, follows a failed
    /// one or an operator's retry, or is a hedge: one of the newest attempt, one of an attempt that moved
    /// to provers with more memory, and two copies of attempts whose provers are silent.
    pub(crate) fn starts(&mut self, header: &TaskHeader) {
        let key = (header.id.clone(), header.context.announcement);
        // A crash may lose the knowledge of a completed task, so such a task may run again.
        if self.completed.contains(&key) {
            return;
        }
        let attempts = self.attempts.entry(key.clone()).or_default();
        attempts.insert(header.attempt);
        let failed = self.failed.get(&key).map_or(0, BTreeSet::len);
        let retried = self.retried.get(&key).copied().unwrap_or_default();
        let count = attempts.len();
        let lane = &self.lanes[self.lane(&header.id.stage.pipeline)];
        let stage = lane.pipeline.proof(&header.id.stage.proof_type);
        let stage = stage.and_then(|proof| proof.stage(&header.id.stage.stage));
        let moves =
            stage.is_some_and(|(_, stage)| stage.hedge_after.is_some() && stage.more_memory.is_some());
        let hedges = 1 + usize::from(moves) + COPIES_MAX;
        let max = 1 + hedges + failed + retried * (1 + hedges);
        if count > max {
            self.break_with(format_args!("P6: attempt {count} of {max} at {}", header.id));
        }
    }

    /// Checks P1: returns whether the output equals the chain.
    pub(crate) fn is_emitted(&self, lane: usize, chain: &Chain) -> bool {
        let view = self.views[lane].values().map(|(block, _)| *block);
        chain.is_over() && view.eq(chain.canonical.iter().map(|link| link.block))
    }

    /// Returns whether the output of a pipeline has not reached this number.
    pub(crate) fn is_to_come(&self, pipeline: &PipelineId, number: u64) -> bool {
        let view = &self.views[self.lane(pipeline)];
        view.last_key_value().is_none_or(|(newest, _)| number > *newest)
    }
}
