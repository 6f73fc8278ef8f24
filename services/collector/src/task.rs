//! One task: its attempts so far, and whether it is open, done or dead.
//!
//! | state | on a completed attempt | on a failed attempt |
//! |---|---|---|
//! | open | done | the failure is recorded; retried after a pause, or dead when its budget is used up or the failure is final |
//! | done | ignored | ignored |
//! | dead | revived as done | the failure is recorded; stays dead |
//!
//! A failure is recorded once per attempt, however often and by which service it is reported. Only the task's
//! own failures use up its budget ([`crate::evidence`]); deaths of provers have a budget of their own. A prover that
//! calls a failure its surroundings' is believed, until it has been shown wrong [`BELIEVED`] times for at least
//! [`BELIEVED_FOR`].

use crate::intake::Handle;
use push0_domain::{
    Timestamp,
    message::{BlockContext, FailureClass, TaskHeader},
    pipeline::{ProofSpec, Stage},
};
use std::{sync::Arc, time::Duration};

/// Most failures kept of a task, and how many of them are the first ones. An outage of days would otherwise
/// fill RESULTS with failures of tasks that wait for its end.
const FAILURES_KEPT: usize = 16;
const FIRST_KEPT: usize = 4;
/// How many failures of its own a task may have beyond its budget once a prover called a failure its surroundings',
/// and how long it lives at least after that.
const BELIEVED: u32 = 24;
const BELIEVED_FOR: Duration = Duration::from_secs(60);
/// The same as long as one prover alone fails the task. A task lives for its stage's timeout at least, because the other
/// provers may be busy for so long.
const BELIEVED_ALONE: u32 = 48;
const BELIEVED_ALONE_FOR: Duration = Duration::from_secs(600);

/// A task with at least one result.
#[derive(Debug)]
pub(crate) struct Task {
    /// Context for the message of the next stage.
    pub(crate) context: Arc<BlockContext>,
    /// Number of tasks in the stage.
    pub(crate) of: u32,
    /// The newest failed attempt, or the first attempt that ended.
    attempt: u32,
    budget: Budget,
    /// Failures that are the task's own, by the evidence when it last failed.
    charges: u32,
    hedge_of: Option<u32>,
    /// The highest attempt number known to be asked for.
    asked: u32,
    /// Failed attempts, sorted by number: at most [`FAILURES_KEPT`], the first and the newest.
    failures: Vec<Failed>,
    tally: Tally,
    /// The attempts up to this number whose failures are not kept have failed.
    dropped_to: u32,
    /// Results held unacknowledged while the task is open.
    pub(crate) handles: Vec<Handle>,
    pub(crate) done: Option<Done>,
}

/// The failures a task may have before it is dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Budget {
    /// Failures of its own.
    attempts: u32,
    /// Attempts that died with their prover.
    deaths: u32,
    /// Whether every failure counts as the task's own: a range that is tried as two halves loses nothing.
    counts_all: bool,
    /// How long another prover may be busy.
    timeout: Duration,
}

impl Budget {
    /// Returns the budget of a task in this stage.
    pub(crate) fn of(header: &TaskHeader, stage: &Stage, spec: &ProofSpec) -> Self {
        let is_range = header.id.stage.block_key().blocks > 1;
        Self {
            attempts: stage.attempts,
            deaths: stage.deaths,
            timeout: stage.timeout,
            counts_all: is_range && spec.range().is_some_and(|range| range.split_on_failure),
        }
    }
}

/// Counts of all failed attempts of a task, those no longer kept included: a budget may be larger than
/// [`FAILURES_KEPT`].
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    all: usize,
    deaths: u32,
    fatal: u32,
    /// Failures of the kinds that are the task's own by the word of its prover.
    evidence: u32,
    /// The provers that said no attempt can succeed.
    fatal_by: Speakers,
    /// The provers of failures that may be the task's own.
    evidence_by: Speakers,
    /// When a prover first called a failure its surroundings', and when the task failed last.
    blamed_at: Option<Timestamp>,
    last_at: Timestamp,
    /// Failures that lengthen the pause, deaths not included.
    setbacks: u32,
}

/// Whether none, one or several provers said something.
#[derive(Clone, Copy, Debug, Default)]
struct Speakers {
    first: Option<u64>,
    are_several: bool,
}

