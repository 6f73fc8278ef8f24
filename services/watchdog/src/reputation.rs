//! Which provers to leave alone for a while.
//!
//! A bad machine takes tasks quickly, because it fails them quickly: without a quarantine it eats
//! the budget of every task it touches. One false proof is enough, since a prover that makes one is
//! broken or lies; of deaths and failures it takes three in a row, since tasks can be at fault too.
//! The time doubles with every quarantine that follows soon after the last.

use push0_domain::{ProverId, Timestamp, message::FailureClass};
use serde::{Deserialize, Serialize};
use std::{collections::HashMap, time::Duration};

/// How many bad ends in a row it takes.
const STRIKES: u32 = 3;
/// Bad ends farther apart than this are not in a row.
const STRIKES_WITHIN: Duration = Duration::from_secs(60);
/// The first quarantine, and the longest.
const FIRST: Duration = Duration::from_secs(30);
const LONGEST: Duration = Duration::from_secs(600);
/// How long after a quarantine another one counts as its repetition.
const PROBATION: Duration = Duration::from_secs(600);
/// How often a prover that does not obey is told again.
const REPEAT_AFTER: Duration = Duration::from_secs(1);
/// The most provers that are remembered; the ones heard of longest ago are forgotten.
const PROVERS_MAX: usize = 10_000;

/// A quarantine, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quarantine {
    /// When it ends.
    pub until: Timestamp,
    /// How many there were in a row.
    pub times: u32,
    /// Why.
    pub reason: String,
}

/// What is known of every prover's recent attempts.
#[derive(Debug, Default)]
pub struct Reputation {
    provers: HashMap<ProverId, Record>,
}

#[derive(Debug, Default)]
struct Record {
    strikes: u32,
    struck_at: Timestamp,
    quarantine: Option<Quarantine>,
    told_at: Timestamp,
}

impl Reputation {
    /// Recalls a stored quarantine.
    pub fn recall(&mut self, prover: ProverId, quarantine: Quarantine) {
        self.provers.entry(prover).or_default().quarantine = Some(quarantine);
    }

    /// An attempt was completed, and is valid as far as is known.
    pub fn completed(&mut self, prover: &ProverId) {
        if let Some(record) = self.provers.get_mut(prover) {
            record.strikes = 0;
        }
    }

    /// An attempt ended badly. Returns a new quarantine, which is to be stored and announced.
    pub fn failed(&mut self, prover: &ProverId, class: FailureClass, now: Timestamp) -> Option<Quarantine> {
        let weight = match class {
            FailureClass::InvalidProof => STRIKES,
            FailureClass::Died
            | FailureClass::TimedOut
            | FailureClass::Retryable
            | FailureClass::OutOfMemory => 1,
            // The task's fault, or nobody's.
            FailureClass::Fatal | FailureClass::Stopped => return None,
        };
        self.make_room(prover);
        let record = self.provers.entry(prover.clone()).or_default();
        if now.since(record.struck_at) > STRIKES_WITHIN {
            record.strikes = 0;
        }
        record.strikes += weight;
        record.struck_at = now;
        let is_held = record.quarantine.as_ref().is_some_and(|q| q.until > now);
        if record.strikes < STRIKES || is_held {
            return None;
        }
        let recent = record
            .quarantine
            .as_ref()
            .filter(|q| now.since(q.until) < PROBATION);
        let times = recent.map_or(1, |q| q.times + 1);
        let length = FIRST.saturating_mul(1 << (times - 1).min(8)).min(LONGEST);
        let reason = format!(
            "{} after {} bad attempts in a row",
            class.as_str(),
            record.strikes
        );
        record.strikes = 0;
        record.told_at = now;
        record.quarantine = Some(Quarantine {
            until: now.plus(length),
            times,
            reason,
        });
        record.quarantine.clone()
    }

    fn make_room(&mut self, newcomer: &ProverId) {
        if self.provers.len() >= PROVERS_MAX && !self.provers.contains_key(newcomer) {
            let oldest = self
                .provers
                .iter()
                .min_by_key(|(_, r)| r.struck_at)
                .map(|(id, _)| id.clone());
            oldest.and_then(|id| self.provers.remove(&id));
        }
    }

    /// What a prover that takes work must be told, if it is in quarantine and was not told just now.
    pub fn remind(&mut self, prover: &ProverId, now: Timestamp) -> Option<Quarantine> {
        let record = self.provers.get_mut(prover)?;
        let quarantine = record.quarantine.clone().filter(|q| q.until > now)?;
        if now.since(record.told_at) < REPEAT_AFTER {
            return None;
        }
        record.told_at = now;
        Some(quarantine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(seconds * 1_000_000)
    }

    fn prover() -> ProverId {
        ProverId::new("p-1").unwrap()
    }

    #[test]
    fn one_false_proof_is_enough() {
        let mut reputation = Reputation::default();
        let quarantine = reputation
            .failed(&prover(), FailureClass::InvalidProof, at(1))
            .unwrap();
        assert_eq!(quarantine.until, at(31));
    }

    #[test]
    fn deaths_count_in_a_row_only() {
        let mut reputation = Reputation::default();
        let mut die = |second| reputation.failed(&prover(), FailureClass::Died, at(second));
        assert_eq!(die(1), None);
        assert_eq!(die(2), None);
        assert_eq!(die(100), None, "the first two were too long ago");
        reputation.completed(&prover());
        let mut die = |second| reputation.failed(&prover(), FailureClass::Died, at(second));
        assert_eq!(die(101), None, "a success in between clears");
        assert_eq!(die(102), None);
        assert!(die(103).is_some());
    }

    #[test]
    fn a_task_that_cannot_succeed_is_not_its_provers_fault() {
        let mut reputation = Reputation::default();
        for second in 0..10 {
            assert_eq!(
                reputation.failed(&prover(), FailureClass::Fatal, at(second)),
                None
            );
            assert_eq!(
                reputation.failed(&prover(), FailureClass::Stopped, at(second)),
                None
            );
        }
    }

    #[test]
    fn a_quarantine_that_follows_soon_is_longer_up_to_a_limit() {
        let mut reputation = Reputation::default();
        let mut now = at(0);
        let mut lengths = Vec::new();
        for _ in 0..7 {
            let quarantine = reputation
                .failed(&prover(), FailureClass::InvalidProof, now)
                .unwrap();
            lengths.push(quarantine.until.since(now).as_secs());
            now = quarantine.until.plus(Duration::from_secs(1));
        }
        assert_eq!(lengths, [30, 60, 120, 240, 480, 600, 600]);
    }

    #[test]
    fn a_prover_that_takes_work_in_quarantine_is_reminded_once_a_second_until_it_ends() {
        let mut reputation = Reputation::default();
        reputation.failed(&prover(), FailureClass::InvalidProof, at(0));
        assert_eq!(
            reputation.remind(&prover(), Timestamp(500_000)),
            None,
            "it was told a moment ago"
        );
        assert!(reputation.remind(&prover(), at(1)).is_some());
        assert_eq!(reputation.remind(&prover(), Timestamp(1_500_000)), None);
        assert!(reputation.remind(&prover(), at(29)).is_some());
        assert_eq!(reputation.remind(&prover(), at(30)), None, "it is over");
    }
}
