//! The trace that a message belongs to, as W3C Trace Context writes it.

use serde::{Deserialize, Serialize};

/// The two headers of W3C Trace Context (<https://www.w3.org/TR/trace-context/>), unparsed.
///
/// It travels beside every message and inside leases, so that whoever acts for a dead prover can
/// go on with the block's trace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// `traceparent`; none when tracing is off.
    #[serde(default)]
    pub traceparent: Option<String>,
    /// `tracestate`.
    #[serde(default)]
    pub tracestate: Option<String>,
}