impl Speakers {
    fn add(&mut self, prover: u64) {
        self.are_several |= self.first.is_some_and(|first| first != prover);
        self.first.get_or_insert(prover);
    }
}

impl Tally {
    /// Takes back a failure that says nothing of the task.
    fn remove(&mut self, class: FailureClass) {
        self.all -= 1;
        self.deaths -= u32::from(class == FailureClass::Died);
        self.setbacks -= u32::from(class == FailureClass::Surroundings);
    }

    fn add(&mut self, failed: &Failed) {
        use FailureClass::{Died, Fatal, Stopped};
        let class = failed.class;
        self.all += 1;
        self.deaths += u32::from(class == Died);
        self.evidence += u32::from(class.is_about_task());
        self.setbacks += u32::from(!matches!(class, Died | Stopped | Fatal));
        if class == Fatal {
            self.fatal += 1;
            self.fatal_by.add(failed.prover);
        }
        if class.is_evidence() {
            self.evidence_by.add(failed.prover);
        }
        if class == FailureClass::Surroundings {
            self.blamed_at.get_or_insert(failed.at);
        }
        self.last_at = self.last_at.max(failed.at);
    }

    /// Returns how many failures of its own a task may have beyond its budget; `None` for any number.
    fn believed(&self, timeout: Duration) -> Option<u32> {
        let Some(blamed_at) = self.blamed_at else {
            return Some(0);
        };
        let (more, long) = if self.evidence_by.are_several {
            (BELIEVED, BELIEVED_FOR)
        } else {
            (BELIEVED_ALONE, BELIEVED_ALONE_FOR.max(timeout))
        };
        (self.last_at.since(blamed_at) >= long).then_some(more)
    }
}

/// A completed attempt that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    /// The attempt's message. Of several, the highest came last and is on the critical path.
    pub(crate) handle: Handle,
    /// When the broker stored the message.
    pub(crate) stored_at: Timestamp,
}

/// A failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) attempt: u32,
    pub(crate) class: FailureClass,
    /// Tells the prover of the attempt from others.
    pub(crate) prover: u64,
    /// When the broker stored the message.
    pub(crate) at: Timestamp,
    /// How many failures of its own the task had with this one.
    pub(crate) charges: u32,
    /// Whether the message carries the inputs for a next attempt.
    pub(crate) has_inputs: bool,
    /// The message about the failure.
    pub(crate) handle: Handle,
}

/// The next action a task needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// No action, as the task is done or an attempt is in flight.
    Nothing,
    /// One more attempt, with this number.
    Attempt(u32),
    /// A dead letter, as the task is dead.
    Burial,
}

impl Task {
    pub(crate) fn new(header: &TaskHeader, budget: Budget, context: Arc<BlockContext>) -> Self {
        Self {
            context,
            of: header.of,
            attempt: header.attempt,
            budget,
            charges: 0,
            hedge_of: header.hedge_of,
            asked: header.attempt,
            failures: Vec::new(),
            tally: Tally::default(),
            dropped_to: 0,
            handles: Vec::new(),
            done: None,
        }
    }

    /// Keeps a message unacknowledged while the task is open.
    pub(crate) fn hold(&mut self, handle: Handle) {
        self.handles.reserve_exact(1);
        self.handles.push(handle);
    }

    /// Records a completed attempt. Only the first one counts.
    pub(crate) fn complete(&mut self, done: Done) {
        if self.done.is_none() {
            self.done = Some(done);
            self.failures = Vec::new();
        }
    }

    /// Records a failed attempt. Returns a message about an earlier failure that is no longer kept.
    pub(crate) fn fail(
        &mut self,
        header: &TaskHeader,
        context: Arc<BlockContext>,
        failed: Failed,
    ) -> Option<Handle> {
        self.charges = self.charges.max(failed.charges);
        self.asked = self.asked.max(failed.attempt);
        if self.has_failed(failed.attempt) || self.done.is_some() {
            return None;
        }
        // A hedge and the attempt it races are both in flight. The header of the later attempt
        // names the earlier.
        if failed.attempt >= self.attempt {
            *self = Self {
                asked: self.asked,
                charges: self.charges,
                failures: std::mem::take(&mut self.failures),
                tally: self.tally,
                dropped_to: self.dropped_to,
                handles: std::mem::take(&mut self.handles),
                ..Self::new(header, self.budget, context)
            };
        }
        let at = self
            .failures
            .partition_point(|other| other.attempt < failed.attempt);
        self.failures.reserve_exact(1);
        self.failures.insert(at, failed);
        self.tally.add(&failed);
        if self.failures.len() <= FAILURES_KEPT {
            return None;
        }
        let dropped = self.failures.remove(FIRST_KEPT);
        self.dropped_to = self.dropped_to.max(dropped.attempt);
        self.handles.retain(|handle| *handle != dropped.handle);
        Some(dropped.handle)
    }

