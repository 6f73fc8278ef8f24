//! One task: its attempts so far, and whether it is done, may be tried again, or is dead.
//!
//! | state | a completed attempt | a failed attempt |
//! |---|---|---|
//! | open | done | noted; tried again, or dead when its budget is used up or the failure is final |
//! | done | ignored | ignored |
//! | dead | ignored | ignored |
//!
//! A failure is noted once per attempt, however often it is reported, and by whoever reports it.

use crate::{judge::Came, state::Handle};
use push0_domain::{
    Payload, Payloads, ProverId, Timestamp,
    message::{AttemptRecord, Failure, FailureClass, TaskHeader, TaskResult},
    trace::TraceContext,
};
use std::collections::BTreeMap;

/// A task with at least one result.
#[derive(Debug)]
pub(crate) struct Task {
    header: TaskHeader,
    trace: TraceContext,
    /// What the next attempt reads.
    inputs: Option<Payloads>,
    failures: BTreeMap<u32, AttemptRecord>,
    /// The highest attempt that is known to have been asked for.
    asked: u32,
    /// Results that are not acknowledged while the task is open.
    pub(crate) handles: Vec<Handle>,
    pub(crate) done: Option<Done>,
}

/// A completed attempt that counts.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) outputs: Payloads,
    pub(crate) prover: ProverId,
    pub(crate) verifier: Option<ProverId>,
    pub(crate) prove_us: u64,
    pub(crate) verify_us: u64,
    pub(crate) busy_us: u64,
    pub(crate) attempt: u32,
    /// Counts completions of the stage: the last one is on the critical path.
    pub(crate) order: u64,
    /// When the broker had stored the result.
    pub(crate) stored_at: Timestamp,
    pub(crate) trace: TraceContext,
}

/// What a task needs next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// Nothing.
    Nothing,
    /// One more attempt.
    Attempt {
        /// Its number.
        number: u32,
        /// Who ended earlier ones badly.
        avoid: Vec<ProverId>,
        /// What it reads.
        inputs: Payloads,
    },
    /// It is dead.
    Burial,
}

impl Task {
    pub(crate) fn new(header: &TaskHeader, trace: &TraceContext) -> Self {
        Self {
            header: header.clone(),
            trace: trace.clone(),
            inputs: None,
            failures: BTreeMap::new(),
            asked: header.attempt,
            handles: Vec::new(),
            done: None,
        }
    }

    pub(crate) fn header(&self) -> &TaskHeader {
        &self.header
    }

    pub(crate) fn trace(&self) -> &TraceContext {
        &self.trace
    }

    /// Notes a completed attempt; the first one counts.
    pub(crate) fn complete(&mut self, result: TaskResult, outputs: Payloads, came: &Came<'_>) {
        if self.done.is_some() {
            return;
        }
        let verdict = result.verdict;
        self.done = Some(Done {
            outputs,
            prover: result.prover,
            verify_us: verdict.as_ref().map_or(0, |v| v.verify_us),
            verifier: verdict.map(|v| v.verifier),
            prove_us: result.prove_us,
            busy_us: result.header.busy_us,
            attempt: result.header.attempt,
            order: came.order,
            stored_at: came.stored_at,
            trace: came.trace.clone(),
        });
        self.failures.clear();
        self.inputs = None;
    }

    /// Notes a failed attempt.
    pub(crate) fn fail(&mut self, result: TaskResult, failure: Failure, now: Timestamp) {
        let attempt = result.header.attempt;
        self.asked = self.asked.max(attempt);
        if self.done.is_some() || self.failures.contains_key(&attempt) {
            return;
        }
        self.inputs = self.inputs.take().or(result.inputs);
        // A hedge and the attempt that it races are both on their way: the header of the later
        // attempt says which one that is.
        if attempt >= self.header.attempt {
            self.header = result.header;
        }
        let record = AttemptRecord {
            attempt,
            prover: result.prover,
            ended_at: now,
            prove_us: result.prove_us,
            failure,
        };
        self.failures.insert(attempt, record);
    }

    /// What is needed now. Asking twice gives the same answer until [`Self::asked`] is told.
    pub(crate) fn need(&self) -> Need {
        if self.done.is_some() || self.failures.is_empty() {
            return Need::Nothing;
        }
        let counted = self
            .failures
            .values()
            .filter(|r| r.failure.class != FailureClass::Stopped)
            .count();
        let hopeless = self
            .failures
            .values()
            .any(|r| r.failure.class == FailureClass::Fatal);
        // While the attempt that was asked for last is on its way, it may save the task.
        let is_on_its_way = !self.failures.contains_key(&self.asked);
        if hopeless || (counted >= self.header.attempts_max as usize && !is_on_its_way) {
            return Need::Burial;
        }
        if is_on_its_way {
            return Need::Nothing;
        }
        // The attempt that a failed hedge was racing still runs.
        if self
            .header
            .hedge_of
            .is_some_and(|primary| !self.failures.contains_key(&primary))
        {
            return Need::Nothing;
        }
        let Some(inputs) = self.inputs.clone() else {
            return Need::Burial;
        };
        let mut avoid: Vec<_> = self.failures.values().map(|r| r.prover.clone()).collect();
        avoid.dedup();
        Need::Attempt {
            number: self.asked + 1,
            avoid,
            inputs,
        }
    }

    /// Whether a hedge of the newest attempt may be on its way, under the next number.
    pub(crate) fn may_be_hedged(&self) -> bool {
        self.header.hedge_after_ms.is_some() && self.header.hedge_of.is_none()
    }

    /// The attempt of this number was asked for.
    pub(crate) fn ask(&mut self, number: u32) {
        self.asked = self.asked.max(number);
    }

    /// Whether an attempt ran out of memory.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        let mut classes = self.failures.values().map(|record| record.failure.class);
        classes.any(|class| class == FailureClass::OutOfMemory)
    }

    /// The ends of its attempts, oldest first.
    pub(crate) fn history(&self) -> Vec<AttemptRecord> {
        self.failures.values().cloned().collect()
    }

    /// What its attempts read, for whoever runs it again.
    pub(crate) fn inputs(&self) -> Payloads {
        self.inputs
            .clone()
            .unwrap_or_else(|| Payloads::one(Payload::empty()))
    }
}
