//! One task: its attempts so far, and whether it is open, done or dead.
//!
//! | state | on a completed attempt | on a failed attempt |
//! |---|---|---|
//! | open | done | the failure is recorded; retried, or dead when its budget is used up or the failure is final |
//! | done | ignored | ignored |
//! | dead | revived as done | the failure is recorded; stays dead |
//!
//! A failure is recorded once per attempt, however often and by which service it is reported.

use crate::intake::Handle;
use push0_domain::{
    Timestamp,
    message::{BlockContext, FailureClass, TaskHeader},
};
use std::sync::Arc;

/// A task with at least one result.
#[derive(Debug)]
pub(crate) struct Task {
    /// Context for the message of the next stage.
    pub(crate) context: Arc<BlockContext>,
    /// Number of tasks in the stage.
    pub(crate) of: u32,
    /// The newest failed attempt, or the first attempt that ended.
    attempt: u32,
    attempts_max: u32,
    hedge_of: Option<u32>,
    has_hedges: bool,
    /// The highest attempt number known to be asked for.
    asked: u32,
    /// Failed attempts, sorted by number.
    failures: Vec<Failed>,
    /// Results held unacknowledged while the task is open.
    pub(crate) handles: Vec<Handle>,
    pub(crate) done: Option<Done>,
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
    pub(crate) fn new(header: &TaskHeader, context: Arc<BlockContext>) -> Self {
        Self {
            context,
            of: header.of,
            attempt: header.attempt,
            attempts_max: header.attempts_max,
            hedge_of: header.hedge_of,
            has_hedges: header.hedge_after_ms.is_some(),
            asked: header.attempt,
            failures: Vec::new(),
            handles: Vec::new(),
            done: None,
        }
    }

    /// Records a completed attempt. Only the first one counts.
    pub(crate) fn complete(&mut self, done: Done) {
        if self.done.is_none() {
            self.done = Some(done);
            self.failures = Vec::new();
        }
    }

    /// Records a failed attempt.
    pub(crate) fn fail(&mut self, header: &TaskHeader, context: Arc<BlockContext>, failed: Failed) {
        self.asked = self.asked.max(failed.attempt);
        let Err(at) = self.failures.binary_search_by_key(&failed.attempt, |f| f.attempt) else {
            return;
        };
        if self.done.is_some() {
            return;
        }
        // A hedge and the attempt it races are both in flight. The header of the later attempt
        // names the earlier.
        if failed.attempt >= self.attempt {
            *self = Self {
                asked: self.asked,
                failures: std::mem::take(&mut self.failures),
                handles: std::mem::take(&mut self.handles),
                ..Self::new(header, context)
            };
        }
        self.failures.reserve_exact(1);
        self.failures.insert(at, failed);
    }

    fn has_failed(&self, attempt: u32) -> bool {
        self.failures.iter().any(|failed| failed.attempt == attempt)
    }

    /// Returns the next action. The answer stays the same until [`Self::ask`] is called or a result comes.
    pub(crate) fn need(&self) -> Need {
        if self.done.is_some() || self.failures.is_empty() {
            return Need::Nothing;
        }
        let mut classes = self.failures.iter().map(|failed| failed.class);
        let hopeless = classes.any(|class| class == FailureClass::Fatal);
        let classes = self.failures.iter().map(|failed| failed.class);
        let counted = classes.filter(|class| *class != FailureClass::Stopped).count();
        // While the last requested attempt is in flight, it may still save the task.
        let is_on_its_way = !self.has_failed(self.asked);
        if hopeless || (counted >= self.attempts_max as usize && !is_on_its_way) {
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

    /// Returns whether a hedge of the newest attempt may be in flight, under the next number.
    pub(crate) fn may_be_hedged(&self) -> bool {
        self.has_hedges && self.hedge_of.is_none()
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

    /// Returns the failed attempts, oldest first.
    pub(crate) fn failures(&self) -> &[Failed] {
        &self.failures
    }

    /// Returns the messages about the failed attempts.
    pub(crate) fn failed_in(&self) -> Vec<Handle> {
        self.failures.iter().map(|failed| failed.handle).collect()
    }
}
