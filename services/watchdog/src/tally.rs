//! Counts what happens again and again, so that the log tells of it once, and then of counts at a growing distance.
//!
//! A verifier that is frozen for long leaves every check that the broker sends to it unheld: hundreds of lines a minute
//! would hide the others.

use push0_bus::Seldom;
use push0_domain::{ZkvmId, message::Role};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// The distance between the first two lines about a zkVM.
const FIRST: Duration = Duration::from_secs(1);
/// The longest distance. After such a time without another one, the next line begins anew.
const LONGEST: Duration = Duration::from_secs(600);
/// How many zkVMs are counted apart. The longest quiet one is forgotten first.
const ZKVMS_MAX: usize = 256;

/// Deliveries given to another process, by zkVM and role.
#[derive(Debug, Default)]
pub(crate) struct Tally(HashMap<(ZkvmId, Role), Count>);

#[derive(Debug)]
struct Count {
    /// How many came since the last line.
    untold: u64,
    last_at: Instant,
    seldom: Seldom,
}

impl Tally {
    /// Counts one more. Returns the number to tell now, with those that were not told; `None` if no line is due.
    pub(crate) fn count(&mut self, zkvm: &ZkvmId, role: Role, now: Instant) -> Option<u64> {
        self.0
            .retain(|_, count| now.duration_since(count.last_at) < LONGEST);
        let key = (zkvm.clone(), role);
        if !self.0.contains_key(&key) && self.0.len() >= ZKVMS_MAX {
            let quiet = self.0.iter().min_by_key(|(_, count)| count.last_at);
            let quiet = quiet.map(|(key, _)| key.clone());
            quiet.and_then(|quiet| self.0.remove(&quiet));
        }
        let count = self.0.entry(key).or_insert(Count {
            untold: 0,
            last_at: now,
            seldom: Seldom::new(FIRST, LONGEST),
        });
        count.untold = count.untold.saturating_add(1);
        count.last_at = now;
        count
            .seldom
            .is_due(now)
            .then(|| std::mem::take(&mut count.untold))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_told_at_once_and_then_as_counts_at_a_growing_distance() {
        let mut tally = Tally::default();
        let (vm, other) = ("vm".parse().unwrap(), "other".parse().unwrap());
        let began = Instant::now();
        let at = |ms: u64| began + Duration::from_millis(ms);
        let told: Vec<(u64, u64)> = (0..600)
            .filter_map(|n| Some((n, tally.count(&vm, Role::Verifier, at(n * 100))?)))
            .collect();
        assert_eq!(
            told,
            [(0, 1), (10, 10), (30, 20), (70, 40), (150, 80), (310, 160)]
        );
        assert_eq!(tally.count(&vm, Role::Prover, at(60_000)), Some(1));
        assert_eq!(tally.count(&other, Role::Verifier, at(60_000)), Some(1));
        let later = at(60_000) + LONGEST;
        assert_eq!(tally.count(&vm, Role::Verifier, later), Some(1), "it begins anew");
        for number in 0..2 * ZKVMS_MAX {
            let zkvm = format!("vm{number}").parse().unwrap();
            tally.count(&zkvm, Role::Prover, later);
        }
        assert_eq!(tally.0.len(), ZKVMS_MAX);
    }
}
