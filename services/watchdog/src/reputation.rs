//! Decides which provers are quarantined.
//!
//! A bad machine takes tasks quickly, because it fails them quickly: without a quarantine, the budget of
//! every such task is soon used up. But a failure may be the task's fault as well, and a quarantine must
//! never stop all work of a zkVM. Hence:
//!
//! | observation | consequence for the provers |
//! |---|---|
//! | a prover fails a task no other prover has failed | the prover is charged; tasks that die together are one charge |
//! | another prover fails the same task | the task is at fault, and both provers are acquitted |
//! | another prover completes the task | all provers that failed the task are charged |
//! | a prover completes a task | its own charges are dropped |
//! | three charges within a minute, or one false proof | quarantine, unless too many provers are in quarantine already |
//! | the charges behind a quarantine are dropped | the quarantine ends |
//! | all live provers of a zkVM are in quarantine | the quarantine due to end first ends now |
//!
//! At most half of the provers of a zkVM are in quarantine at a time. The duration doubles with every
//! quarantine soon after the last.

use push0_domain::{Participant, TaskId, Timestamp, message::FailureClass};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// Number of charges for a quarantine.
const CHARGES: u32 = 3;
/// Deaths of attempts within this time are one death of their prover.
const ONE_DEATH: Duration = Duration::from_secs(1);
/// Most charges kept for a prover.
const CHARGES_KEPT: usize = 16;
/// How long a charge counts.
const CHARGED_FOR: Duration = Duration::from_secs(60);
/// How long after a quarantine another one counts as its repetition.
const PROBATION: Duration = Duration::from_secs(600);
/// How often an order is repeated to a disobedient prover.
const REPEAT_AFTER: Duration = Duration::from_secs(1);
/// Most provers kept in memory. The ones charged longest ago are forgotten.
const PROVERS_MAX: usize = 10_000;
/// Most failed tasks kept in memory. The ones failed longest ago are forgotten.
const CASES_MAX: usize = 4096;

/// How long quarantines last: the `[quarantine]` section.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Terms {
    /// Duration of a first quarantine.
    #[serde(with = "humantime_serde")]
    pub first: Duration,
    /// Longest duration. Each quarantine soon after the last is twice as long, up to this limit.
    #[serde(with = "humantime_serde")]
    pub longest: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            first: Duration::from_secs(30),
            longest: Duration::from_secs(600),
        }
    }
}

/// A quarantine as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// When the quarantine ends.
    pub until: Timestamp,
    /// How many quarantines there were in a row, this one included.
    pub times: u32,
    /// Why the quarantine began, or why it was ended early.
    pub reason: String,
}

/// A change to store, announce and order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A quarantine began.
    Begun(Participant, Quarantine),
    /// A quarantine was ended early.
    Ended(Participant, Quarantine),
}

/// Recent failures and quarantines of all provers.
#[derive(Debug, Default)]
pub struct Reputation {
    terms: Terms,
    provers: BTreeMap<Participant, Record>,
    cases: BTreeMap<TaskId, Case>,
}

/// A task that failed and was not completed since.
#[derive(Debug, Default)]
struct Case {
    failed_by: BTreeMap<Participant, (Timestamp, FailureClass)>,
    at: Timestamp,
}

#[derive(Clone, Debug)]
struct Charge {
    /// Tasks behind the charge. Several if they died together, since any of them may have killed the prover.
    tasks: Vec<TaskId>,
    at: Timestamp,
    class: FailureClass,
}

#[derive(Debug, Default)]
struct Record {
    charges: Vec<Charge>,
    /// When the prover last completed an attempt.
    completed_at: Timestamp,
    quarantine: Option<Quarantine>,
    /// Charges behind the quarantine.
    grounds: Vec<Charge>,
    /// Whether the end of the quarantine is still to be announced.
    to_end: bool,
    told_at: Timestamp,
}

impl Record {
    fn rests(&self, now: Timestamp) -> bool {
        self.quarantine.as_ref().is_some_and(|q| q.until > now)
    }

    fn end(&mut self, reason: &str, now: Timestamp) -> Option<Quarantine> {
        let quarantine = self.quarantine.as_mut().filter(|q| q.until > now)?;
        quarantine.until = now;
        reason.clone_into(&mut quarantine.reason);
        self.to_end = false;
        self.told_at = now;
        Some(quarantine.clone())
    }
}

impl Charge {
    fn weight(&self) -> u32 {
        match self.class {
            FailureClass::InvalidProof => CHARGES,
            _ => 1,
        }
    }
}

fn weight(charges: &[Charge]) -> u32 {
    charges.iter().map(Charge::weight).sum()
}

