//! One task: its attempts so far, and whether it is done, may be tried again, or is dead.
//!
//! | state | a completed attempt | a failed attempt |
//! |---|---|---|
//! | open | done | noted; tried again, or dead when its budget is used up or the failure is final |
//! | done | ignored | ignored |
//! | dead | ignored | ignored |
//!
//! A failure is noted once per attempt, however often it is reported, and by whoever reports it.

use crate::state::{Done, Handle};
use push0_domain::message::{BlockContext, FailureClass, TaskHeader};
use std::sync::Arc;

/// A task with at least one result.
#[derive(Debug)]
pub(crate) struct Task {
    /// What goes on to the next stage.
    pub(crate) context: Arc<BlockContext>,
    /// How many tasks its stage has.
    pub(crate) of: u32,
    /// The newest attempt that failed, or the first one that ended.
    attempt: u32,
    attempts_max: u32,
    hedge_of: Option<u32>,
    has_hedges: bool,
    /// The highest attempt that is known to have been asked for.
    asked: u32,
    /// By attempt.
    failures: Vec<Failed>,
    /// Results that are not acknowledged while the task is open.
    pub(crate) handles: Vec<Handle>,
    pub(crate) done: Option<Done>,
}

/// A failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failed {
    pub(crate) attempt: u32,
    pub(crate) class: FailureClass,
    /// Whether its message says what the next attempt reads.
    pub(crate) has_inputs: bool,
    /// Its message.
    pub(crate) handle: Handle,
}

/// What a task needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing.
    Nothing,
    /// One more attempt, of this number.
    Attempt(u32),
    /// It is dead.
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

    /// Notes a completed attempt; the first one counts.
    pub(crate) fn complete(&mut self, done: Done) {
        if self.done.is_none() {
            self.done = Some(done);
            self.failures = Vec::new();
        }
    }

    /// Notes a failed attempt.
    pub(crate) fn fail(&mut self, header: &TaskHeader, context: Arc<BlockContext>, failed: Failed) {
        self.asked = self.asked.max(failed.attempt);
        let Err(at) = self.failures.binary_search_by_key(&failed.attempt, |f| f.attempt) else {
            return;
        };
        if self.done.is_some() {
            return;
        }
        // A hedge and the attempt that it races are both on their way: the header of the later
        // attempt says which one that is.
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

    /// What is needed now. Asking twice gives the same answer until [`Self::ask`] is told.
    pub(crate) fn need(&self) -> Need {
        if self.done.is_some() || self.failures.is_empty() {
            return Need::Nothing;
        }
        let mut classes = self.failures.iter().map(|failed| failed.class);
        let hopeless = classes.any(|class| class == FailureClass::Fatal);
        let classes = self.failures.iter().map(|failed| failed.class);
        let counted = classes.filter(|class| *class != FailureClass::Stopped).count();
        // While the attempt that was asked for last is on its way, it may save the task.
        let is_on_its_way = !self.has_failed(self.asked);
        if hopeless || (counted >= self.attempts_max as usize && !is_on_its_way) {
            return Need::Burial;
        }
        if is_on_its_way {
            return Need::Nothing;
        }
        // The attempt that a failed hedge was racing still runs.
        if self.hedge_of.is_some_and(|primary| !self.has_failed(primary)) {
            return Need::Nothing;
        }
        if !self.failures.iter().any(|failed| failed.has_inputs) {
            return Need::Burial;
        }
        Need::Attempt(self.asked + 1)
    }

    /// Whether a hedge of the newest attempt may be on its way, under the next number.
    pub(crate) fn may_be_hedged(&self) -> bool {
        self.has_hedges && self.hedge_of.is_none()
    }

    /// The attempt of this number was asked for.
    pub(crate) fn ask(&mut self, number: u32) {
        self.asked = self.asked.max(number);
    }

    /// Whether an attempt ran out of memory.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        let mut classes = self.failures.iter().map(|failed| failed.class);
        classes.any(|class| class == FailureClass::OutOfMemory)
    }

    /// The failed attempts, oldest first.
    pub(crate) fn failures(&self) -> &[Failed] {
        &self.failures
    }

    /// The messages about its failed attempts.
    pub(crate) fn failed_in(&self) -> Vec<Handle> {
        self.failures.iter().map(|failed| failed.handle).collect()
    }
}
