//! Trace context of a message, in the form defined by W3C Trace Context.

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
    /// Value of the `tracestate` header; `None` when no vendor set one.
    #[serde(default)]
    pub tracestate: Option<String>,
}