impl Reputation {
    /// Creates a reputation without any records.
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            ..Self::default()
        }
    }

    /// Restores a stored quarantine.
    pub fn recall(&mut self, prover: Participant, quarantine: Quarantine, now: Timestamp) {
        if now.since(quarantine.until) >= PROBATION {
            return;
        }
        let record = self.provers.entry(prover).or_default();
        record.to_end = quarantine.until > now;
        record.quarantine = Some(quarantine);
    }

    /// Handles a completed attempt, valid as far as known. `fleet` lists the provers able to work
    /// on the zkVM.
    pub fn completed(
        &mut self,
        task: &TaskId,
        prover: &Participant,
        fleet: &BTreeSet<Participant>,
        now: Timestamp,
    ) -> Vec<Change> {
        if let Some(record) = self.provers.get_mut(prover) {
            record.charges.clear();
            record.completed_at = now;
        }
        let mut failed_by = self.cases.remove(task).unwrap_or_default().failed_by;
        // A success on a prover with more memory is no evidence against the smaller ones.
        let small = failed_by
            .extract_if(.., |other, (_, class)| {
                *class == FailureClass::OutOfMemory && !fleet.contains(other)
            })
            .map(|(other, _)| other);
        let small: Vec<Participant> = small.collect();
        let acquitted = small.iter().filter_map(|other| self.acquit(task, other, now));
        let acquitted: Vec<Change> = acquitted.collect();
        if failed_by.len() + small.len() < 2 || failed_by.is_empty() {
            return acquitted;
        }
        let others = failed_by.into_iter().filter(|(other, _)| other != prover);
        let judged = others.filter_map(|(other, (at, class))| {
            self.charge(task, &other, class, at);
            self.judge(&other, fleet, now)
        });
        acquitted.into_iter().chain(judged).collect()
    }

    /// Handles a failed attempt. `fleet` lists the provers able to work on the zkVM.
    pub fn failed(
        &mut self,
        task: &TaskId,
        prover: &Participant,
        class: FailureClass,
        fleet: &BTreeSet<Participant>,
        now: Timestamp,
    ) -> Vec<Change> {
        if class.is_final() {
            // Final failures are the task's fault, or no fault at all.
            return Vec::new();
        }
        make_room(&mut self.cases, CASES_MAX, task, |case| case.at);
        let case = self.cases.entry(task.clone()).or_default();
        case.failed_by.insert(prover.clone(), (now, class));
        case.at = now;
        if case.failed_by.len() == 1 {
            self.charge(task, prover, class, now);
            return self.judge(prover, fleet, now).into_iter().collect();
        }
        let accused: Vec<Participant> = case.failed_by.keys().cloned().collect();
        accused
            .iter()
            .filter_map(|id| self.acquit(task, id, now))
            .collect()
    }

    fn charge(&mut self, task: &TaskId, prover: &Participant, class: FailureClass, at: Timestamp) {
        make_room(&mut self.provers, PROVERS_MAX, prover, |record| {
            record.charges.last().map_or(record.completed_at, |c| c.at)
        });
        let record = self.provers.entry(prover.clone()).or_default();
        record
            .charges
            .retain(|c| !c.tasks.contains(task) && at.since(c.at) <= CHARGED_FOR);
        if at <= record.completed_at {
            return;
        }
        match record.charges.last_mut() {
            Some(last)
                if last.class == FailureClass::Died
                    && class == last.class
                    && at.since(last.at) < ONE_DEATH =>
            {
                last.tasks.push(task.clone());
            }
            _ => record.charges.push(Charge {
                tasks: vec![task.clone()],
                at,
                class,
            }),
        }
        // A prover that may not be quarantined keeps collecting charges.
        let excess = record.charges.len().saturating_sub(CHARGES_KEPT);
        record.charges.drain(..excess);
    }

    /// Drops a charge, because another prover failed the task too.
    fn acquit(&mut self, task: &TaskId, prover: &Participant, now: Timestamp) -> Option<Change> {
        let record = self.provers.get_mut(prover)?;
        record.charges.retain(|c| !c.tasks.contains(task));
        let before = record.grounds.len();
        record.grounds.retain(|c| !c.tasks.contains(task));
        if record.grounds.len() == before || weight(&record.grounds) >= CHARGES {
            return None;
        }
        let mut ended = record.end("other provers failed the same tasks", now)?;
        // Undo the quarantine: its other charges count again, and `times` leaves the quarantine out.
        record.charges.append(&mut record.grounds);
        ended.times = ended.times.saturating_sub(1);
        record.quarantine = Some(ended.clone());
        Some(Change::Ended(prover.clone(), ended))
    }

    fn judge(
        &mut self,
        prover: &Participant,
        fleet: &BTreeSet<Participant>,
        now: Timestamp,
    ) -> Option<Change> {
        let rest = |id: &&Participant| self.provers.get(*id).is_some_and(|record| record.rests(now));
        let resting = fleet.iter().filter(rest).count();
        let all = fleet.len() + usize::from(!fleet.contains(prover));
        let record = self.provers.get_mut(prover)?;
        record.charges.retain(|c| now.since(c.at) <= CHARGED_FOR);
        let weight = weight(&record.charges);
        if weight < CHARGES || record.rests(now) || 2 * (resting + 1) > all {
            return None;
        }
        let recent = record.quarantine.as_ref();
        let times = recent
            .filter(|q| now.since(q.until) < PROBATION)
            .map_or(0, |q| q.times)
            + 1;
        let length = self.terms.first.saturating_mul(1 << (times - 1).min(8));
        record.grounds = std::mem::take(&mut record.charges);
        let quarantine = Quarantine {
            until: now.plus(length.min(self.terms.longest)),
            times,
            reason: match &record.grounds[..] {
                [only] => format!("{} once", only.class.as_str()),
                charges => format!(
                    "{} failures in a row on tasks no other prover has failed",
                    charges.len()
                ),
            },
        };
        record.told_at = now;
        record.to_end = true;
        record.quarantine = Some(quarantine.clone());
        Some(Change::Begun(prover.clone(), quarantine))
    }

    /// Ends the quarantine due to end first if no other prover of the zkVM is there. `fleet` lists the
    /// provers able to work on the zkVM.
    pub fn relieve(&mut self, fleet: &BTreeSet<Participant>, now: Timestamp) -> Option<Change> {
        let until = |id: &Participant| {
            let record = self.provers.get(id).filter(|record| record.rests(now))?;
            Some((record.quarantine.as_ref()?.until, id.clone()))
        };
        let resting: Option<Vec<_>> = fleet.iter().map(until).collect();
        let (_, first) = resting?.into_iter().min()?;
        let ended = self
            .provers
            .get_mut(&first)?
            .end("no other prover is available", now)?;
        Some(Change::Ended(first, ended))
    }

    /// Forgets provers without any charges or quarantines that count, since names come and go with processes.
    pub fn forget(&mut self, now: Timestamp) {
        self.provers.retain(|_, record| {
            record
                .charges
                .retain(|charge| now.since(charge.at) <= CHARGED_FOR);
            let is_recent = now.since(record.completed_at) <= CHARGED_FOR;
            let quarantine = record.quarantine.as_ref();
            let counts = quarantine.is_some_and(|q| now.since(q.until) < PROBATION);
            is_recent || counts || record.to_end || !record.charges.is_empty()
        });
    }

    /// Returns the provers whose quarantine has expired since the last call.
    pub fn over(&mut self, now: Timestamp) -> Vec<Participant> {
        let mut over = Vec::new();
        for (id, record) in &mut self.provers {
            if record.to_end && !record.rests(now) {
                record.to_end = false;
                over.push(id.clone());
            }
        }
        over
    }

    /// Returns the number of provers in quarantine.
    pub fn resting(&self, now: Timestamp) -> usize {
        self.provers.values().filter(|record| record.rests(now)).count()
    }

    /// Returns a reminder for a prover that rests but should work, or works but should rest: the time left
    /// and the reason. The prover has missed the order, or has restarted.
    pub fn remind(
        &mut self,
        prover: &Participant,
        rests: bool,
        now: Timestamp,
    ) -> Option<(Duration, String)> {
        let record = self.provers.get_mut(prover)?;
        let quarantine = record.quarantine.as_ref()?;
        // The prover's clock may be a little behind.
        let is_late = now.since(quarantine.until) >= REPEAT_AFTER;
        let disobeys = if rests { is_late } else { quarantine.until > now };
        if !disobeys || now.since(record.told_at) < REPEAT_AFTER {
            return None;
        }
        record.told_at = now;
        Some((quarantine.until.since(now), quarantine.reason.clone()))
    }
}

/// Removes the oldest entry if a newcomer would exceed the limit.
fn make_room<K: Ord + Clone, V>(
    map: &mut BTreeMap<K, V>,
    max: usize,
    newcomer: &K,
    age: impl Fn(&V) -> Timestamp,
) {
    if map.len() >= max && !map.contains_key(newcomer) {
        let oldest = map.iter().min_by_key(|(_, value)| age(value));
        if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
            map.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests;
