//! The trace of a block, for links.

use push0_domain::trace::TraceContext;

/// Digits of a trace id.
const LEN: usize = 32;

/// Returns the trace id in a message's trace context.
pub(crate) fn trace_id(trace: &TraceContext) -> Option<&str> {
    let id = trace.traceparent.as_deref()?.split('-').nth(1)?;
    (id.len() == LEN && id.bytes().all(|byte| byte.is_ascii_hexdigit())).then_some(id)
}