    /// Handles another failure of a failed attempt. A failure that may be the task's own replaces one that
    /// says nothing of the task, such as the watchdog's word that the prover died: the evidence counts the former. Returns
    /// the settled message: the replaced one, or this one.
    pub(crate) fn fail_again(&mut self, failed: Failed) -> Handle {
        let mut recorded = self.failures.iter_mut();
        let recorded = recorded.find(|other| other.attempt == failed.attempt);
        let says_nothing = |class: FailureClass| !class.is_about_task() && class != FailureClass::Fatal;
        let Some(recorded) =
            recorded.filter(|other| says_nothing(other.class) && failed.class.is_about_task())
        else {
            return failed.handle;
        };
        self.charges = self.charges.max(failed.charges);
        self.tally.remove(recorded.class);
        self.tally.add(&failed);
        let replaced = std::mem::replace(recorded, failed);
        self.handles.retain(|handle| *handle != replaced.handle);
        self.hold(failed.handle);
        replaced.handle
    }

    /// Returns whether the failure of an attempt is recorded.
    pub(crate) fn has_failed(&self, attempt: u32) -> bool {
        let is_kept = self.failures.iter().any(|failed| failed.attempt == attempt);
        is_kept || attempt <= self.dropped_to
    }

    /// Returns the next action. The answer stays the same until [`Self::ask`] is called or a result comes.
    pub(crate) fn need(&self) -> Need {
        if self.done.is_some() || self.failures.is_empty() {
            return Need::Nothing;
        }
        let counted = self.tally.evidence + self.tally.deaths;
        let believed = self.tally.believed(self.budget.timeout);
        let is_spent = (self.budget.counts_all && counted >= self.budget.attempts)
            || believed.is_some_and(|more| self.charges >= self.budget.attempts.saturating_add(more))
            || self.tally.deaths >= self.budget.deaths;
        // While the last requested attempt is in flight, it may still save the task.
        let is_on_its_way = !self.has_failed(self.asked);
        if self.is_hopeless() || (is_spent && !is_on_its_way) {
            return Need::Burial;
        }
        if is_on_its_way {
            return Need::Nothing;
        }
        // The attempt raced by a failed hedge is still running.
        if self.hedge_of.is_some_and(|primary| !self.has_failed(primary)) {
            return Need::Nothing;
        }
        if !self.failures.iter().any(|failed| failed.has_inputs) {
            return Need::Burial;
        }
        Need::Attempt(self.asked + 1)
    }

    /// Returns whether no attempt can succeed, by the word of two provers, or of a single one that says so again and
    /// again. A first such word is one prover's, and may be a lie or a fault of its machine.
    fn is_hopeless(&self) -> bool {
        self.tally.fatal_by.are_several || self.tally.fatal >= self.budget.attempts.max(2)
    }

    /// Returns the number of failures that lengthen the pause before the next attempt. A first death calls for
    /// no pause: another prover takes the task at once. So does a word that no attempt can succeed.
    pub(crate) fn setbacks(&self) -> u32 {
        self.tally.setbacks + self.tally.deaths.saturating_sub(1)
    }

    /// Records the request for an attempt with this number.
    pub(crate) fn ask(&mut self, number: u32) {
        self.asked = self.asked.max(number);
    }

    /// Returns whether an attempt ran out of memory.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        let mut classes = self.failures.iter().map(|failed| failed.class);
        classes.any(|class| class == FailureClass::OutOfMemory)
    }

    /// Returns how many attempts failed.
    pub(crate) fn failed_times(&self) -> usize {
        self.tally.all
    }

    /// Returns the messages about the failed attempts.
    pub(crate) fn failed_in(&self) -> Vec<Handle> {
        self.failures.iter().map(|failed| failed.handle).collect()
    }
}
