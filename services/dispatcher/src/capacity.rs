//! Counts the tasks the provers of a zkVM can take now.

use push0_domain::{
    ProverId, Timestamp,
    message::{Held, Lease, ProverState, Role},
    subject::AttemptKey,
    wanted::Claim,
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
    /// Released attempts not known to have ended. The attempts of a silent prover stay here until they end.
    outstanding: HashMap<AttemptKey, Released>,
    /// How many outstanding attempts of live provers are about to end.
    ending: usize,
    /// How many outstanding attempts are with silent provers. They take no place of a live one.
    away: usize,
}

#[derive(Clone, Debug)]
struct Released {
    at: Timestamp,
    /// The claim of the task; `None` if it was released before this dispatcher led.
    claim: Option<Claim>,
    /// About to end, so its slot counts as free.
    ends_soon: bool,
    /// The prover that runs the attempt, as far as known. While an attempt waits behind a full slot there is none:
    /// if the prover falls silent, the attempt goes to another one.
    holder: Option<ProverId>,
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
            ProverState::Active => lease.places(),
            // Attempts still held are outstanding and stay covered by places, but leave no room for new ones.
            ProverState::Draining | ProverState::Quarantined => lease.held.len().min(lease.places()),
        };
        let prover = Prover {
            heard_at: now,
            places,
        };
        let is_new = self.provers.insert(lease.prover.clone(), prover).is_none();
        let mut has_changed = is_new;
        for held in &lease.held {
            has_changed |= self.hears_of(held, lease);
        }
        if has_changed {
            self.recount();
        }
    }

    /// Notes the word of a lease on an attempt. Returns whether the word is new.
    fn hears_of(&mut self, held: &Held, lease: &Lease) -> bool {
        let key = AttemptKey::of(&held.header.zkvm, &held.header.attempt_id());
        let Some(released) = self.outstanding.get_mut(&key) else {
            return false;
        };
        let ends_soon = held.ends_soon && lease.state == ProverState::Active;
        let holder = held.running_ms.map(|_| &lease.prover);
        let is_same = released.ends_soon == ends_soon && released.holder.as_ref() == holder;
        if !is_same {
            released.ends_soon = ends_soon;
            released.holder = holder.cloned();
        }
        !is_same
    }

    /// Handles the request for a second copy of an attempt that no lease shows, because its prover is silent.
    pub fn doubted(&mut self, key: &AttemptKey, prover: &ProverId) {
        if let Some(released) = self.outstanding.get_mut(key)
            && released.holder.is_none()
        {
            released.holder = Some(prover.clone());
            self.recount();
        }
    }

    fn is_away(&self, released: &Released) -> bool {
        let holder = released.holder.as_ref();
        holder.is_some_and(|holder| !self.provers.contains_key(holder))
    }

    fn recount(&mut self) {
        let (away, here): (Vec<&Released>, Vec<&Released>) = self
            .outstanding
            .values()
            .partition(|released| self.is_away(released));
        let ending = here.iter().filter(|released| released.ends_soon).count();
        (self.away, self.ending) = (away.len(), ending);
    }

    /// Forgets provers that fell silent. Returns whether there were any.
    pub fn forget_silent(&mut self, now: Timestamp) -> bool {
        let before = self.provers.len();
        self.provers
            .retain(|_, prover| now.since(prover.heard_at) < SILENT_AFTER);
        let has_changed = self.provers.len() != before;
        if has_changed {
            self.recount();
        }
        has_changed
    }

    /// Returns how many more attempts can be released. The place behind an attempt about to end counts as
    /// long as the attempt does, however old the heartbeat that announced its end.
    pub fn free(&self) -> usize {
        let places: usize = self.provers.values().map(|prover| prover.places).sum();
        (places + self.ending).saturating_sub(self.outstanding.len() - self.away)
    }

    /// Counts a released attempt as outstanding.
    pub fn released(&mut self, key: AttemptKey, claim: Option<Claim>, at: Timestamp) {
        let new = Released {
            at,
            claim,
            ends_soon: false,
            holder: None,
        };
        let released = self.outstanding.entry(key).or_insert(new);
        (released.at, released.claim) = (at, claim);
    }

    /// Returns whether an attempt with this claim is outstanding for certain.
    pub fn is_out(&self, key: &AttemptKey, claim: Claim) -> bool {
        let released = self.outstanding.get(key);
        released.is_some_and(|released| released.claim == Some(claim))
    }

    /// Returns when an outstanding attempt was released.
    pub fn released_at(&self, key: &AttemptKey) -> Option<Timestamp> {
        self.outstanding.get(key).map(|released| released.at)
    }

    /// Returns how long an outstanding attempt waited for its prover, which worked on it for `worked` and has ended it
    /// now. Returns `None` if the attempt was released before this dispatcher led.
    pub fn waited(&self, key: &AttemptKey, worked: Duration, now: Timestamp) -> Option<Duration> {
        let released = self
            .outstanding
            .get(key)
            .filter(|released| released.claim.is_some())?;
        Some(now.since(released.at).saturating_sub(worked))
    }

    /// Returns when the oldest of the attempts was released that no prover is known to run.
    pub fn oldest_untaken(&self) -> Option<Timestamp> {
        let untaken = self
            .outstanding
            .values()
            .filter(|released| released.holder.is_none());
        untaken.map(|released| released.at).min()
    }

    /// Removes an ended attempt. Returns whether it was outstanding.
    pub fn ended(&mut self, key: &AttemptKey) -> bool {
        let Some(ended) = self.outstanding.remove(key) else {
            return false;
        };
        if self.is_away(&ended) {
            self.away -= 1;
        } else if ended.ends_soon {
            self.ending -= 1;
        }
        true
    }

    /// Counts attempts released before this dispatcher led.
    pub fn adopt(&mut self, present: HashSet<AttemptKey>, now: Timestamp) {
        present.into_iter().for_each(|key| self.released(key, None, now));
    }

    /// Corrects the outstanding attempts against the stream: attempts released before `before` and absent
    /// from `present` have ended.
    pub fn reconcile(&mut self, present: &HashSet<AttemptKey>, before: Timestamp) {
        self.outstanding
            .retain(|key, released| released.at >= before || present.contains(key));
        self.recount();
    }

    /// Returns the outstanding attempts.
    pub fn outstanding(&self) -> impl Iterator<Item = &AttemptKey> {
        self.outstanding.keys()
    }

    /// Returns the number of outstanding attempts.
    pub fn out(&self) -> usize {
        self.outstanding.len()
    }

    /// Returns the number of live provers.
    pub fn provers(&self) -> usize {
        self.provers.len()
    }
}
