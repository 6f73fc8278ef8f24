//! Stores, reads, announces and orders quarantines.

use super::Active;
use crate::reputation::{Change, Quarantine};
use push0_bus::{BusError, now};
use push0_domain::{
    Participant,
    message::{Control, Happening, Lease, ProverState},
    subject,
    trace::TraceContext,
};
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
                self.reputation.recall(prover, quarantine, now());
            }
        }
        Ok(())
    }

    /// Stores quarantines that begin or end early, announces them and tells their provers.
    pub(super) async fn note(&mut self, changes: Vec<Change>) -> Result<(), BusError> {
        for change in changes {
            let (Change::Begun(prover, quarantine) | Change::Ended(prover, quarantine)) = &change;
            self.quarantines
                .put(&format!("{QUARANTINE}.{prover}"), quarantine)
                .await?;
            let Quarantine { until, times, reason } = quarantine.clone();
            tracing::warn!(prover.id = %prover, reason, times, until = ?until, "quarantine changed");
            self.tell(prover, until.since(now()), &reason).await?;
            let prover = prover.name.clone();
            let (act, happening) = match change {
                Change::Begun(..) => (
                    "quarantined",
                    Happening::QuarantineBegun {
                        prover,
                        until,
                        times,
                        reason,
                    },
                ),
                Change::Ended(..) => ("released", Happening::QuarantineEnded { prover, reason }),
            };
            self.metrics.acts.with_label_values(&[act]).inc();
            // Count before the announcement, since its readers may look at the metric at once.
            self.count_resting();
            self.bus.announce(None, happening);
        }
        Ok(())
    }

    /// Ends quarantines that have expired or leave a zkVM without provers.
    pub(super) async fn end_quarantines(&mut self) -> Result<(), BusError> {
        for zkvm in self.core.zkvms() {
            let change = self.reputation.relieve(&self.core.fleet(&zkvm), now());
            self.note(change.into_iter().collect()).await?;
        }
        for prover in self.reputation.over(now()) {
            let (reason, prover) = ("the quarantine has expired".to_owned(), prover.name);
            self.bus
                .announce(None, Happening::QuarantineEnded { prover, reason });
        }
        self.count_resting();
        Ok(())
    }

    fn count_resting(&self) {
        let resting = self.reputation.resting(now());
        self.metrics
            .quarantined
            .set(i64::try_from(resting).unwrap_or(i64::MAX));
    }

    /// Repeats an order to a prover whose heartbeat shows the wrong state: it missed the order,
    /// or has restarted.
    pub(super) async fn remind(&mut self, lease: &Lease) -> Result<(), BusError> {
        let rests = match lease.state {
            ProverState::Active => false,
            ProverState::Quarantined => true,
            ProverState::Draining => return Ok(()),
        };
        match self.reputation.remind(&lease.sender(), rests, now()) {
            Some((left, reason)) => self.tell(&lease.sender(), left, &reason).await,
            None => Ok(()),
        }
    }

    async fn tell(&self, prover: &Participant, left: Duration, reason: &str) -> Result<(), BusError> {
        let order = Control::Quarantine {
            for_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            reason: reason.to_owned(),
        };
        self.publish(subject::control(prover), &order, &TraceContext::default())
            .await
    }
}
