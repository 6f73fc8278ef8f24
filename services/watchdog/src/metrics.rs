//! Metrics of the watchdog.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use push0_runtime::metrics::{self, MetricError};

/// The watchdog's metrics, with the kind of action as label of `acts`.
pub(crate) struct Metrics {
    pub(crate) leading: IntGauge,
    pub(crate) alive: IntGauge,
    pub(crate) suspected: IntGauge,
    pub(crate) quarantined: IntGauge,
    pub(crate) acts: IntCounterVec,
    pub(crate) unverified: IntGaugeVec,
    pub(crate) refused: IntCounterVec,
    pub(crate) signals_dropped: IntCounter,
}

impl Metrics {
    pub(crate) fn register() -> Result<Self, MetricError> {
        Ok(Self {
            refused: metrics::counter_vec(
                "leases_refused_total",
                "Heartbeats, and deliveries in them, that changed nothing, by reason",
                &["reason"],
            )?,
            signals_dropped: metrics::counter(
                "signals_dropped_total",
                "Messages heard that were dropped unread, because they were too large or too many waited",
            )?,
            leading: metrics::gauge("watchdog_leading", "1 if this instance is the active one")?,
            alive: metrics::gauge("processes_alive", "Provers and verifiers alive")?,
            suspected: metrics::gauge(
                "processes_suspected",
                "Provers and verifiers that are silent and not known to be dead",
            )?,
            quarantined: metrics::gauge("provers_quarantined", "Provers in quarantine")?,
            acts: metrics::counter_vec("watchdog_acts_total", "Actions of the watchdog", &["act"])?,
            unverified: metrics::gauge_vec(
                "checks_unverified",
                "Finished proofs that no verifier could give a verdict on so far",
                &["zkvm", "obstacle"],
            )?,
        })
    }
}
