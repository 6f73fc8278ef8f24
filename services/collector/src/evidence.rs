//! Decides whether a failed attempt is the task's own fault, by the other results of its prover.
//!
//! A *run* is the failures of one prover at one stage between two of its successes there. A success closes the run if
//! its attempt began after the last failure: by then the prover and its surroundings work. A success at another stage
//! closes nothing, because each stage has its own dependencies. A run that no success closes charges no task: the
//! prover, or its surroundings, may be at fault.
//!
//! | closed run | charge |
//! |---|---|
//! | of one task | the task |
//! | of several tasks, or while its prover failed tasks of other stages too | each task, unless this is its first run: one outage fails many tasks |
//! | began before the last closed run of the task ended | none: the same outage on another prover |
//!
//! A task with a closed run that goes on to fail, while no task without one does, is charged again after [`ALONE_FOR`]:
//! no work may be left whose success could close a run. Without such a success, each further charge takes twice as long
//! as the one before, because the surroundings may have failed meanwhile: an outage of a day is worth 12 charges.
//!
//! The class of a failure plays no part here. The word `surroundings` is weighed when the charges are counted
//! ([`crate::task`]).
//!
//! The evidence is lost when the collector starts over. Tasks then live longer, and none dies by mistake.

use push0_domain::{AttemptId, BlockKey, ProofType, ProverId, StageName, TaskId, Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

/// How long a task with a closed run must go on to fail to be charged without a success of its prover, the first time.
pub(crate) const ALONE_FOR: Duration = Duration::from_secs(20);
/// Most failing tasks and runs kept. The ones that failed longest ago are forgotten, which spares their
/// tasks a charge.
const CASES_MAX: usize = 4096;
/// Most attempts of a task kept to notice a second report.
const ATTEMPTS_KEPT: usize = 32;
/// Most tasks kept of a run.
const RUN_MAX: usize = 256;

/// The failures of one pipeline that may be charged to their tasks.
#[derive(Debug, Default)]
pub(crate) struct Evidence {
    cases: BTreeMap<TaskId, Case>,
    runs: HashMap<Post, Run>,
    streaks: HashMap<ProverId, Streak>,
    /// The last failure of a task without a closed run.
    fresh_failed_at: Timestamp,
}

/// A task that failed and was not completed since.
#[derive(Debug, Default)]
struct Case {
    /// The newest attempts reported as failed. A failure may be reported twice.
    attempts: BTreeSet<u32>,
    charges: u32,
    /// When the task's last run was closed, or the task was last charged.
    closed_at: Option<Timestamp>,
    /// Charges since the last closed run.
    alone: u32,
    failed_at: Timestamp,
}

/// One prover at one stage of one proof.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Post {
    prover: ProverId,
    proof_type: ProofType,
    stage: StageName,
}

impl Post {
    fn of(prover: &ProverId, task: &TaskId) -> Self {
        Self {
            prover: prover.clone(),
            proof_type: task.stage.proof_type.clone(),
            stage: task.stage.stage.clone(),
        }
    }
}

/// The failures at one post since the last success there, by task, each with the first failure.
#[derive(Debug, Default)]
struct Run {
    tasks: BTreeMap<TaskId, Timestamp>,
    last_at: Timestamp,
    /// Whether the prover failed several tasks, of any stage, without a success between them.
    is_of_many: bool,
}

/// The failures of one prover since its last success at any stage.
#[derive(Debug)]
struct Streak {
    first: TaskId,
    is_of_many: bool,
    last_at: Timestamp,
}

