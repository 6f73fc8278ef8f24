//! Who is there: heartbeats, silence, suspicion, death, and two processes of one name.

use super::{Effect, Watchdog};
use crate::{
    process::Process,
    silence::{End, SUSPECT_AFTER},
    unheld::{LATE_AFTER, Seat, Unheld},
};
use push0_domain::{
    Participant, Timestamp, ZkvmId,
    message::{Happening, Held, Lease, Origin, ProverState, Role},
    subject::AttemptKey,
    task::TaskId,
    wanted::{Claim, Claims},
};
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::Duration,
};

/// Most remembered processes of one name and role: one soon to be found dead, and its successor.
const INCARNATIONS_MAX: usize = 2;
/// How long a live prover may take to reach a broker that came back.
const RECONNECT_MAX: Duration = Duration::from_secs(1);
/// How old a stored heartbeat without deliveries may be to count for a watchdog that begins to lead: far longer than
/// a death takes. Later the prover is found anew.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// How often the broker is asked whether a silent process is connected.
const ASK_EVERY: Duration = Duration::from_millis(250);
/// Most processes the broker is asked about at once. After a cut of a network, all provers may be silent.
const ASK_MAX: usize = 64;

impl Watchdog {
    /// Handles a heartbeat stored before this watchdog led. Its prover gets extra time to be heard again, as
    /// after an outage of the broker. An old one without deliveries is that of a prover whose death was told long ago.
    pub fn recall(&mut self, lease: Lease, stored_at: Timestamp, now: Timestamp) {
        if lease.held.is_empty() && now.since(stored_at) > FORGOTTEN_AFTER {
            return;
        }
        let seat = (lease.sender(), lease.incarnation);
        let process = Process::new(lease, now.plus(RECONNECT_MAX));
        self.processes.insert(seat, process);
    }

    /// Handles a heartbeat.
    pub fn heard(&mut self, lease: Lease, now: Timestamp) -> Vec<Effect> {
        let seat: Seat = (lease.sender(), lease.incarnation);
        let Some(process) = self.processes.get_mut(&seat) else {
            return self.found(seat, lease, now);
        };
        let before = std::mem::replace(&mut process.lease, lease);
        let silent_for = now.since(std::mem::replace(&mut process.heard_at, now));
        let was_suspected = process.suspected_at.take().is_some();
        process.gone_since = None;
        let is_twin = std::mem::take(&mut process.is_replaced);
        let lease = &process.lease;
        let (role, zkvm) = (lease.role, lease.zkvm.clone());
        let kept: HashSet<u64> = lease.held.iter().map(|h| h.sequence).collect();
        let waited = before.held.iter().filter(|h| h.running_ms.is_none());
        for held in waited.filter(|h| !kept.contains(&h.sequence)) {
            self.looks.handed_back(role, key_of(held));
        }
        let mut effects = Vec::new();
        if was_suspected {
            self.looks.is_back(&seat);
            self.forget_copies_of(&seat);
            effects.push(Effect::Announce(Happening::ProverBack {
                prover: seat.0.name.clone(),
                zkvm,
                role,
                silent_ms: u64::try_from(silent_for.as_millis()).unwrap_or(u64::MAX),
            }));
        }
        if is_twin {
            effects.extend(self.taken_twice(&seat.0));
        }
        effects
    }

    /// Handles the first heartbeat of a process. An older process of its name has ended or is about to be found
    /// dead, unless it is heard again. Of three processes of a name the oldest is dead at once, without a word: a sender
    /// may draw incarnations as fast as it sends.
    fn found(&mut self, seat: Seat, lease: Lease, now: Timestamp) -> Vec<Effect> {
        let (zkvm, role) = (lease.zkvm.clone(), lease.role);
        let mut older = Vec::new();
        for ((_, incarnation), process) in self
            .processes
            .range_mut((seat.0.clone(), 0)..=(seat.0.clone(), u64::MAX))
        {
            if process.lease.role == role {
                process.is_replaced = true;
                older.push((process.heard_at, *incarnation));
            }
        }
        let prover = seat.0.name.clone();
        let ousted = (older.len() >= INCARNATIONS_MAX)
            .then(|| older.iter().min())
            .flatten();
        let ousted = ousted.map(|(_, incarnation)| (seat.0.clone(), *incarnation));
        self.processes.insert(seat, Process::new(lease, now));
        match ousted {
            None => vec![Effect::Announce(Happening::ProverFound { prover, zkvm, role })],
            Some(ousted) => {
                let mut effects = self.died(&ousted, End::Restarted, now);
                effects.retain(|effect| !matches!(effect, Effect::Announce(_)));
                effects
            }
        }
    }

