//! Metrics of the watchdog.

use prometheus::{IntCounterVec, IntGauge};
use push0_runtime::metrics::{self, MetricError};

/// The watchdog's metrics, with the kind of action as label of `acts`.
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
            alive: metrics::gauge("processes_alive", "Provers and verifiers alive")?,
            quarantined: metrics::gauge("provers_quarantined", "Provers in quarantine")?,
            acts: metrics::counter_vec("watchdog_acts_total", "Actions of the watchdog", &["act"])?,
        })
    }
}
