//! How a trace goes on from one message to the next.

use super::{
    code::{decode, encode, traceparent},
    context::{Cause, Times, Trace, TraceContext},
    span::{SpanId, TraceId},
};
use crate::{BlockRef, PipelineId, Timestamp};

impl Trace {
    /// Begins the trace of a block. The same block, observed at the same time, has the same trace, also if two services begin it.
    pub fn begin(pipeline: &PipelineId, block: &BlockRef, observed_at: Timestamp) -> Self {
        let what = format!("{pipeline} {} {} {}", block.number, block.hash, observed_at.0);
        let id = TraceId::derived("trace", &what);
        Self::new(id, observed_at)
    }

    fn new(id: TraceId, from: Timestamp) -> Self {
        Self {
            id,
            root: id.span("root", ""),
            is_sampled: true,
            times: Times::all(from),
            parent: None,
            retries: None,
            others: String::new(),
        }
    }

    /// Begins the spans of a block in a trace that was begun elsewhere.
    fn within(mut self, pipeline: &PipelineId, block: &BlockRef, observed_at: Timestamp) -> Self {
        let what = format!("{pipeline} {} {} {}", block.number, block.hash, observed_at.0);
        self.parent = Some(self.root);
        self.root = self.id.span("root", &what);
        self.times = Times::all(observed_at);
        self
    }

    /// Returns the trace of a range, which is one of its own: a span has one parent, and a range has many blocks. `self` is
    /// the trace of the range's last block.
    #[must_use]
    pub fn of_range(&self, first: &BlockRef, last: &BlockRef, from: Timestamp, closed_at: Timestamp) -> Self {
        let what = format!("{} {} {first} {last}", self.id, self.root);
        let range = Self::new(TraceId::derived("range", &what), from);
        Self {
            is_sampled: self.is_sampled,
            others: self.others.clone(),
            ..range
        }
        .since(closed_at)
        .begun(closed_at)
    }

    /// Lets the proofs begin at `at`, behind the earlier spans.
    #[must_use]
    pub fn begun(mut self, at: Timestamp) -> Self {
        let Times {
            observed_at, cause, ..
        } = self.times;
        self.times = Times {
            observed_at,
            cause,
            ..Times::all(at)
        };
        self
    }

    /// Begins a retry of work that has its record: a second root, which points to the first.
    #[must_use]
    pub fn again(mut self, at: Timestamp) -> Self {
        self.retries = Some(self.root);
        self.parent = None;
        self.root = self.id.span("retry", &format!("{} {}", self.root, at.0));
        self.times = Times::all(at);
        self
    }

    /// Goes on to a stage that is ready since `at`.
    #[must_use]
    pub fn next_stage(mut self, at: Timestamp) -> Self {
        self.times.stage_from = at;
        self.next_level(at)
    }

    /// Goes on to a level of a tree that is ready since `at`.
    #[must_use]
    pub fn next_level(mut self, at: Timestamp) -> Self {
        self.times.task_from = at;
        self.times.cause = Cause::Ready;
        self.since(at)
    }

    /// Asks for another attempt at `at`.
    #[must_use]
    pub fn next_attempt(mut self, cause: Cause, at: Timestamp) -> Self {
        self.times.cause = cause;
        self.since(at)
    }

    /// Tells everything up to `at`.
    #[must_use]
    pub fn since(mut self, at: Timestamp) -> Self {
        self.times.since = at;
        self
    }

    /// Returns the context for messages.
    pub fn context(&self) -> TraceContext {
        encode(self)
    }

    /// Returns the context that makes spans of other programs children of the span `id`.
    pub fn context_under(&self, id: SpanId) -> TraceContext {
        TraceContext {
            traceparent: Some(traceparent(self.id, id, self.is_sampled)),
            tracestate: Some(self.others.clone()).filter(|others| !others.is_empty()),
        }
    }
}

impl TraceContext {
    /// Returns the id of the trace, for log lines. Also of a trace that was begun elsewhere or whose spans are not wanted.
    pub fn id(&self) -> Option<TraceId> {
        decode(self).map(|(trace, _)| trace.id)
    }

    /// Reads the context of a message. `None` without a trace of push0's, and if no spans of it are wanted.
    pub fn trace(&self) -> Option<Trace> {
        let (trace, is_ours) = decode(self)?;
        (is_ours && trace.is_sampled).then_some(trace)
    }

    /// Returns the trace of a block with this context: the context's own, continued if begun elsewhere, or a
    /// new one.
    pub fn of_block(&self, pipeline: &PipelineId, block: &BlockRef, observed_at: Timestamp) -> Trace {
        match decode(self) {
            Some((trace, true)) => trace,
            Some((foreign, false)) => foreign.within(pipeline, block, observed_at),
            None => Trace::begin(pipeline, block, observed_at),
        }
    }

    /// Returns the context with a change to its trace; unchanged without one.
    #[must_use]
    pub fn map(&self, change: impl FnOnce(Trace) -> Trace) -> Self {
        match decode(self) {
            Some((trace, true)) => change(trace).context(),
            _ => self.clone(),
        }
    }
}
