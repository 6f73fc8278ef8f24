//! The trace context of a message, as text and as read.

use super::span::{SpanId, TraceId};
use crate::Timestamp;
use serde::{Deserialize, Serialize};

/// The two headers of W3C Trace Context (<https://www.w3.org/TR/trace-context/>), unparsed.
///
/// The context travels in the headers of every message and inside leases, so that the watchdog can continue
/// a block's trace when it acts for a dead prover.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// Value of the `traceparent` header; `None` when tracing is off.
    #[serde(default)]
    pub traceparent: Option<String>,
    /// Value of the `tracestate` header; `None` when tracing is off. push0's entry tells the times of [`Times`].
    #[serde(default)]
    pub tracestate: Option<String>,
}

/// Why the next attempt at a task is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Cause {
    /// The task is ready.
    #[default]
    Ready,
    /// The attempt before it failed.
    Failure,
    /// The attempt before it is slow.
    Slow,
    /// The prover of the attempt before it is silent.
    Silence,
}

/// The facts of earlier spans that the next span needs. Times are those of the process that wrote them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Times {
    /// When the block was observed; of a range, when its first block was ready; of a retry, when it was asked for.
    pub observed_at: Timestamp,
    /// When the proofs began.
    pub proof_from: Timestamp,
    /// When the stage was ready.
    pub stage_from: Timestamp,
    /// When the task was ready: later than the stage in the upper levels of a tree.
    pub task_from: Timestamp,
    /// The end of the last told span: the next wait begins here.
    pub since: Timestamp,
    /// Why the attempt on its way was asked for.
    pub cause: Cause,
}

impl Times {
    /// Returns the times of work that begins at `at`.
    pub(super) fn all(at: Timestamp) -> Self {
        Self {
            observed_at: at,
            proof_from: at,
            stage_from: at,
            task_from: at,
            since: at,
            cause: Cause::Ready,
        }
    }
}

/// A trace context that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The trace.
    pub id: TraceId,
    /// The root span of the block, the range or the retry.
    pub root: SpanId,
    /// Whether spans are wanted.
    pub is_sampled: bool,
    /// The facts of earlier spans.
    pub times: Times,
    /// The span elsewhere that the root is a child of.
    pub parent: Option<SpanId>,
    /// The root whose work this one does again, in the same trace.
    pub retries: Option<SpanId>,
    /// Entries of other vendors in the `tracestate`.
    pub(super) others: String,
}
