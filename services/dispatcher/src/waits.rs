//! Remembers when the broker stored the messages whose work waits: for the ages and waits in the metrics, and for the
//! account of a block's time.

use crate::decide::SourceId;
use push0_domain::{Timestamp, ZkvmId, time::micros};
use std::collections::{BTreeMap, HashMap};

/// When the messages were stored that have work to release.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    begun: HashMap<SourceId, Begun>,
    /// The round of releases that comes next.
    round: u64,
}

/// How a message came here.
#[derive(Clone, Copy, Debug)]
struct Begun {
    stored_at: Timestamp,
    /// The round of releases that came next; `None` if the message was held back before.
    round: Option<u64>,
}

impl Waits {
    /// Remembers a message that has work to release, and whether it was held back before.
    pub(crate) fn begin(&mut self, source: SourceId, stored_at: Timestamp, was_held_back: bool) {
        let round = (!was_held_back).then_some(self.round);
        self.begun.insert(source, Begun { stored_at, round });
    }

    /// Handles the end of a round of releases. Work that is still here waits for a place or its pause.
    pub(crate) fn round_is_over(&mut self) {
        self.round = self.round.wrapping_add(1);
    }

    /// Returns how long work of a message that is released now waited for its release, in microseconds. The way of a
    /// message that is released at once is no wait.
    pub(crate) fn held_us(&self, source: SourceId, now: Timestamp) -> u64 {
        let begun = self.begun.get(&source);
        let waited = begun.filter(|begun| begun.round != Some(self.round));
        waited.map_or(0, |begun| micros(now.since(begun.stored_at)))
    }

    /// Forgets a message whose work is released or dropped.
    pub(crate) fn end(&mut self, source: SourceId) {
        self.begun.remove(&source);
    }

    /// Returns when a message was stored that has work to release.
    pub(crate) fn since(&self, source: SourceId) -> Option<Timestamp> {
        self.begun.get(&source).map(|begun| begun.stored_at)
    }

    /// Returns for each zkVM when the oldest message of its waiting work was stored.
    pub(crate) fn oldest<'a>(
        &self,
        waiting: impl Iterator<Item = (&'a ZkvmId, SourceId)>,
    ) -> BTreeMap<&'a ZkvmId, Timestamp> {
        let mut oldest = BTreeMap::new();
        for (zkvm, source) in waiting {
            if let Some(since) = self.since(source) {
                let at = oldest.entry(zkvm).or_insert(since);
                *at = since.min(*at);
            }
        }
        oldest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_message_of_each_zkvm_counts_until_its_work_is_released() {
        let zkvm = |name: &str| name.parse::<ZkvmId>().expect("a valid name");
        let (sp1, zisk) = (zkvm("sp1"), zkvm("zisk"));
        let (old, new, other) = (SourceId::Block(1), SourceId::Stage(1), SourceId::Block(2));
        let mut waits = Waits::default();
        waits.begin(new, Timestamp(20), false);
        waits.begin(old, Timestamp(10), false);
        waits.begin(other, Timestamp(15), false);
        let waiting = [(&sp1, new), (&sp1, old), (&zisk, other)];
        let oldest = waits.oldest(waiting.into_iter());
        assert_eq!(
            oldest,
            BTreeMap::from([(&sp1, Timestamp(10)), (&zisk, Timestamp(15))])
        );
        waits.end(old);
        let oldest = waits.oldest(waiting.into_iter());
        assert_eq!(oldest[&sp1], Timestamp(20));
    }

    #[test]
    fn work_waited_unless_it_is_released_in_the_round_in_which_its_message_came() {
        let (first, late, held_back) = (SourceId::Block(1), SourceId::Stage(2), SourceId::Block(3));
        let mut waits = Waits::default();
        waits.begin(first, Timestamp(10), false);
        assert_eq!(waits.held_us(first, Timestamp(500)), 0);
        waits.round_is_over();
        // Tasks of the same message that found no place wait since it was stored.
        assert_eq!(waits.held_us(first, Timestamp(500)), 490);
        waits.begin(late, Timestamp(480), false);
        waits.begin(held_back, Timestamp(20), true);
        let held =
            |waits: &Waits| [first, late, held_back].map(|source| waits.held_us(source, Timestamp(500)));
        assert_eq!(held(&waits), [490, 0, 480]);
        waits.end(first);
        waits.round_is_over();
        assert_eq!(held(&waits), [0, 20, 480]);
    }
}
