//! Metrics of the collector.

use prometheus::{HistogramVec, IntCounterVec, IntGaugeVec};
use push0_domain::{
    Timestamp,
    message::{Emission, EmissionOutcome},
};
use push0_runtime::metrics::{self, MetricError};
use std::time::Duration;

/// The collector's metrics. Labels are pipelines and outcomes, never blocks.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) leading: IntGaugeVec,
    pub(crate) pending: IntGaugeVec,
    pub(crate) next: IntGaugeVec,
    pub(crate) refused: IntCounterVec,
    emitted: IntCounterVec,
    seconds: HistogramVec,
    overhead: HistogramVec,
}

impl Metrics {
    pub(crate) fn register() -> Result<Self, MetricError> {
        Ok(Self {
            leading: metrics::gauge_vec(
                "collector_leading",
                "1 if this instance collects the pipeline",
                &["pipeline"],
            )?,
            pending: metrics::gauge_vec(
                "results_unacknowledged",
                "Results that wait for the next step",
                &["pipeline"],
            )?,
            next: metrics::gauge_vec("next_block", "The next block number to emit", &["pipeline"])?,
            refused: metrics::counter_vec(
                "reports_refused_total",
                "Reports of participants that changed nothing, by reason",
                &["pipeline", "reason"],
            )?,
            emitted: metrics::counter_vec(
                "blocks_emitted_total",
                "Records emitted",
                &["pipeline", "outcome"],
            )?,
            seconds: metrics::latency_vec(
                "block_seconds",
                "From a block's message stored to its record stored",
                &["pipeline"],
            )?,
            overhead: metrics::latency_vec(
                "overhead_seconds",
                "As block_seconds, without the time in provers and verifiers",
                &["pipeline"],
            )?,
        })
    }

    pub(crate) fn emitted(&self, emission: &Emission, now: Timestamp) {
        let pipeline = emission.pipeline.as_str();
        let outcome = match &emission.outcome {
            EmissionOutcome::Proved(_) => "proved",
            EmissionOutcome::Dead { .. } => "dead",
            EmissionOutcome::Abandoned(_) => "abandoned",
        };
        self.emitted.with_label_values(&[pipeline, outcome]).inc();
        self.next
            .with_label_values(&[pipeline])
            .set(i64::try_from(emission.next).unwrap_or(i64::MAX));
        let total = now.since(emission.stored_at);
        self.seconds
            .with_label_values(&[pipeline])
            .observe(total.as_secs_f64());
        let overhead = total.saturating_sub(Duration::from_micros(emission.busy_us));
        self.overhead
            .with_label_values(&[pipeline])
            .observe(overhead.as_secs_f64());
    }
}