    /// Reports, once, that two living processes have one name.
    fn taken_twice(&mut self, prover: &Participant) -> Option<Effect> {
        if !self.twins.insert(prover.clone()) {
            return None;
        }
        let same = self
            .processes
            .iter()
            .filter(|((id, _), p)| id == prover && !p.is_suspected());
        let origins: BTreeSet<Origin> = same.filter_map(|(_, p)| p.lease.origin.clone()).collect();
        Some(Effect::Announce(Happening::NameTakenTwice {
            prover: prover.name.clone(),
            origins: origins.into_iter().collect(),
        }))
    }

    /// Returns the silent processes that the broker is to be asked about now. The answers go to
    /// [`Self::presence`].
    pub fn to_ask(&mut self, now: Timestamp) -> Vec<Seat> {
        let doubtful = self.processes.iter_mut().filter(|(_, p)| {
            let is_doubtful = p.is_suspected() || p.is_replaced;
            is_doubtful && p.lease.origin.is_some() && now.since(p.asked_at) >= ASK_EVERY
        });
        let asked = doubtful.take(ASK_MAX).map(|(seat, process)| {
            process.asked_at = now;
            seat.clone()
        });
        asked.collect()
    }

    /// Handles the broker's word on a process: whether it knows no connection of the process.
    pub fn presence(&mut self, seat: &Seat, is_gone: bool, now: Timestamp) {
        if let Some(process) = self.processes.get_mut(seat) {
            let since = process.gone_since.unwrap_or(now);
            process.gone_since = is_gone.then_some(since);
        }
    }

    /// Suspects and condemns silent processes.
    pub(super) fn judge_silence(&mut self, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        let silent: Vec<Seat> = self
            .processes
            .iter()
            .filter(|(_, p)| p.is_replaced || now.since(p.heard_at) >= SUSPECT_AFTER)
            .map(|(seat, _)| seat.clone())
            .collect();
        for seat in silent {
            let Some(process) = self.processes.get(&seat) else {
                continue;
            };
            let (is_silent, end) = (
                now.since(process.heard_at) >= SUSPECT_AFTER,
                process.end(self.condemn_after, now),
            );
            if process.has_left() && (is_silent || end.is_some()) {
                self.processes.remove(&seat);
            } else if let Some(end) = end {
                effects.extend(self.died(&seat, end, now));
            } else if is_silent && !process.is_suspected() {
                effects.extend(self.suspect(&seat, now));
            }
        }
        let processes = &self.processes;
        self.twins
            .retain(|twin| processes.keys().filter(|(id, _)| id == twin).count() > 1);
        effects
    }

    /// Suspects a process: deliveries that it has not begun go to others.
    fn suspect(&mut self, seat: &Seat, now: Timestamp) -> Vec<Effect> {
        let Some(process) = self.processes.get_mut(seat) else {
            return Vec::new();
        };
        process.suspected_at = Some(now);
        let held = std::mem::take(&mut process.lease.held);
        let count = u32::try_from(held.len()).unwrap_or(u32::MAX);
        let (begun, waiting) = split(held, &process.lease);
        process.lease.held = begun;
        let (role, zkvm) = (process.lease.role, process.lease.zkvm.clone());
        self.looks.silent(seat.clone(), role, zkvm.clone(), now);
        let mut effects = vec![Effect::Announce(Happening::ProverSuspected {
            prover: seat.0.name.clone(),
            zkvm,
            role,
            held: count,
        })];
        // A lease may list a delivery that another process has by now.
        for held in self.held_nowhere(waiting) {
            self.looks.handed_back(role, key_of(&held));
            effects.push(Effect::GiveBack(seat.0.clone(), role, Box::new(held)));
        }
        effects
    }

    /// Returns effects for the deliveries of a dead process.
    fn died(&mut self, seat: &Seat, end: End, now: Timestamp) -> Vec<Effect> {
        let Some(process) = self.processes.remove(seat) else {
            return Vec::new();
        };
        let mut lease = process.lease;
        let (role, zkvm, held) = (lease.role, lease.zkvm.clone(), std::mem::take(&mut lease.held));
        if role == Role::Prover {
            self.looks.fell(seat.clone(), zkvm.clone(), end, now);
        } else {
            self.looks.is_back(seat);
        }
        let prover = seat.0.clone();
        let mut effects = vec![Effect::Announce(Happening::ProverLost {
            prover: prover.name.clone(),
            zkvm,
            role,
            held: u32::try_from(held.len()).unwrap_or(u32::MAX),
        })];
        // While no watchdog led, the broker's ack wait may have given the delivery to another prover.
        let held = self.held_nowhere(held);
        let (begun, waiting) = if process.suspected_at.is_some() {
            (held, Vec::new())
        } else {
            split(held, &lease)
        };
        effects.extend(begun.into_iter().map(|held| Effect::Report {
            prover: prover.clone(),
            held: Box::new(held),
            end,
            heard_at: process.heard_at,
        }));
        // A delivery that never ran does not count as an attempt.
        effects.extend(
            waiting
                .into_iter()
                .map(|held| Effect::GiveBack(prover.clone(), role, Box::new(held))),
        );
        effects
    }

