//! Metrics of an adapter process.

use prometheus::{HistogramVec, IntCounterVec, IntGauge};
use push0_domain::{
    message::{Obstacle, Outcome, TaskResult},
    report::Refusal,
};
use push0_runtime::metrics::{self, MetricError};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How often refused checks are logged at most.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// The adapter's metrics. Labels take few values, such as classes of failure, and never name a block.
#[derive(Clone)]
pub(crate) struct Metrics {
    attempts: IntCounterVec,
    verdicts: IntCounterVec,
    unverified: IntCounterVec,
    refused: IntCounterVec,
    /// When a refused check was last logged.
    logged: Arc<Mutex<Option<Instant>>>,
    seconds: HistogramVec,
    /// Results that the broker did not take yet, kept on this adapter's disk.
    pub(crate) spooled: IntGauge,
    /// Files in the spool that are of no use without an operator.
    pub(crate) aside: IntGauge,
}

impl Metrics {
    pub(crate) fn register() -> Result<Self, MetricError> {
        Ok(Self {
            attempts: metrics::counter_vec("attempts_total", "Attempts by outcome", &["outcome"])?,
            verdicts: metrics::counter_vec("verdicts_total", "Verifications by verdict", &["verdict"])?,
            unverified: metrics::counter_vec(
                "unverified_total",
                "Verifications without a verdict by obstacle",
                &["obstacle"],
            )?,
            refused: metrics::counter_vec(
                "checks_refused_total",
                "Checks that were taken away unverified, because their sender may not have written them, by reason",
                &["reason"],
            )?,
            logged: Arc::default(),
            spooled: metrics::gauge(
                "results_spooled",
                "Results on the adapter's disk that the broker did not take yet",
            )?,
            aside: metrics::gauge(
                "results_set_aside",
                "Files in the adapter's spool that are unreadable, or that the broker refuses",
            )?,
            seconds: metrics::latency_vec(
                "prover_work_seconds",
                "Time in the prover or verifier, and in the transfer of inputs and outputs",
                &["work"],
            )?,
        })
    }

    pub(crate) fn unverified(&self, obstacle: Obstacle) {
        self.unverified.with_label_values(&[obstacle.as_str()]).inc();
    }

    /// Counts a refused check. Returns whether to log it: once a minute.
    pub(crate) fn refused(&self, refusal: Refusal) -> bool {
        self.refused.with_label_values(&[refusal.as_str()]).inc();
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = logged.is_none_or(|at| at.elapsed() >= LOG_EVERY);
        if is_due {
            *logged = Some(Instant::now());
        }
        is_due
    }

    /// Counts the end of an attempt. Of the time that it took, only proving is observed.
    pub(crate) fn attempt(&self, result: &TaskResult) {
        let outcome = match &result.outcome {
            Outcome::Completed { .. } => "completed",
            Outcome::Failed(failure) => failure.class.as_str(),
        };
        self.attempts.with_label_values(&[outcome]).inc();
        self.seconds
            .with_label_values(&["prove"])
            .observe(Duration::from_micros(result.prove_us).as_secs_f64());
        self.seconds
            .with_label_values(&["transfer"])
            .observe(Duration::from_micros(result.transfer_us).as_secs_f64());
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
