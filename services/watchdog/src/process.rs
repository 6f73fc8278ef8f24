//! A prover or verifier as its heartbeats and the broker show it.

use crate::silence::{End, GONE_FOR, SUSPECT_AFTER};
use push0_domain::{
    Timestamp,
    message::{Lease, ProverState},
};
use std::time::Duration;

/// A prover or verifier.
#[derive(Debug)]
pub(crate) struct Process {
    /// The newest heartbeat. Deliveries taken away from a silent process are not in its `held` any more.
    pub(crate) lease: Lease,
    pub(crate) heard_at: Timestamp,
    /// Since when the process is suspected.
    pub(crate) suspected_at: Option<Timestamp>,
    /// When the deliveries of a suspected process were last extended.
    pub(crate) extended_at: Timestamp,
    /// Whether a newer process of the name was heard since.
    pub(crate) is_replaced: bool,
    /// Since when the broker knows no connection of the process.
    pub(crate) gone_since: Option<Timestamp>,
    pub(crate) asked_at: Timestamp,
}

impl Process {
    pub(crate) fn new(lease: Lease, heard_at: Timestamp) -> Self {
        Self {
            lease,
            heard_at,
            suspected_at: None,
            extended_at: Timestamp::default(),
            is_replaced: false,
            gone_since: None,
            asked_at: Timestamp::default(),
        }
    }

    pub(crate) fn is_suspected(&self) -> bool {
        self.suspected_at.is_some()
    }

    /// Does not count a delay of the watchdog as silence. The silence before stays: a watchdog that is often delayed must
    /// find out dead processes all the same.
    pub(crate) fn excuse(&mut self, delay: Duration, now: Timestamp) {
        let excused = self.heard_at.plus(delay).min(now);
        self.heard_at = self.heard_at.max(excused);
    }

    /// Returns how the process ended, or `None` if it may live.
    pub(crate) fn end(&self, condemn_after: Duration, now: Timestamp) -> Option<End> {
        let silent_for = now.since(self.heard_at);
        if self.is_replaced {
            // Its successor starts only if the name is free, so one sign of the end is enough.
            let is_gone = self.gone_since.is_some() || silent_for >= SUSPECT_AFTER;
            return is_gone.then_some(End::Restarted);
        }
        if silent_for >= condemn_after {
            return Some(End::Silent(silent_for));
        }
        let gone = self.gone_since.filter(|since| now.since(*since) >= GONE_FOR);
        gone.filter(|_| self.is_suspected()).map(|_| End::Gone)
    }

    /// Returns whether the process has left in order: its last heartbeat said so.
    pub(crate) fn has_left(&self) -> bool {
        self.lease.state == ProverState::Draining && self.lease.held.is_empty()
    }
}
