//! Metrics of the ingester, per pipeline.

use push0_runtime::metrics::{
    HistogramVec, IntCounterVec, IntGaugeVec, MetricError, counter_vec, gauge_vec, latency_vec,
};

/// Metrics of all pipelines; each is labelled with the pipeline's name.
#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// Number of blocks published, including repetitions after a restart.
    pub(crate) published: IntCounterVec,
    /// Number of blocks cancelled because the chain replaced them.
    pub(crate) cancelled: IntCounterVec,
    /// Time from the observation of a block until the broker stored the block.
    pub(crate) publish_seconds: HistogramVec,
    /// Number of the last published block.
    pub(crate) last_block: IntGaugeVec,
    /// Number of the source's newest block.
    pub(crate) head_block: IntGaugeVec,
    /// Failures of the source, by kind.
    pub(crate) source_failures: IntCounterVec,
    /// Connections opened to the pipeline's node.
    pub(crate) connections_opened: IntCounterVec,
    /// Writes to the broker that had to be repeated, by reason.
    pub(crate) store_retries: IntCounterVec,
    /// 1 while no blocks are taken in because a stream is nearly full.
    pub(crate) waits_for_room: IntGaugeVec,
}

impl Metrics {
    pub(crate) fn register() -> Result<Self, MetricError> {
        let by_pipeline = &["pipeline"];
        Ok(Self {
            published: counter_vec(
                "ingester_blocks_published_total",
                "Blocks published.",
                by_pipeline,
            )?,
            cancelled: counter_vec(
                "ingester_blocks_cancelled_total",
                "Blocks cancelled because the chain replaced them.",
                by_pipeline,
            )?,
            publish_seconds: latency_vec(
                "ingester_publish_seconds",
                "Time from the observation of a block until the broker stored it.",
                by_pipeline,
            )?,
            last_block: gauge_vec(
                "ingester_last_block",
                "Number of the last published block.",
                by_pipeline,
            )?,
            head_block: gauge_vec(
                "ingester_head_block",
                "Number of the newest block that the source has.",
                by_pipeline,
            )?,
            source_failures: counter_vec(
                "ingester_source_failures_total",
                "Failures of the source, by kind.",
                &["pipeline", "kind"],
            )?,
            connections_opened: counter_vec(
                "ingester_connections_opened_total",
                "Connections opened to the pipeline's node.",
                by_pipeline,
            )?,
            store_retries: counter_vec(
                "ingester_store_retries_total",
                "Writes to the broker that had to be repeated, by reason.",
                &["pipeline", "reason"],
            )?,
            waits_for_room: gauge_vec(
                "ingester_waits_for_room",
                "1 while no blocks are taken in because the broker is nearly full of blocks that are not emitted.",
                by_pipeline,
            )?,
        })
    }
}

/// Converts a block number to a gauge value, at most `i64::MAX`.
pub(crate) fn gauge_value(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