    /// Returns those of a process's former deliveries that no lease lists. Reads the leases once, because a hostile lease
    /// may list thousands of attempts.
    fn held_nowhere(&self, lost: Vec<Held>) -> Vec<Held> {
        if lost.is_empty() {
            return lost;
        }
        let mut listed: HashMap<(&TaskId, u32), BTreeSet<Claim>> = HashMap::new();
        for (_, held) in self.held() {
            let key = (&held.header.id, held.header.attempt);
            listed.entry(key).or_default().insert(held.header.context.claim());
        }
        let is_listed = |held: &Held| {
            let claims = listed.get(&(&held.header.id, held.header.attempt));
            claims.is_some_and(|claims| claims.contains(&held.header.context.claim()))
        };
        lost.into_iter().filter(|held| !is_listed(held)).collect()
    }

    /// Returns the provers able to work on a zkVM: heard, and not draining.
    pub fn fleet(&self, zkvm: &ZkvmId) -> BTreeSet<Participant> {
        let able = |p: &Process| {
            let Lease { role, state, .. } = p.lease;
            role == Role::Prover
                && state != ProverState::Draining
                && p.lease.zkvm == *zkvm
                && !p.is_suspected()
        };
        let fleet = self.processes.iter().filter(|(_, p)| able(p));
        fleet.map(|((id, _), _)| id.clone()).collect()
    }

    /// Returns the zkVMs with at least one prover or verifier.
    pub fn zkvms(&self) -> BTreeSet<ZkvmId> {
        self.processes.values().map(|p| p.lease.zkvm.clone()).collect()
    }

    /// Returns the number of provers and verifiers that are heard.
    pub fn alive(&self) -> usize {
        self.processes.len() - self.suspected()
    }

    /// Returns the number of provers and verifiers that are silent and not known to be dead.
    pub fn suspected(&self) -> usize {
        self.processes.values().filter(|p| p.is_suspected()).count()
    }

    /// Returns whether TASKS and CHECKS should be compared with the leases now.
    pub fn is_look_due(&mut self, now: Timestamp) -> bool {
        let somebody_is_late = self.late(now).next().is_some();
        self.looks.is_due(somebody_is_late, now)
    }

    /// Compares the attempts in TASKS, or in CHECKS for verifiers, with the leases.
    pub fn look(&mut self, role: Role, present: Vec<AttemptKey>, now: Timestamp) -> Vec<Unheld> {
        let of_role = self.processes.values().filter(|p| p.lease.role == role);
        let held = of_role.flat_map(|p| &p.lease.held).map(key_of).collect();
        let late = self.late(now).filter(|p| p.lease.role == role);
        let late = late.map(|p| p.lease.zkvm.clone()).collect();
        let mut found = self.looks.look(role, present, &held, &late, now);
        found.retain(|unheld| self.is_wanted(unheld, now));
        found
    }

    /// Handles a suspect found not delivered yet.
    pub fn waits(&mut self, role: Role, key: &AttemptKey) {
        self.looks.waits(role, key);
    }

    fn late(&self, now: Timestamp) -> impl Iterator<Item = &Process> {
        let heard = self.processes.values().filter(|p| !p.is_suspected());
        heard.filter(move |p| now.since(p.heard_at) >= LATE_AFTER)
    }
}

pub(super) fn key_of(held: &Held) -> AttemptKey {
    AttemptKey::of(&held.header.zkvm, &held.header.attempt_id())
}

/// Divides the deliveries of a silent process into attempts begun and others. With a free slot, a waiting attempt
/// begins at once, too late for its lease to show.
fn split(held: Vec<Held>, lease: &Lease) -> (Vec<Held>, Vec<Held>) {
    if lease.role == Role::Verifier {
        return (Vec::new(), held);
    }
    let running = held.iter().filter(|held| held.running_ms.is_some()).count();
    let mut free = (lease.slots as usize).saturating_sub(running);
    held.into_iter().partition(|held| {
        let begins = held.running_ms.is_none() && free > 0;
        free -= usize::from(begins);
        held.running_ms.is_some() || begins
    })
}
