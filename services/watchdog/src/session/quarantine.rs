//! Quarantines: stored, ordered, announced, and ordered again where a prover does not obey.

use super::{Session, op::Op};
use crate::reputation::{Change, Quarantine};
use push0_domain::{
    Participant, Timestamp,
    message::{Happening, Lease, ProverState},
};

impl<P> Session<P> {
    /// Restores a stored quarantine.
    pub fn recall_quarantine(&mut self, prover: Participant, quarantine: Quarantine, now: Timestamp) {
        self.reputation.recall(prover, quarantine, now);
    }

    /// Returns the number of provers in quarantine.
    pub fn resting(&self, now: Timestamp) -> usize {
        self.reputation.resting(now)
    }

    /// Stores quarantines that begin or end early, tells their provers, and then announces them.
    pub(super) fn note(&mut self, changes: impl IntoIterator<Item = Change>, now: Timestamp) {
        for change in changes {
            let (Change::Begun(prover, quarantine) | Change::Ended(prover, quarantine)) = change.clone();
            let Quarantine { until, times, reason } = quarantine;
            let order = Op::Quarantine(prover.clone(), until.since(now), reason.clone());
            let prover = prover.name;
            let happening = match change {
                Change::Begun(..) => Happening::QuarantineBegun {
                    prover,
                    until,
                    times,
                    reason,
                },
                Change::Ended(..) => Happening::QuarantineEnded { prover, reason },
            };
            // A watchdog that starts over must know of it before the prover does.
            let noted = [Op::SaveQuarantine(change), order, Op::Announce(happening)];
            self.at_once.extend(noted);
        }
    }

    /// Ends quarantines that have expired or leave a zkVM without provers.
    pub(super) fn end_quarantines(&mut self, now: Timestamp) {
        for zkvm in self.core.zkvms() {
            let relieved = self.reputation.relieve(&self.core.fleet(&zkvm), now);
            self.note(relieved, now);
        }
        let expired = self.reputation.over(now).into_iter().map(|prover| {
            let (reason, prover) = ("the quarantine has expired".to_owned(), prover.name);
            Op::Announce(Happening::QuarantineEnded { prover, reason })
        });
        self.at_once.extend(expired);
    }

    /// Repeats an order to a prover whose heartbeat shows the wrong state: it missed the order, or has restarted.
    pub(super) fn remind(&mut self, lease: &Lease, now: Timestamp) {
        let rests = match lease.state {
            ProverState::Active => false,
            ProverState::Quarantined => true,
            ProverState::Draining => return,
        };
        let prover = lease.sender();
        if let Some((left, reason)) = self.reputation.remind(&prover, rests, now) {
            self.at_once.push_back(Op::Quarantine(prover, left, reason));
        }
    }
}
