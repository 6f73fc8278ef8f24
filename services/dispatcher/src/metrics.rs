//! Metrics of the dispatcher.

use crate::{decide::Dispatcher, session::Session};
use prometheus::{HistogramVec, IntCounter, IntGauge, IntGaugeVec};
use push0_bus::Place;
use push0_domain::{PipelineId, Timestamp};
use push0_runtime::metrics::{self, MetricError};
use std::time::Duration;

/// The dispatcher's metrics. Labels are zkVMs and pipelines, never blocks.
pub(crate) struct Metrics {
    pub(crate) leading: IntGauge,
    released: IntCounter,
    pub(crate) ended: IntCounter,
    waiting: IntGaugeVec,
    queue_age: IntGaugeVec,
    untaken_age: IntGaugeVec,
    waits: HistogramVec,
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
            queue_age: metrics::gauge_vec(
                "queue_age_seconds",
                "Age of the oldest message whose stage waits for a prover",
                &["zkvm"],
            )?,
            untaken_age: metrics::gauge_vec(
                "untaken_age_seconds",
                "Age of the oldest released attempt that no prover is known to run",
                &["zkvm"],
            )?,
            waits: metrics::waits()?,
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

    pub(crate) fn observe(&self, session: &Session) {
        for (lane, is_parked) in session.lanes() {
            self.parked
                .with_label_values(&[lane.as_str()])
                .set(i64::from(is_parked));
        }
        let core = &session.core;
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

    /// Shows how old the oldest waiting stage and the oldest untaken attempt of each zkVM are.
    pub(crate) fn ages(&self, session: &Session, now: Timestamp) {
        let core = &session.core;
        let age = |since: Timestamp| i64::try_from(now.since(since).as_secs()).unwrap_or(i64::MAX);
        let oldest = session.waits.oldest(core.waiting_sources());
        self.queue_age.reset();
        self.untaken_age.reset();
        for (zkvm, untaken) in core.untaken() {
            let zkvm = zkvm.as_str();
            self.queue_age.with_label_values(&[zkvm]).set(0);
            self.untaken_age
                .with_label_values(&[zkvm])
                .set(untaken.map_or(0, age));
        }
        for (zkvm, since) in oldest {
            self.queue_age.with_label_values(&[zkvm.as_str()]).set(age(since));
        }
    }

    /// Counts a released attempt, whose message was stored at `since`.
    pub(crate) fn released(&self, pipeline: &PipelineId, since: Option<Timestamp>, now: Timestamp) {
        self.released.inc();
        if let Some(since) = since {
            self.waited(pipeline, "release", now.since(since));
        }
    }

    /// Observes how long a task waited for its release or for its prover.
    pub(crate) fn waited(&self, pipeline: &PipelineId, wait: &str, took: Duration) {
        self.waits
            .with_label_values(&[pipeline.as_str(), wait])
            .observe(took.as_secs_f64());
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
        for wait in ["release", "prover"] {
            let _ = self.waits.remove_label_values(&[pipeline.as_str(), wait]);
        }
    }
}
