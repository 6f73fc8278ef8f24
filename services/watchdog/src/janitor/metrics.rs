//! Metrics of the janitor.

use push0_runtime::metrics::{self, IntCounterVec, IntGaugeVec, MetricError};

/// Counts of removals, by kind.
pub(super) struct Metrics {
    pub(super) removed: IntCounterVec,
    /// How many messages of a participant were removed, by stream. A gauge, so that the first one shows in a rate.
    pub(super) flooding: IntGaugeVec,
}

impl Metrics {
    pub(super) fn register() -> Result<Self, MetricError> {
        let metrics = Self {
            removed: metrics::counter_vec(
                "room_removed_total",
                "Entries removed to make room, or after the time for which they are kept",
                &["what"],
            )?,
            flooding: metrics::gauge_vec(
                "participant_flooding",
                "Messages of a participant that were removed: orphaned ones, or blobs beyond its share",
                &["zkvm", "prover", "stream"],
            )?,
        };
        for what in ["facts", "records", "blobs", "junk", "dead-letters"] {
            metrics.removed.with_label_values(&[what]);
        }
        Ok(metrics)
    }
}
