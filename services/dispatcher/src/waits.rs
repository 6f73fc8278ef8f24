//! Remembers when the broker stored the messages whose work waits, for the ages and waits in the metrics.

use crate::decide::SourceId;
use push0_domain::{Timestamp, ZkvmId};
use std::collections::{BTreeMap, HashMap};

/// When the messages were stored that have work to release.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    stored_at: HashMap<SourceId, Timestamp>,
}

impl Waits {
    /// Remembers a message that has work to release.
    pub(crate) fn begin(&mut self, source: SourceId, stored_at: Timestamp) {
        self.stored_at.insert(source, stored_at);
    }

    /// Forgets a message whose work is released or dropped.
    pub(crate) fn end(&mut self, source: SourceId) {
        self.stored_at.remove(&source);
    }

    /// Returns when a message was stored that has work to release.
    pub(crate) fn since(&self, source: SourceId) -> Option<Timestamp> {
        self.stored_at.get(&source).copied()
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
        waits.begin(new, Timestamp(20));
        waits.begin(old, Timestamp(10));
        waits.begin(other, Timestamp(15));
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
}
