//! The gateway's metrics.

use crate::shared::Shared;
use prometheus::{IntCounter, IntGauge};
use push0_runtime::metrics::{self, MetricError};

pub(crate) struct Metrics {
    pub(crate) followers: IntGauge,
    pub(crate) blocks: IntGauge,
    pub(crate) block_bytes: IntGauge,
    pub(crate) messages: IntCounter,
    pub(crate) unreadable: IntCounter,
    pub(crate) refused: IntCounter,
}

impl Metrics {
    pub(crate) fn register() -> Result<Self, MetricError> {
        Ok(Self {
            followers: metrics::gauge("gateway_followers", "Clients that follow the stream of changes")?,
            blocks: metrics::gauge("gateway_blocks", "Blocks that the gateway holds")?,
            block_bytes: metrics::gauge("gateway_block_bytes", "Memory of the blocks, roughly")?,
            messages: metrics::counter(
                "gateway_messages_total",
                "Messages of the broker that the gateway heard",
            )?,
            unreadable: metrics::counter(
                "gateway_unreadable_total",
                "Messages that the gateway could not read",
            )?,
            refused: metrics::counter(
                "gateway_refused_total",
                "Messages whose sender may not say what they say",
            )?,
        })
    }
    /// Measures what the gateway holds.
    pub(crate) fn measure(&self, shared: &Shared) {
        let set = |gauge: &IntGauge, value: usize| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        let (blocks, bytes) = shared.with(|model| model.size());
        set(&self.followers, shared.followers());
        set(&self.blocks, blocks);
        set(&self.block_bytes, bytes);
    }
}
