//! Counts the tasks the provers of a zkVM can take now.

use push0_domain::{
    ProverId, Timestamp,
    message::{Held, Lease, ProverState, Role},
    subject::AttemptKey,
};
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

/// Silence after which a prover gets no more work: three heartbeats, the same limit as the watchdog's.
pub const SILENT_AFTER: Duration = Duration::from_millis(750);

/// The provers of one zkVM, and the attempts released to them.
#[derive(Debug, Default)]
pub struct Capacity {
    provers: HashMap<ProverId, Prover>,
    /// Released attempts not known to have ended. The attempts of a dead prover stay here until the watchdog
    /// has reported them.
    outstanding: HashMap<AttemptKey, Released>,
    /// How many outstanding attempts are about to end.
    ending: usize,
}

#[derive(Clone, Copy, Debug)]
struct Released {
    at: Timestamp,
    /// About to end, so its slot counts as free.
    ends_soon: bool,
}

#[derive(Debug)]
struct Prover {
    heard_at: Timestamp,
    places: usize,
}

impl Capacity {
    /// Handles a heartbeat.
    pub fn heard(&mut self, lease: &Lease, now: Timestamp) {
        if lease.role != Role::Prover {
            return;
        }
        let places = match lease.state {
            ProverState::Active => (lease.slots + lease.ahead) as usize,
            // Attempts still held are outstanding and stay covered by places, but leave no room for new ones.
            ProverState::Draining | ProverState::Quarantined => {
                lease.held.len().min((lease.slots + lease.ahead) as usize)
            }
        };
        for held in &lease.held {
            self.hears_of(held, lease.state);
        }
        self.provers.insert(
            lease.prover.clone(),
            Prover {
                heard_at: now,
                places,
            },
        );
    }

    fn hears_of(&mut self, held: &Held, state: ProverState) {
        if self.ending == 0 && !held.ends_soon {
            return;
        }
        let key = AttemptKey::of(&held.header.zkvm, &held.header.attempt_id());
        if let Some(released) = self.outstanding.get_mut(&key) {
            self.ending -= usize::from(released.ends_soon);
            released.ends_soon = held.ends_soon && state == ProverState::Active;
            self.ending += usize::from(released.ends_soon);
        }
    }

    /// Forgets provers that fell silent. Returns whether there were any.
    pub fn forget_silent(&mut self, now: Timestamp) -> bool {
        let before = self.provers.len();
        self.provers
            .retain(|_, prover| now.since(prover.heard_at) < SILENT_AFTER);
        self.provers.len() != before
    }

    /// Returns how many more attempts can be released. The place behind an attempt about to end counts as
    /// long as the attempt does, however old the heartbeat that announced its end.
    pub fn free(&self) -> usize {
        let places: usize = self.provers.values().map(|prover| prover.places).sum();
        (places + self.ending).saturating_sub(self.outstanding.len())
    }

    /// Counts a released attempt as outstanding.
    pub fn released(&mut self, key: AttemptKey, at: Timestamp) {
        let ends_soon = false;
        self.outstanding
            .entry(key)
            .or_insert(Released { at, ends_soon })
            .at = at;
    }

    /// Removes an ended attempt. Returns whether it was outstanding.
    pub fn ended(&mut self, key: &AttemptKey) -> bool {
        let ended = self.outstanding.remove(key);
        self.ending -= usize::from(ended.is_some_and(|released| released.ends_soon));
        ended.is_some()
    }

    /// Counts attempts released before this dispatcher led.
    pub fn adopt(&mut self, present: HashSet<AttemptKey>, now: Timestamp) {
        present.into_iter().for_each(|key| self.released(key, now));
    }

    /// Corrects the outstanding attempts against the stream: attempts released before `before` and absent
    /// from `present` have ended.
    pub fn reconcile(&mut self, present: &HashSet<AttemptKey>, before: Timestamp) {
        self.outstanding
            .retain(|key, released| released.at >= before || present.contains(key));
        let ending = self.outstanding.values().filter(|released| released.ends_soon);
        self.ending = ending.count();
    }

    /// Returns the outstanding attempts.
    pub fn outstanding(&self) -> impl Iterator<Item = &AttemptKey> {
        self.outstanding.keys()
    }

    /// Returns the number of live provers.
    pub fn provers(&self) -> usize {
        self.provers.len()
    }
}
