//! The trace of a block: the context that travels with messages, and the spans made of the context.
//!
//! Ids of spans follow from the trace and the thing a span is about. So the process that knows the end of a thing writes
//! its span, whole and once, and the writer of a part knows the id of the parent without asking. docs/adr/0044
//! has the reasons.

mod attempt;
mod code;
mod context;
mod flow;
mod record;
mod span;
mod tree;

pub use attempt::{AttemptTold, CheckTold, attempt, check, under_prove};
pub use context::{Cause, Times, Trace, TraceContext};
pub use record::{Member, RecordTold, record};
pub use span::{Attributes, Event, Kind, Link, Span, SpanId, TraceId, UNENDED, Value, close};
pub use tree::{Branch, StageTold, publish, stage, task};

#[cfg(test)]
mod tests;
