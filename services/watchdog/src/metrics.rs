//! What the watchdog counts.

use prometheus::{IntCounterVec, IntGauge};
use push0_runtime::metrics::{self, MetricError};

/// The watchdog's metrics.
pub(crate) struct Metrics {
    pub(crate) leading: IntGauge,
    pub(crate) alive: IntGauge,
    pub(crate) quarantined: IntGauge,
    pub(crate) acts: IntCounterVec,
}

impl Metrics {
    pub(crate) fn register() -> Result<Self, MetricError> {
        Ok(Self {
            leading: metrics::gauge("watchdog_leading", "1 if this instance is the active one")?,
            alive: metrics::gauge("processes_alive", "Provers and verifiers heard of lately")?,
            quarantined: metrics::gauge("provers_quarantined", "Provers that get no work for a while")?,
            acts: metrics::counter_vec("watchdog_acts_total", "What the watchdog did", &["act"])?,
        })
    }
}
