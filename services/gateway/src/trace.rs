//! The trace of a block, for links.

use push0_domain::trace::TraceContext;

/// Returns the trace id in a message's trace context.
pub(crate) fn trace_id(trace: &TraceContext) -> Option<&str> {
    trace.traceparent.as_deref()?.split('-').nth(1)
}
