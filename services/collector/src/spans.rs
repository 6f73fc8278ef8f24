//! The spans that the decisions of a collector end, and those of tasks and stages among them.

use crate::{bodies::Bodies, state::Proof, task::Done};
use push0_domain::{
    StageKey, TaskId, Timestamp,
    trace::{Branch, Span, StageTold, TraceContext, close, stage, task},
};
use std::collections::VecDeque;

/// Spans to send, and spans that end when a record is stored.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    over: Vec<Span>,
    /// Those of each decided record, in the order of decision.
    decided: VecDeque<Vec<Span>>,
}

impl Spans {
    pub(crate) fn add(&mut self, spans: impl IntoIterator<Item = Span>) {
        self.over.extend(spans);
    }

    /// Notes the decision of a record.
    pub(crate) fn decided(&mut self, spans: Vec<Span>) {
        self.decided.push_back(spans);
    }

    /// Handles `count` more stored records.
    pub(crate) fn stored(&mut self, count: usize, at: Timestamp) {
        let stored = self.decided.drain(..count.min(self.decided.len()));
        self.over.extend(stored.flat_map(|spans| close(spans, at)));
    }

    /// Takes the spans that are over.
    pub(crate) fn take(&mut self) -> Vec<Span> {
        std::mem::take(&mut self.over)
    }
}

/// The tasks of a stage, or of a level of a tree, that are all done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Over {
    pub(crate) first_done: Timestamp,
    /// The task that was done last.
    pub(crate) last: Done,
    pub(crate) of: u32,
}

impl Over {
    pub(crate) fn of(proof: &Proof) -> Option<Self> {
        let done = || proof.tasks.values().filter_map(|task| task.done);
        Some(Self {
            first_done: done().map(|done| done.stored_at).min()?,
            last: done().max_by_key(|done| done.stored_at)?,
            of: proof.tasks.values().next()?.of,
        })
    }
}

/// Returns the span of a task that is done.
pub(crate) fn of_task(context: &TraceContext, id: &TaskId, end: Timestamp) -> Option<Span> {
    let trace = context.trace()?;
    let branch = Branch {
        trace: &trace,
        stage: &id.stage,
    };
    Some(task(&branch, id.index, end, None))
}

/// Returns the spans of a stage that is done. Its last result is in memory.
pub(crate) fn of_stage(key: &StageKey, over: &Over, bodies: &Bodies) -> Vec<Span> {
    let last = bodies.completed(over.last.handle);
    let Some(trace) = last.and_then(|done| done.trace.trace()) else {
        return Vec::new();
    };
    let branch = Branch {
        trace: &trace,
        stage: key,
    };
    let told = StageTold {
        first_done: over.first_done,
        end: over.last.stored_at,
        tasks: over.of,
        failure: None,
    };
    stage(&branch, &told)
}
