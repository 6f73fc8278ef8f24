//! Second copies of the attempts of suspected provers.
//!
//! A suspected prover keeps its attempts: it may be back, and then goes on. Meanwhile a second copy of each runs
//! elsewhere, numbered like a hedge, and the first valid proof wins. A copy whose prover falls silent as well gets
//! a copy of its own, up to [`COPIES_MAX`] for a task. Without another prover none is asked for: behind a single
//! prover that is back soon, the copy would only be done twice.

use super::{Because, Effect, Watchdog, fleet::key_of};
use crate::{
    silence::EXTEND_EVERY,
    unheld::{COPIES_MAX, Fate, Seat, Unheld},
};
use push0_domain::{
    Participant, Timestamp,
    message::{Held, Role},
    subject::AttemptKey,
    task::AttemptId,
    wanted::Claims,
};
use std::time::Duration;

/// How long the copies of a task are counted: longer than a prover takes to be condemned by default.
const COPIES_KEPT_FOR: Duration = Duration::from_secs(30);

/// Returns the key of all attempts of a task.
fn any_attempt(key: &AttemptKey) -> AttemptKey {
    AttemptKey {
        attempt: 0,
        ..key.clone()
    }
}

impl Watchdog {
    /// Returns effects for the attempts of suspected provers: copies, and extensions of their deliveries.
    pub(super) fn copies(&mut self, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut silent: Vec<(Participant, Held)> = Vec::new();
        for ((id, _), process) in &mut self.processes {
            if process.suspected_at.is_none() || process.lease.role != Role::Prover {
                continue;
            }
            let held = &process.lease.held;
            silent.extend(held.iter().map(|held| (id.clone(), held.clone())));
            if now.since(process.extended_at) >= EXTEND_EVERY {
                process.extended_at = now;
                effects.extend(held.iter().map(|held| Effect::Extend(Box::new(held.clone()))));
            }
        }
        for (prover, held) in silent {
            if !self.is_over(&prover, &held) && self.wants_copy(&prover, &held) {
                self.hedged.insert(held.header.attempt_id());
                self.note_copy(&key_of(&held), now);
                effects.push(Effect::Hedge {
                    prover,
                    held: Box::new(held),
                    because: Because::Silent,
                });
            }
        }
        effects
    }

    /// Forgets the copies of a prover that is back, unless a lease lists them: they may have failed, and if the prover
    /// falls silent again, its attempts need copies again. One that still waits is the same message.
    pub(super) fn forget_copies_of(&mut self, seat: &Seat) {
        let held = self
            .processes
            .get(seat)
            .map_or(&[][..], |process| &process.lease.held);
        let is_listed = |copy: &AttemptId| self.held().any(|(_, held)| held.header.attempt_id() == *copy);
        let originals = held.iter().map(|held| held.header.attempt_id());
        let ended = originals.filter(|original| !is_listed(&original.task.attempt(original.number + 1)));
        let ended: Vec<AttemptId> = ended.collect();
        self.hedged.retain(|attempt| !ended.contains(attempt));
    }

    fn wants_copy(&self, prover: &Participant, held: &Held) -> bool {
        let task = &held.header.id;
        if self.won.contains_key(task) || self.fleet(&held.header.zkvm).iter().all(|id| id == prover) {
            return false;
        }
        // A copy was asked for and is on its way, or was this attempt's.
        let is_listed = |number: u32| {
            let mut listed = self.held();
            listed.any(|(_, h)| h.header.id == *task && h.header.attempt == number)
        };
        let mut hedged = self.hedged.iter().filter(|attempt| attempt.task == *task);
        let is_on_its_way = hedged.any(|a| a.number == held.header.attempt || !is_listed(a.number + 1));
        !is_on_its_way && !self.has_live_copy(held) && !self.has_all_copies(&key_of(held))
    }

    /// Returns whether a prover that is heard runs, or is about to run, the same task.
    fn has_live_copy(&self, held: &Held) -> bool {
        let heard = self
            .processes
            .values()
            .filter(|p| !p.is_suspected() && p.lease.role == Role::Prover);
        let claim = held.header.context.claim();
        heard
            .flat_map(|p| &p.lease.held)
            .any(|other| other.header.id == held.header.id && other.header.context.claim() == claim)
    }

    /// Returns whether a task had as many copies as it may within [`COPIES_KEPT_FOR`]. The deaths of their provers
    /// follow within this time, and then the collector decides by the budget.
    fn has_all_copies(&self, attempt: &AttemptKey) -> bool {
        let copied = self.copied.get(&any_attempt(attempt));
        copied.is_some_and(|(count, _)| *count >= COPIES_MAX)
    }

    fn note_copy(&mut self, attempt: &AttemptKey, now: Timestamp) {
        let (count, at) = self.copied.entry(any_attempt(attempt)).or_default();
        (*count, *at) = (*count + 1, now);
    }

    /// Forgets the copies of a while ago.
    pub(super) fn forget_copies(&mut self, now: Timestamp) {
        self.copied.retain(|_, (_, at)| now.since(*at) < COPIES_KEPT_FOR);
    }

    /// Returns whether a finding is to be acted on: copies of a task have a limit, and one that runs is enough.
    pub(super) fn is_wanted(&mut self, unheld: &Unheld, now: Timestamp) -> bool {
        let Fate::Doubted(_) = unheld.fate else {
            return true;
        };
        let same = |held: &Held| {
            let key = key_of(held);
            AttemptKey {
                attempt: unheld.key.attempt,
                ..key
            } == unheld.key
        };
        let mut heard = self
            .processes
            .values()
            .filter(|p| !p.is_suspected() && p.lease.role == Role::Prover);
        let is_run = heard.any(|p| p.lease.held.iter().any(same));
        let is_wanted = !is_run && !self.has_all_copies(&unheld.key);
        if is_wanted {
            self.note_copy(&unheld.key, now);
        }
        is_wanted
    }
}
