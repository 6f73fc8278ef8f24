//! Removal of the blobs of emitted blocks.

use super::{Heads, Need, ROUND_MAX, Sweep};
use crate::janitor::frontier::Frontier;
use push0_bus::{BusError, Place};
use push0_domain::{PipelineId, Timestamp, subject};
use std::collections::{BTreeMap, BTreeSet};

/// The numbers that a pipeline has blobs of, ascending.
type Numbers = BTreeMap<PipelineId, BTreeSet<u64>>;

impl Sweep<'_> {
    /// Removes the blobs of emitted blocks: of a pipeline the lowest number first, among pipelines the number whose
    /// newest blob is the oldest. All blobs of a number go at once.
    pub(super) async fn blobs(&mut self, mut need: Need) -> Result<(), BusError> {
        let mut numbers = Numbers::new();
        for place in self.blobs.stored().await?.places.into_keys() {
            numbers.entry(place.pipeline).or_default().insert(place.number);
        }
        let mut heads = Heads::default();
        for (name, frontier) in &self.frontiers {
            let first = self.next_settled(name, *frontier, &mut numbers).await?;
            heads.add(name, *frontier, first);
        }
        let (mut removed, mut rounds) = (0, 0);
        while rounds < ROUND_MAX
            && let Some((name, frontier, (number, newest))) = heads.pop()
        {
            rounds += 1;
            if need.takes(newest) {
                removed += self
                    .blobs
                    .remove(&subject::blobs::of_number(&name, number))
                    .await?;
                if need.room {
                    need.room = self.is_full(Place::Blobs).await?;
                }
            }
            let next = self.next_settled(&name, frontier, &mut numbers).await?;
            heads.add(&name, frontier, next);
        }
        self.removed("blobs", usize::try_from(removed).unwrap_or(usize::MAX));
        Ok(())
    }

    /// Takes the next number whose blocks are all emitted. Returns the number and when its newest blob was stored,
    /// with that time as the order among pipelines.
    async fn next_settled(
        &self,
        name: &PipelineId,
        frontier: Frontier,
        numbers: &mut Numbers,
    ) -> Result<Option<(u64, (u64, Timestamp))>, BusError> {
        while let Some(number) = numbers.get_mut(name).and_then(BTreeSet::pop_first) {
            if number >= frontier.next && !frontier.is_gone {
                return Ok(None);
            }
            if !self.is_settled(name, frontier, number).await? {
                continue;
            }
            if let Some(newest) = self
                .blobs
                .newest(&subject::blobs::of_number(name, number))
                .await?
            {
                return Ok(Some((newest.0, (number, newest))));
            }
        }
        Ok(None)
    }

    /// Returns whether every known block of a number is emitted, or never will be. A block that replaces an emitted
    /// one has its number: its fact, which is stored before its witness, keeps the blobs of both.
    async fn is_settled(&self, name: &PipelineId, frontier: Frontier, number: u64) -> Result<bool, BusError> {
        let mut from = 1;
        while let Some(fact) = self
            .known
            .next(&subject::facts::known_blocks(name, number), from)
            .await?
        {
            from = fact.revision + 1;
            let is_settled = |at| frontier.settles(number, at);
            if fact
                .value
                .is_some_and(|known| !is_settled(known.announced_after.next()))
            {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
