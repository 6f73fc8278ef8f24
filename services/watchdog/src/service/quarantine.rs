//! Reads, stores and orders quarantines.

use super::Active;
use crate::reputation::{Change, Quarantine};
use push0_bus::{BusError, now};
use push0_domain::{Participant, message::Control, subject, trace::TraceContext};
use std::time::Duration;

/// Key prefix of the facts about quarantines.
const QUARANTINE: &str = "quarantine";

/// Returns the prover in the key of a fact about a quarantine.
fn participant_of(key: &str) -> Option<Participant> {
    let (zkvm, name) = key.strip_prefix(QUARANTINE)?.strip_prefix('.')?.split_once('.')?;
    Some(Participant {
        zkvm: zkvm.parse().ok()?,
        name: name.parse().ok()?,
    })
}

impl Active<'_> {
    pub(super) async fn recall_quarantines(&mut self) -> Result<(), BusError> {
        for fact in self.quarantines.readable(&format!("{QUARANTINE}.*.*")).await? {
            let prover = participant_of(&fact.key);
            if let (Some(prover), Some(quarantine)) = (prover, fact.value) {
                self.session.recall_quarantine(prover, quarantine, now());
            }
        }
        Ok(())
    }

    /// Stores a quarantine that begins or ends early. Returns the kind of change, for the metrics.
    pub(super) async fn save_quarantine(&self, change: &Change) -> Result<&'static str, BusError> {
        let (Change::Begun(prover, quarantine) | Change::Ended(prover, quarantine)) = change;
        self.quarantines
            .put(&format!("{QUARANTINE}.{prover}"), quarantine)
            .await?;
        let Quarantine { until, times, reason } = quarantine;
        let rest = until.since(now());
        if matches!(change, Change::Ended(..)) {
            tracing::info!(prover.id = %prover, reason, times, "the prover's quarantine ends early: it gets work again");
            return Ok("released");
        }
        tracing::warn!(
            prover.id = %prover,
            reason,
            times,
            ?rest,
            "quarantined: the prover gets no work for this time, and is then tried again. Look at its log"
        );
        Ok("quarantined")
    }

    pub(super) fn count_resting(&self) {
        let resting = self.session.resting(now());
        self.metrics
            .quarantined
            .set(i64::try_from(resting).unwrap_or(i64::MAX));
    }

    pub(super) async fn order_rest(
        &self,
        prover: &Participant,
        left: Duration,
        reason: String,
    ) -> Result<(), BusError> {
        let for_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let order = Control::Quarantine { for_ms, reason };
        self.publish(subject::control(prover), &order, &TraceContext::default())
            .await
    }
}
