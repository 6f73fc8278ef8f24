//! Metrics of the dispatcher.

use crate::{decide::Dispatcher, lanes::Lanes};
use prometheus::{IntCounter, IntGauge, IntGaugeVec};
use push0_bus::Place;
use push0_domain::PipelineId;
use push0_runtime::metrics::{self, MetricError};

/// The dispatcher's metrics. Labels are zkVMs and pipelines, never blocks.
pub(crate) struct Metrics {
    pub(crate) leading: IntGauge,
    pub(crate) released: IntCounter,
    pub(crate) ended: IntCounter,
    waiting: IntGaugeVec,
    provers: IntGaugeVec,
    outstanding: IntGaugeVec,
    parked: IntGaugeVec,
    held: IntGaugeVec,
    room: IntGaugeVec,
}

impl Metrics {
    pub(crate) fn register() -> Result<Self, MetricError> {
        Ok(Self {
            leading: metrics::gauge("dispatcher_leading", "1 if this instance is the active one")?,
            released: metrics::counter("tasks_released_total", "Attempts released to provers")?,
            ended: metrics::counter(
                "blocks_given_up_total",
                "Announced ends of blocks without a proof",
            )?,
            waiting: metrics::gauge_vec("stages_waiting", "Ready stages waiting for a prover", &["zkvm"])?,
            provers: metrics::gauge_vec("provers_alive", "Provers alive", &["zkvm"])?,
            outstanding: metrics::gauge_vec(
                "tasks_outstanding",
                "Released attempts not known to have ended",
                &["zkvm"],
            )?,
            parked: metrics::gauge_vec(
                "dispatch_waits_for_output",
                "1 while the next block to dispatch is too far ahead of the next one to emit",
                &["pipeline"],
            )?,
            held: metrics::gauge_vec(
                "queue_held",
                "1 while the attempts of a zkVM fail without a success and its queue is held",
                &["zkvm"],
            )?,
            room: metrics::gauge_vec(
                "dispatch_waits_for_room",
                "1 while releases stop or are few because the stream is nearly full",
                &["stream"],
            )?,
        })
    }

    /// Shows which queues are held.
    pub(crate) fn hold(&self, core: &Dispatcher) {
        self.held.reset();
        for (zkvm, _) in core.held() {
            self.held.with_label_values(&[zkvm.as_str()]).set(1);
        }
    }

    pub(crate) fn observe(&self, core: &Dispatcher, lanes: &Lanes) {
        for lane in lanes.iter() {
            self.parked
                .with_label_values(&[lane.name.as_str()])
                .set(i64::from(lane.parked().is_some()));
        }
        self.hold(core);
        for (zkvm, waiting) in core.waiting() {
            self.waiting
                .with_label_values(&[zkvm.as_str()])
                .set(i64::try_from(waiting).unwrap_or(i64::MAX));
        }
        for (zkvm, provers, outstanding) in core.provers() {
            self.provers
                .with_label_values(&[zkvm.as_str()])
                .set(i64::try_from(provers).unwrap_or(i64::MAX));
            self.outstanding
                .with_label_values(&[zkvm.as_str()])
                .set(i64::try_from(outstanding).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn waits_for_room(&self, place: Place, waits: bool) {
        self.room
            .with_label_values(&[&place.name()])
            .set(i64::from(waits));
    }

    /// Removes the metrics of a removed pipeline.
    pub(crate) fn forget(&self, pipeline: &PipelineId) {
        // An error means the label was absent, which is just as well.
        let _ = self.parked.remove_label_values(&[pipeline.as_str()]);
    }
}
