//! Audit of an output: every block once, in order, proved and verified.

use crate::record::Record;
use push0_domain::{ProofType, message::EmissionOutcome};
use std::collections::{BTreeSet, HashMap, HashSet};

/// The parts of a record used by the audit.
#[derive(Clone, Copy, Debug)]
struct Seen {
    first: u64,
    last: u64,
    proved: bool,
    verified: bool,
    /// Whether a proof lacks the verdict that it needs.
    lacking: bool,
}

/// Counts of correct and faulty records in an output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Audit {
    /// Blocks with a record, each counted once.
    pub(crate) emitted: usize,
    /// Blocks whose record says proved.
    pub(crate) proved: usize,
    /// Blocks whose proofs were all verified by a verifier.
    pub(crate) verified: usize,
    /// Proved blocks with a proof that needs no verifier and had none.
    pub(crate) unchecked: usize,
    /// Proved blocks with a proof that needs a verifier and had none.
    pub(crate) lacking: usize,
    /// Records that follow the record of a later block.
    pub(crate) inversions: usize,
    /// Second and further records of a block.
    pub(crate) duplicates: usize,
    /// Numbers without a record between the first and the last one.
    pub(crate) missing: u64,
}

impl Audit {
    /// Audits records, given in stream order. A record that amends an older record than these is left out.
    /// Proofs of the `unchecked` types need no verifier.
    pub(crate) fn of(records: &[Record], unchecked: &BTreeSet<ProofType>) -> Self {
        let mut seen: Vec<Seen> = Vec::with_capacity(records.len());
        // Newest record of each number. A later record amends the record of a dead block.
        let mut newest: HashMap<u64, (usize, &Record)> = HashMap::with_capacity(records.len());
        for record in records {
            let emission = &record.emission;
            if emission.amends() && !newest.contains_key(&emission.last.number) {
                continue;
            }
            let new = Seen {
                first: emission.first.number,
                last: emission.last.number,
                proved: !record.proofs().is_empty(),
                verified: record.is_verified(),
                lacking: record.lacks_verdict(unchecked),
            };
            let before = newest.get(&new.last).filter(|(_, before)| {
                let before = &before.emission;
                before.last == emission.last && matches!(before.outcome, EmissionOutcome::Dead { .. })
            });
            let at = before.map_or(seen.len(), |(at, _)| *at);
            newest.insert(new.last, (at, record));
            match seen.get_mut(at) {
                Some(amended) => *amended = new,
                None => seen.push(new),
            }
        }
        Self::walk(seen.into_iter())
    }

    fn walk(records: impl Iterator<Item = Seen>) -> Self {
        let mut audit = Self::default();
        let mut numbers = HashSet::new();
        let (mut lowest, mut highest) = (u64::MAX, None);
        for Seen {
            first,
            last,
            proved,
            verified,
            lacking,
        } in records
        {
            let new = (first..=last).filter(|number| numbers.insert(*number)).count();
            if new as u64 != last - first + 1 {
                audit.duplicates += 1;
            } else if highest.is_some_and(|highest| first < highest) {
                audit.inversions += 1;
            }
            audit.proved += if proved { new } else { 0 };
            audit.verified += if verified { new } else { 0 };
            audit.lacking += if lacking { new } else { 0 };
            audit.unchecked += if proved && !verified && !lacking { new } else { 0 };
            lowest = lowest.min(first);
            highest = highest.max(Some(last));
        }
        audit.emitted = numbers.len();
        audit.missing = highest.map_or(0, |highest| highest - lowest + 1 - numbers.len() as u64);
        audit
    }

    /// Returns the faults as texts; empty if `wanted` blocks are correct.
    pub(crate) fn complaints(&self, wanted: usize) -> Vec<String> {
        let mut complaints = Vec::new();
        let mut complain = |count: u64, what: &str| {
            if count > 0 {
                complaints.push(format!("{count} {what}"));
            }
        };
        complain(wanted.saturating_sub(self.emitted) as u64, "not emitted");
        complain(self.missing, "missing in between");
        complain(self.inversions as u64, "out of order");
        complain(self.duplicates as u64, "emitted twice");
        complain((self.emitted - self.proved) as u64, "not proved");
        complain(self.lacking as u64, "not verified");
        complaints
    }
}