impl Evidence {
    /// Handles a failed attempt. Returns how many failures of its own the task has.
    pub(crate) fn failed(&mut self, attempt: &AttemptId, prover: &ProverId, at: Timestamp) -> u32 {
        let task = &attempt.task;
        let case = self.cases.entry(task.clone()).or_default();
        if !case.attempts.insert(attempt.number) {
            return case.charges;
        }
        if case.attempts.len() > ATTEMPTS_KEPT {
            case.attempts.pop_first();
        }
        case.failed_at = at;
        match case.closed_at {
            None => self.fresh_failed_at = at,
            Some(closed_at)
                if self.fresh_failed_at <= closed_at && at.since(closed_at) >= case.alone_for() =>
            {
                case.charges += 1;
                case.alone += 1;
                case.closed_at = Some(at);
            }
            Some(_) => {}
        }
        let charges = case.charges;
        let run = self.runs.entry(Post::of(prover, task)).or_default();
        run.last_at = at;
        if run.tasks.len() < RUN_MAX || run.tasks.contains_key(task) {
            run.tasks.entry(task.clone()).or_insert(at);
        }
        self.lengthen_streak(prover, task, at);
        self.make_room();
        charges
    }

    /// Marks the runs of a prover as of many tasks, once it fails a second task without a success in between.
    fn lengthen_streak(&mut self, prover: &ProverId, task: &TaskId, at: Timestamp) {
        let streak = self.streaks.entry(prover.clone()).or_insert_with(|| Streak {
            first: task.clone(),
            is_of_many: false,
            last_at: at,
        });
        streak.last_at = at;
        streak.is_of_many |= streak.first != *task;
        if streak.is_of_many {
            let own = self.runs.iter_mut().filter(|(post, _)| post.prover == *prover);
            own.for_each(|(_, run)| run.is_of_many = true);
        }
    }

    /// Forgets the failures of the tasks of a block or range.
    pub(crate) fn forget(&mut self, block: BlockKey) {
        self.cases.retain(|task, _| task.stage.block_key() != block);
    }

    /// Handles a completed attempt that began at `began_at` and counts.
    pub(crate) fn completed(&mut self, task: &TaskId, prover: &ProverId, began_at: Timestamp, at: Timestamp) {
        self.cases.remove(task);
        // An attempt that began before the last failure says nothing of the time after.
        if self
            .streaks
            .get(prover)
            .is_some_and(|streak| began_at >= streak.last_at)
        {
            self.streaks.remove(prover);
        }
        let post = Post::of(prover, task);
        let Some(run) = self.runs.remove(&post) else {
            return;
        };
        if began_at < run.last_at {
            self.runs.insert(post, run);
            return;
        }
        let is_of_many = run.is_of_many;
        for (failed, first_at) in run.tasks {
            if let Some(case) = self.cases.get_mut(&failed) {
                case.close(is_of_many, first_at, at);
            }
        }
    }

    fn make_room(&mut self) {
        while self.cases.len() > CASES_MAX {
            let oldest = self.cases.iter().min_by_key(|(_, case)| case.failed_at);
            let Some(oldest) = oldest.map(|(task, _)| task.clone()) else {
                return;
            };
            self.cases.remove(&oldest);
        }
        while self.runs.len() > CASES_MAX {
            let oldest = self.runs.iter().min_by_key(|(_, run)| run.last_at);
            let Some(oldest) = oldest.map(|(post, _)| post.clone()) else {
                return;
            };
            self.runs.remove(&oldest);
        }
        if self.streaks.len() > CASES_MAX {
            self.streaks.clear();
        }
    }
}

impl Case {
    /// Closes a run in which the task first failed at `first_at`.
    fn close(&mut self, is_of_many: bool, first_at: Timestamp, at: Timestamp) {
        match self.closed_at {
            Some(closed_at) if first_at <= closed_at => return,
            None if is_of_many => {}
            _ => self.charges += 1,
        }
        self.alone = 0;
        self.closed_at = Some(at);
    }

    /// Returns how long the task must go on to fail to be charged without a success of its prover.
    fn alone_for(&self) -> Duration {
        ALONE_FOR.saturating_mul(2_u32.saturating_pow(self.alone))
    }
}

#[cfg(test)]
mod tests;
