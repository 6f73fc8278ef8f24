//! Metrics of an adapter process.

use prometheus::{HistogramVec, IntCounterVec};
use push0_domain::message::{Outcome, TaskResult};
use push0_runtime::metrics::{self, MetricError};
use std::time::Duration;

/// The adapter's metrics. Labels take few values, such as classes of failure, and never name a block.
#[derive(Clone)]
pub(crate) struct Metrics {
    attempts: IntCounterVec,
    verdicts: IntCounterVec,
    seconds: HistogramVec,
}

impl Metrics {
    pub(crate) fn register() -> Result<Self, MetricError> {
        Ok(Self {
            attempts: metrics::counter_vec("attempts_total", "Attempts by outcome", &["outcome"])?,
            verdicts: metrics::counter_vec("verdicts_total", "Verifications by verdict", &["verdict"])?,
            seconds: metrics::latency_vec(
                "prover_work_seconds",
                "Time in the prover or verifier",
                &["work"],
            )?,
        })
    }

    pub(crate) fn attempt(&self, result: &TaskResult, took: Duration) {
        let outcome = match &result.outcome {
            Outcome::Completed { .. } => "completed",
            Outcome::Failed(failure) => failure.class.as_str(),
        };
        self.attempts.with_label_values(&[outcome]).inc();
        self.seconds
            .with_label_values(&["prove"])
            .observe(took.as_secs_f64());
    }

    pub(crate) fn verdict(&self, valid: bool, took: Duration) {
        self.verdicts
            .with_label_values(&[if valid { "valid" } else { "invalid" }])
            .inc();
        self.seconds
            .with_label_values(&["verify"])
            .observe(took.as_secs_f64());
    }
}
