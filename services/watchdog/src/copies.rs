//! Level of each stream and state of its copies, as metrics. Brokers report their own messages, but not each other's copies.

use push0_bus::{Bus, Standing};
use push0_runtime::metrics::{self, IntGaugeVec, MetricError};
use std::{convert::Infallible, time::Duration};

/// How often the brokers are asked. An alert waits for a minute, and one round is fourteen requests.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// The metrics, with streams and brokers as labels.
pub(crate) struct Copies {
    leading: IntGaugeVec,
    current: IntGaugeVec,
    bytes: IntGaugeVec,
    bytes_max: IntGaugeVec,
}

impl Copies {
    pub(crate) fn register() -> Result<Self, MetricError> {
        Ok(Self {
            leading: metrics::gauge_vec(
                "stream_has_leader",
                "1 if a copy of the stream leads, without which no message can be stored",
                &["stream"],
            )?,
            current: metrics::gauge_vec(
                "stream_copy_current",
                "1 if the broker's copy of the stream is present and complete",
                &["stream", "broker"],
            )?,
            bytes: metrics::gauge_vec("stream_bytes", "Bytes that the stream holds", &["stream"])?,
            bytes_max: metrics::gauge_vec(
                "stream_bytes_max",
                "Most bytes that the stream may hold",
                &["stream"],
            )?,
        })
    }

    /// Asks the brokers forever. Every instance does so, because a standby's metrics help when
    /// the leader hangs.
    pub(crate) async fn watch(&self, bus: &Bus) -> Infallible {
        let mut next = tokio::time::interval(LOOK_EVERY);
        next.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            next.tick().await;
            bus.connected().await;
            for (stream, standing) in bus.standings().await {
                self.show(&stream, standing.ok().as_ref());
            }
        }
    }

    /// Shows the state of a stream. `None` means that no copy leads, or that too few brokers are
    /// there to tell.
    fn show(&self, stream: &str, standing: Option<&Standing>) {
        let has_leader = standing.is_some_and(|s| s.leader.is_some() || s.copies.is_empty());
        self.leading
            .with_label_values(&[stream])
            .set(i64::from(has_leader));
        if let Some(standing) = standing {
            let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
            let (bytes, bytes_max) = (standing.level.bytes, standing.level.bytes_max);
            self.bytes.with_label_values(&[stream]).set(gauge(bytes));
            self.bytes_max.with_label_values(&[stream]).set(gauge(bytes_max));
        }
        for copy in standing.map_or(&[][..], |standing| &standing.copies) {
            self.current
                .with_label_values(&[stream, copy.broker.as_str()])
                .set(i64::from(copy.is_complete()));
        }
    }
}
