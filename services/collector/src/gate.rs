//! Lets the reports in that are to be believed, and counts the others.

use prometheus::IntCounterVec;
use push0_bus::{Bus, BusError, Seals};
use push0_domain::{
    PipelineId,
    message::TaskResult,
    report::{Refusal, admit_signature},
    subject::{self, Kind},
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How often refused reports of one participant are logged at most.
const LOG_EVERY: Duration = Duration::from_secs(60);
/// Most participants kept for that.
const LOGGED_MAX: usize = 1024;

/// The gate of one pipeline.
pub(crate) struct Gate {
    seals: Seals,
    refusals: Refusals,
}

impl Gate {
    pub(crate) async fn start(bus: &Bus, refusals: Refusals) -> Result<Self, BusError> {
        let seals = bus.seals().await?;
        Ok(Self { seals, refusals })
    }

    /// Returns whether a report is to be believed, and about this pipeline. Others are counted.
    pub(crate) async fn admits(&mut self, subject: &str, result: &TaskResult) -> Result<bool, BusError> {
        let kind = Kind::of(subject).filter(|kind| matches!(kind, Kind::Result | Kind::Verdict));
        let admitted = match kind {
            Some(kind) => self.seals.admit(subject, kind, result).await?,
            None => Err(Refusal::Subject),
        };
        let refusal = match admitted {
            Ok(report) if report.attempt.pipeline != self.refusals.pipeline => Refusal::Attempt,
            Ok(report) => match kind.map_or(Ok(()), |kind| admit_signature(&report, kind, result)) {
                Ok(()) => return Ok(true),
                Err(refusal) => refusal,
            },
            Err(refusal) => refusal,
        };
        self.refusals.count(subject, refusal, "");
        Ok(false)
    }

    /// Returns whether the end of a block was told by a service that may do so. Others are counted.
    pub(crate) fn admits_end(&self, subject: &str) -> bool {
        let is_of_service = subject == subject::ended(&self.refusals.pipeline);
        if !is_of_service {
            self.refusals.count(subject, Refusal::Speaker, "");
        }
        is_of_service
    }
}

/// The refused reports of one pipeline.
#[derive(Clone)]
pub(crate) struct Refusals {
    pipeline: PipelineId,
    counter: IntCounterVec,
    /// When refused reports of each participant were last logged, by the tokens of its subjects.
    logged: Arc<Mutex<BTreeMap<String, Instant>>>,
}

impl Refusals {
    pub(crate) fn new(pipeline: PipelineId, counter: IntCounterVec) -> Self {
        Self {
            pipeline,
            counter,
            logged: Arc::default(),
        }
    }

    /// Handles a message that cannot be read. Returns whether it is a participant's, which is counted and dropped.
    pub(crate) fn drops(&self, subject: &str, error: &dyn std::fmt::Display) -> bool {
        let is_of_participant = subject != subject::ended(&self.pipeline);
        if is_of_participant {
            self.count(subject, Refusal::Unreadable, &error.to_string());
        }
        is_of_participant
    }

    /// Counts a refused report, and logs it unless another one of its sender was logged a moment ago.
    pub(crate) fn count(&self, subject: &str, refusal: Refusal, detail: &str) {
        let (pipeline, reason) = (&self.pipeline, refusal.as_str());
        self.counter.with_label_values(&[pipeline.as_str(), reason]).inc();
        let sender: Vec<&str> = subject.split('.').skip(3).take(2).collect();
        let (sender, now) = (sender.join("."), Instant::now());
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        logged.retain(|_, at| now.duration_since(*at) < LOG_EVERY);
        if logged.len() < LOGGED_MAX && !logged.contains_key(&sender) {
            tracing::warn!(
                %pipeline, sender, subject, reason, detail,
                "refused a report, which changes nothing: its sender is of another version, faulty or hostile"
            );
            logged.insert(sender, now);
        }
    }
}
