//! The gateway's metrics.

use prometheus::{IntCounter, IntGauge};
use push0_runtime::metrics::{self, MetricError};

pub(crate) struct Metrics {
    pub(crate) followers: IntGauge,
    pub(crate) messages: IntCounter,
    pub(crate) unreadable: IntCounter,
}

impl Metrics {
    pub(crate) fn register() -> Result<Self, MetricError> {
        Ok(Self {
            followers: metrics::gauge("gateway_followers", "Clients that follow the stream of changes")?,
            messages: metrics::counter(
                "gateway_messages_total",
                "Messages of the broker that the gateway heard",
            )?,
            unreadable: metrics::counter(
                "gateway_unreadable_total",
                "Messages that the gateway could not read",
            )?,
        })
    }
}
