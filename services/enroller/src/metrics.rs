//! Metrics of the enroller.

use prometheus::IntCounterVec;
use push0_runtime::metrics::{self, MetricError};

/// Answers to the broker, by outcome.
pub(crate) struct Metrics {
    pub(crate) answers: IntCounterVec,
}

impl Metrics {
    pub(crate) fn register() -> Result<Self, MetricError> {
        Ok(Self {
            answers: metrics::counter_vec(
                "enroller_answers_total",
                "Answers about clients that sign in",
                &["outcome"],
            )?,
        })
    }
}
