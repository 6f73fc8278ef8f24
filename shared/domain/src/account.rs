//! Where the time of a block went: the critical path that ends with a result, and the account of a record.

use crate::{
    Timestamp,
    message::{Emission, EmissionOutcome, TaskResult},
    path::{Leg, Parts},
};
use serde::Serialize;

impl TaskResult {
    /// Returns the critical path that ends with this result, stored at `ended_at`.
    pub fn legs(&self, ended_at: Timestamp) -> Vec<Leg> {
        let path = &self.header.path;
        let verdict = self.verdict.as_ref();
        let parts = Parts {
            failed_us: path.failed_until.0.saturating_sub(path.ready_at.0),
            waited_us: path.held_us.saturating_add(self.waited_us),
            transfer_us: self.transfer_us,
            prove_us: self.prove_us,
            check_waited_us: verdict.map_or(0, |verdict| verdict.waited_us),
            verify_us: verdict.map_or(0, |verdict| verdict.verify_us),
        };
        let leg = Leg {
            stage: self.header.id.stage.stage.clone(),
            ready_at: path.ready_at,
            ended_at,
            prover: self.prover.clone(),
            verifier: verdict.map(|verdict| verdict.verifier.clone()),
            failed: path.failed,
            parts: parts.within(ended_at.0.saturating_sub(path.ready_at.0)),
        };
        let mut legs = path.legs.clone();
        match legs.last_mut().filter(|last| last.stage == leg.stage) {
            Some(level) => {
                let whole = ended_at.0.saturating_sub(level.ready_at.0);
                *level = Leg {
                    ready_at: level.ready_at,
                    failed: level.failed.saturating_add(leg.failed),
                    parts: level.parts.plus(leg.parts).within(whole),
                    ..leg
                }
            }
            None => legs.push(leg),
        }
        legs
    }
}

/// Where the time of a proved block or range went, in microseconds. All parts together are `total_us`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Account {
    /// From the readiness of the first stage on the critical path to the storing of the record.
    pub total_us: u64,
    /// In provers and verifiers, and waiting for them.
    pub parts: Parts,
    /// Between the stages: waiting for the other blocks of the range.
    pub range_us: u64,
    /// Waiting for the records of earlier blocks.
    pub order_us: u64,
    /// push0's own time.
    pub own_us: u64,
}

impl Emission {
    /// Returns the critical path: of several proofs, the path of the one that was done last. Empty for a block without a
    /// proof.
    pub fn critical_path(&self) -> &[Leg] {
        let EmissionOutcome::Proved(proofs) = &self.outcome else {
            return &[];
        };
        let ended = |path: &&[Leg]| path.last().map(|leg| leg.ended_at);
        let paths = proofs.iter().map(|proof| proof.path.as_slice());
        paths.max_by_key(ended).unwrap_or_default()
    }

    /// Returns the time inside provers and verifiers on the critical path, in microseconds.
    pub fn busy_us(&self) -> u64 {
        let legs = self.critical_path().iter();
        legs.map(|leg| leg.parts.prove_us.saturating_add(leg.parts.verify_us))
            .fold(0, u64::saturating_add)
    }

    /// Returns where the time went until the record was stored; `None` for a block without a proof.
    pub fn account(&self, record_stored_at: Timestamp) -> Option<Account> {
        let legs = self.critical_path();
        let (first, last) = (legs.first()?, legs.last()?);
        let total_us = record_stored_at.0.saturating_sub(first.ready_at.0);
        let parts = legs
            .iter()
            .fold(Parts::default(), |sum, leg| sum.plus(leg.parts))
            .within(total_us);
        let gaps = legs.iter().zip(legs.iter().skip(1));
        let range_us = gaps
            .map(|(before, after)| after.ready_at.0.saturating_sub(before.ended_at.0))
            .fold(0, u64::saturating_add)
            .min(total_us - parts.sum_us());
        let rest = total_us - parts.sum_us() - range_us;
        let behind = record_stored_at.0.saturating_sub(last.ended_at.0);
        let order_us = self.order_us.min(behind).min(rest);
        Some(Account {
            total_us,
            parts,
            range_us,
            order_us,
            own_us: rest - order_us,
        })
    }
}
