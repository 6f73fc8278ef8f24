//! The looks at ranges that stand still.
//!
//! A range that waits for a result has a ready stage, a task or a check in some stream (docs/adr/0004), unless a prover
//! acknowledged one and gave no result, or an unreadable one. Only the collector knows which ranges are open,
//! so the collector looks for their work (docs/adr/0043).
//!
//! One look reads STAGES, TASKS and CHECKS, in the order in which work moves through them, and then which message of
//! RESULTS is the newest. If no work was found, and no result of the range is among the results up to that message, its
//! work is lost. Another look, a second later, must find the same.

use crate::intake::Handle;
use push0_domain::{BlockKey, Timestamp};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How long a range must stand before the collector looks for its work.
const STANDS_FOR: Duration = Duration::from_secs(2);
/// The pause after a look that found work.
const NEXT_LOOK: Duration = Duration::from_secs(3);
/// The pause after a look that found none.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// The pause after a range was begun anew; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The ranges that wait for a result.
#[derive(Debug, Default)]
pub(crate) struct Standing(BTreeMap<BlockKey, Stand>);

#[derive(Debug)]
struct Stand {
    /// The newest message about the range.
    newest: Option<Handle>,
    look_at: Timestamp,
    /// The newest message of RESULTS when a look found no work.
    missed: Option<u64>,
    /// How often the range was begun anew.
    times: u32,
}

/// The finds of a look.
#[derive(Clone, Debug, Default)]
pub(crate) struct Look {
    /// The ranges with work in flight.
    pub(crate) in_flight: BTreeSet<BlockKey>,
    /// The newest message of RESULTS, read after the work.
    pub(crate) results_to: u64,
}

impl Standing {
    /// Notes the ranges that wait for a result, each with the newest message about it.
    pub(crate) fn note(&mut self, waiting: BTreeMap<BlockKey, Option<Handle>>, now: Timestamp) {
        self.0.retain(|range, _| waiting.contains_key(range));
        for (range, newest) in waiting {
            let fresh = |times| Stand {
                newest,
                look_at: now.plus(STANDS_FOR),
                missed: None,
                times,
            };
            let stand = self.0.entry(range).or_insert_with(|| fresh(0));
            if stand.newest != newest {
                *stand = fresh(stand.times);
            }
        }
    }

    /// Returns whether to look for the work of a range.
    pub(crate) fn is_look_due(&self, now: Timestamp) -> bool {
        self.0.values().any(|stand| now >= stand.look_at)
    }

    /// Handles a look, by a collector that has read RESULTS up to `read_to`. Returns the ranges whose work is lost, each
    /// with the newest message about it.
    pub(crate) fn looked(
        &mut self,
        look: &Look,
        read_to: u64,
        now: Timestamp,
    ) -> BTreeMap<BlockKey, Option<Handle>> {
        let mut lost = BTreeMap::new();
        for (range, stand) in self.0.iter_mut().filter(|(_, stand)| now >= stand.look_at) {
            if look.in_flight.contains(range) {
                (stand.missed, stand.look_at) = (None, now.plus(NEXT_LOOK));
                continue;
            }
            match stand.missed.take() {
                Some(results_to) if results_to <= read_to => {
                    stand.times += 1;
                    let pause = FIRST_PAUSE.saturating_mul(1 << stand.times.min(6)) / 2;
                    stand.look_at = now.plus(pause.min(LONGEST_PAUSE));
                    lost.insert(*range, stand.newest);
                }
                missed => {
                    stand.missed = missed.or(Some(look.results_to));
                    stand.look_at = now.plus(SECOND_LOOK);
                }
            }
        }
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(1_000_000_000).plus(Duration::from_secs(seconds))
    }

    fn range(last: u64) -> BlockKey {
        BlockKey {
            number: last,
            hash_prefix: [7; 4],
            blocks: 4,
        }
    }

    fn waiting(ranges: &[(u64, Option<u64>)]) -> BTreeMap<BlockKey, Option<Handle>> {
        let ranges = ranges
            .iter()
            .map(|(last, newest)| (range(*last), newest.map(Handle)));
        ranges.collect()
    }

    /// Notes ranges that wait, and returns whether to look.
    fn is_due(standing: &mut Standing, waiting: BTreeMap<BlockKey, Option<Handle>>, now: Timestamp) -> bool {
        standing.note(waiting, now);
        standing.is_look_due(now)
    }

    /// A look that finds work of these ranges.
    fn look(in_flight: &[u64], results_to: u64) -> Look {
        Look {
            in_flight: in_flight.iter().map(|last| range(*last)).collect(),
            results_to,
        }
    }

    #[test]
    fn a_range_whose_work_two_looks_miss_is_lost_and_then_looked_at_ever_more_seldom() {
        let mut standing = Standing::default();
        let ranges = || waiting(&[(7, Some(5)), (11, None)]);
        assert!(!is_due(&mut standing, ranges(), at(0)));
        assert!(!is_due(&mut standing, ranges(), at(1)));
        assert!(is_due(&mut standing, ranges(), at(2)));
        assert_eq!(standing.looked(&look(&[11], 9), 9, at(2)), waiting(&[]));
        assert!(
            !is_due(&mut standing, ranges(), at(2)),
            "a message may be on its way"
        );
        assert!(is_due(&mut standing, ranges(), at(3)));
        assert_eq!(
            standing.looked(&look(&[11], 9), 9, at(3)),
            waiting(&[(7, Some(5))])
        );
        let mut now = 3;
        for pause in [10, 20, 40, 80, 160, 300, 300] {
            standing.looked(&look(&[11], 9), 9, at(now + pause - 1));
            assert_eq!(standing.looked(&look(&[11], 9), 9, at(now + pause)), waiting(&[]));
            now += pause + 1;
            let lost = standing.looked(&look(&[11], 9), 9, at(now));
            assert_eq!(lost, waiting(&[(7, Some(5))]), "after {pause} s");
        }
    }

    #[test]
    fn ranges_with_work_and_ranges_that_move_are_left_alone() {
        for (found, moved, why) in [
            (&[7][..], Some(5), "work is in flight"),
            (&[], Some(6), "a result has come"),
        ] {
            let mut standing = Standing::default();
            standing.note(waiting(&[(7, Some(5))]), at(0));
            standing.looked(&look(&[], 9), 9, at(2));
            standing.note(waiting(&[(7, moved)]), at(3));
            assert_eq!(standing.looked(&look(found, 9), 9, at(3)), waiting(&[]), "{why}");
            assert_eq!(
                standing.looked(&look(&[], 9), 9, at(6)),
                waiting(&[]),
                "looks count only in a row"
            );
        }
        let mut standing = Standing::default();
        standing.note(waiting(&[(7, None)]), at(0));
        standing.looked(&look(&[], 9), 9, at(2));
        assert!(!is_due(&mut standing, waiting(&[]), at(3)));
        assert_eq!(
            standing.looked(&look(&[], 9), 9, at(3)),
            waiting(&[]),
            "it has its record"
        );
    }

    #[test]
    fn nothing_is_lost_while_results_that_a_look_saw_are_unread() {
        let mut standing = Standing::default();
        standing.note(waiting(&[(7, None)]), at(0));
        // More results come with each second. Only those of the first look count.
        for (results_to, read_to, now) in [(9, 3, 2), (12, 8, 3), (15, 8, 4)] {
            let lost = standing.looked(&look(&[], results_to), read_to, at(now));
            assert_eq!(lost, waiting(&[]), "at {now} s");
        }
        assert_eq!(standing.looked(&look(&[], 20), 9, at(5)), waiting(&[(7, None)]));
    }
}
