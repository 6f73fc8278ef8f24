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
    Participant, Timestamp, ZkvmId,
    message::{Held, Role},
    subject::AttemptKey,
    task::{AttemptId, TaskId},
    wanted::{Claim, Claims},
};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

/// How long the copies of a task are counted: longer than a prover takes to be condemned by default.
const COPIES_KEPT_FOR: Duration = Duration::from_secs(30);

/// Returns the key of all attempts of a task.
fn any_attempt(key: &AttemptKey) -> AttemptKey {
    AttemptKey {
        attempt: 0,
        ..key.clone()
    }
}

/// The leases by task. A hostile lease may list thousands of attempts, so the leases are read once.
struct Listed<'a> {
    numbers: HashSet<(&'a TaskId, u32)>,
    /// The claims of attempts of provers that are heard.
    live: HashMap<&'a TaskId, BTreeSet<Claim>>,
    /// The numbers of attempts of which a copy was asked for.
    hedged: HashMap<&'a TaskId, Vec<u32>>,
}

impl<'a> Listed<'a> {
    fn of(watchdog: &'a Watchdog) -> Self {
        let mut listed = Self {
            numbers: HashSet::new(),
            live: HashMap::new(),
            hedged: HashMap::new(),
        };
        for attempt in &watchdog.hedged {
            listed
                .hedged
                .entry(&attempt.task)
                .or_default()
                .push(attempt.number);
        }
        let provers = watchdog.processes.values();
        for process in provers.filter(|process| process.lease.role == Role::Prover) {
            for Held { header, .. } in &process.lease.held {
                listed.numbers.insert((&header.id, header.attempt));
                if !process.is_suspected() {
                    let live = listed.live.entry(&header.id).or_default();
                    live.insert(header.context.claim());
                }
            }
        }
        listed
    }

    /// Returns whether a copy of the attempt was asked for and is on its way, or a prover that is heard runs, or is about
    /// to run, the same task.
    fn has_copy(&self, held: &Held) -> bool {
        let header = &held.header;
        let mut hedged = self.hedged.get(&header.id).into_iter().flatten();
        let is_on_its_way =
            |number: &u32| *number == header.attempt || !self.numbers.contains(&(&header.id, number + 1));
        let live = self.live.get(&header.id);
        hedged.any(is_on_its_way) || live.is_some_and(|live| live.contains(&header.context.claim()))
    }

    fn copied(&mut self, held: &'a Held) {
        let hedged = self.hedged.entry(&held.header.id).or_default();
        hedged.push(held.header.attempt);
    }
}

impl Watchdog {
    /// Returns effects for the attempts of suspected provers: copies, and extensions of their deliveries.
    pub(super) fn copies(&mut self, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        for ((id, _), process) in &mut self.processes {
            let is_silent = process.is_suspected() && process.lease.role == Role::Prover;
            if is_silent && now.since(process.extended_at) >= EXTEND_EVERY {
                process.extended_at = now;
                let held = process.lease.held.iter();
                effects.extend(held.map(|held| Effect::Extend(id.clone(), Box::new(held.clone()))));
            }
        }
        for (prover, held) in self.wanted_copies() {
            self.hedged.insert(held.header.attempt_id());
            self.note_copy(&key_of(&held), now);
            effects.push(Effect::Hedge {
                prover,
                held: Box::new(held),
                because: Because::Silent,
            });
        }
        effects
    }

    /// Returns the attempts of suspected provers that get a copy.
    fn wanted_copies(&self) -> Vec<(Participant, Held)> {
        let silent = (self.processes.iter())
            .filter(|(_, p)| p.is_suspected() && p.lease.role == Role::Prover)
            .flat_map(|((id, _), p)| p.lease.held.iter().map(move |held| (id, held)))
            .filter(|(prover, held)| !self.won.contains_key(&held.header.id) && !self.is_over(prover, held));
        let silent: Vec<(&Participant, &Held)> = silent.collect();
        if silent.is_empty() {
            return Vec::new();
        }
        let mut listed = Listed::of(self);
        let mut fleets: HashMap<&ZkvmId, BTreeSet<Participant>> = HashMap::new();
        let mut wanted = Vec::new();
        for (prover, held) in silent {
            let zkvm = &held.header.zkvm;
            let fleet = fleets.entry(zkvm).or_insert_with(|| self.fleet(zkvm));
            if fleet.iter().any(|id| id != prover)
                && !listed.has_copy(held)
                && !self.has_all_copies(&key_of(held))
            {
                listed.copied(held);
                wanted.push((prover.clone(), held.clone()));
            }
        }
        wanted
    }

    /// Forgets the copies of a prover that is back, unless a lease lists them: they may have failed, and if the prover
    /// falls silent again, its attempts need copies again. One that still waits is the same message.
    pub(super) fn forget_copies_of(&mut self, seat: &Seat) {
        let held = self
            .processes
            .get(seat)
            .map_or(&[][..], |process| &process.lease.held);
        let listed: HashSet<AttemptId> = self.held().map(|(_, held)| held.header.attempt_id()).collect();
        let originals = held.iter().map(|held| held.header.attempt_id());
        let ended =
            originals.filter(|original| !listed.contains(&original.task.attempt(original.number + 1)));
        let ended: HashSet<AttemptId> = ended.collect();
        self.hedged.retain(|attempt| !ended.contains(attempt));
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
