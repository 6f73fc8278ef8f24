//! Finished spans on their way to the receiver of traces.
//!
//! `push0_domain::trace` makes spans of a process's facts. This module hands them over: no span is sent before it has
//! ended. Without a receiver, and while it is away, nothing is made and nothing is kept.

use push0_domain::trace::{Event, Span, Trace, TraceContext};
use push0_domain::{BlockRef, PipelineId, Timestamp};

use crate::telemetry::Sink;

/// Returns whether spans have a receiver that takes them now. Spans without a receiver need not be made.
pub fn is_on() -> bool {
    Sink::installed().is_some_and(Sink::takes)
}

/// Sends spans that have ended. Never waits: spans that find the queue full are dropped.
pub fn write(spans: impl IntoIterator<Item = Span>) {
    if let Some(sink) = Sink::installed() {
        spans.into_iter().for_each(|span| sink.write(span));
    }
}

/// Takes the log lines within the log's span of an attempt or a check, as events. Empty in a process that sends no traces.
pub fn take_lines(span: &tracing::Span) -> Vec<Event> {
    crate::telemetry::take_lines(span)
}

/// Begins the trace of a block, or continues the block's own. Returns `None` in a process that sends no
/// traces, unless the block's trace was begun by another one.
pub fn of_block(
    came: &TraceContext,
    pipeline: &PipelineId,
    block: &BlockRef,
    observed_at: Timestamp,
) -> Option<Trace> {
    if let Some(trace) = came.trace() {
        return Some(trace);
    }
    let sink = Sink::installed()?;
    let mut trace = came.of_block(pipeline, block, observed_at);
    let is_begun_here = came.traceparent.is_none();
    trace.is_sampled &= !is_begun_here || sink.keeps(&trace);
    Some(trace)
}