/// Returns the smallest value that at least `percent` percent of the values do not exceed (nearest
/// rank); `None` without values.
pub(crate) fn percentile(values: &mut [i64], percent: usize) -> Option<i64> {
    values.sort_unstable();
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{proof, record};
    use proptest::prelude::*;
    use push0_domain::message::{EmissionOutcome, EndReason};

    fn block(number: u64) -> Seen {
        Seen {
            first: number,
            last: number,
            proved: true,
            verified: true,
            lacking: false,
        }
    }

    fn of(records: &[Record]) -> Audit {
        Audit::of(records, &BTreeSet::new())
    }

    fn walk(numbers: &[u64]) -> Audit {
        Audit::walk(numbers.iter().copied().map(block))
    }

    #[test]
    fn each_fault_is_named() {
        let faults = |numbers: &[u64]| walk(numbers).complaints(3);
        assert_eq!(faults(&[4, 5, 6]), Vec::<String>::new());
        assert_eq!(faults(&[4, 5]), ["1 not emitted"]);
        assert_eq!(faults(&[4, 5, 7]), ["1 missing in between"]);
        assert_eq!(faults(&[4, 6, 5]), ["1 out of order"]);
        assert_eq!(faults(&[4, 5, 5, 6]), ["1 emitted twice"]);
        assert_eq!(faults(&[]), ["3 not emitted"]);
    }

    #[test]
    fn a_block_counts_as_proved_and_verified_only_if_it_is() {
        let records = [
            record(1, EmissionOutcome::Proved(vec![proof(Some("v"))])),
            record(2, EmissionOutcome::Proved(vec![proof(None)])),
            record(3, EmissionOutcome::Abandoned(EndReason::DeadlinePassed)),
        ];
        let audit = of(&records);
        assert_eq!((audit.emitted, audit.proved, audit.verified), (3, 2, 1));
        assert_eq!(audit.complaints(3), ["1 not proved", "1 not verified"]);
    }

    #[test]
    fn a_record_of_a_dead_block_is_amended_once_and_nothing_else_is() {
        let dead = |number| {
            let (dead_letter, reason) = ("5f0c".into(), "failed 3 times".into());
            record(number, EmissionOutcome::Dead { dead_letter, reason })
        };
        let proved = |number| record(number, EmissionOutcome::Proved(vec![proof(Some("v"))]));
        for records in [
            vec![dead(1), proved(2), proved(1)],
            vec![proved(1), dead(2), proved(2)],
        ] {
            assert_eq!(of(&records).complaints(2), Vec::<String>::new());
        }
        let twice = [proved(1), dead(2), proved(2), proved(2)];
        assert_eq!(of(&twice).complaints(2), ["1 emitted twice"]);
    }

    #[test]
    fn a_record_that_amends_an_older_record_than_these_is_left_out() {
        let proved = |number| record(number, EmissionOutcome::Proved(vec![proof(Some("v"))]));
        let mut amended = proved(1);
        amended.emission.next = 9;
        assert_eq!(
            of(&[proved(7), proved(8), amended]).complaints(2),
            Vec::<String>::new()
        );
    }

    #[test]
    fn a_proof_that_the_pipeline_does_not_verify_is_no_complaint() {
        let records = [record(1, EmissionOutcome::Proved(vec![proof(None)]))];
        let audit = Audit::of(&records, &BTreeSet::from(["miden".parse().unwrap()]));
        assert_eq!(audit.complaints(1), Vec::<String>::new());
        assert_eq!((audit.proved, audit.verified, audit.unchecked), (1, 0, 1));
    }

    #[test]
    fn ranges_follow_one_another_without_gaps() {
        let range = |first, last| Seen {
            first,
            last,
            proved: true,
            verified: true,
            lacking: false,
        };
        let audit = Audit::walk([range(0, 99), range(100, 149)].into_iter());
        assert_eq!((audit.emitted, audit.complaints(150)), (150, vec![]));
        let overlapping = Audit::walk([range(0, 99), range(99, 149)].into_iter());
        assert_eq!((overlapping.duplicates, overlapping.emitted), (1, 150));
    }

    proptest! {
        #[test]
        fn an_ascending_output_is_clean_and_any_change_is_seen(
            first in 0..u64::MAX / 2, count in 3..60_usize, a: prop::sample::Index, b: prop::sample::Index,
        ) {
            let clean: Vec<u64> = (first..).take(count).collect();
            prop_assert!(walk(&clean).complaints(count).is_empty());
            let (a, b) = (a.index(count), b.index(count));

            let mut swapped = clean.clone();
            swapped.swap(a, b);
            prop_assert_eq!(walk(&swapped).inversions > 0, a != b);

            let mut repeated = clean.clone();
            repeated.insert(b, clean[a]);
            prop_assert_eq!(walk(&repeated).duplicates, 1);

            let mut shortened = clean.clone();
            shortened.remove(a);
            let inside = a > 0 && a < count - 1;
            prop_assert_eq!(walk(&shortened).missing, u64::from(inside));
            prop_assert!(!walk(&shortened).complaints(count).is_empty());
        }

        #[test]
        fn a_percentile_is_one_of_the_values_with_enough_of_them_below(
            mut values in prop::collection::vec(any::<i64>(), 1..200), percent in 1..=100_usize,
        ) {
            let value = percentile(&mut values, percent).unwrap();
            let below = values.iter().filter(|v| **v <= value).count();
            prop_assert!(below * 100 >= values.len() * percent);
            prop_assert!(values.iter().filter(|v| **v < value).count() * 100 < values.len() * percent);
        }
    }

    #[test]
    fn there_is_no_percentile_of_nothing() {
        assert_eq!(percentile(&mut [], 50), None);
    }
}
