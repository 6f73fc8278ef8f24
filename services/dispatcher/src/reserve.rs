//! Keeps room in the blob store for the outputs of everything released, and for the blocks to emit next. Pure.
//!
//! A full store empties only when blocks are emitted. If outputs of later blocks took the room that the next block's
//! output needs, nothing would ever be emitted. So work that is not needed next is released only while the free room
//! holds one output of every outstanding attempt, of the new one, and of the next block of each pipeline. The size of
//! an output is the largest one seen of late, not a setting. Where proofs are verified, only a verdict makes a size
//! believed: by claims of huge outputs, one prover would hold up the work of all others.

use push0_bus::Level;
use push0_domain::{ZkvmId, payload::PAYLOAD_MAX};
use std::collections::{BTreeMap, VecDeque};

/// Of how many completed attempts of a zkVM the largest output counts: outputs that have become smaller are soon
/// believed.
const SEEN_MAX: usize = 32;
/// The size assumed of an output before one was seen, in bytes. It bounds the first releases of a small store only.
const ASSUMED: u64 = 2 << 20;
/// The part of the store's limit, in percent, that released work may fill.
const FILLED_PERCENT: u64 = 90;

/// The room of the blob store, and the sizes of outputs.
#[derive(Debug, Default)]
pub struct Reserve {
    /// The room for released work, in bytes; `None` before the first look.
    limit: Option<u64>,
    used: u64,
    /// Outputs stored since the last look began, and before that but after the last level.
    stored: u64,
    stored_before: u64,
    outputs: BTreeMap<ZkvmId, VecDeque<u64>>,
}

impl Reserve {
    /// Notes that the store's level is being read: the answer contains all outputs stored so far.
    pub fn looks(&mut self) {
        self.stored_before = self.stored_before.saturating_add(self.stored);
        self.stored = 0;
    }

    /// Handles the answer.
    pub fn sees(&mut self, level: &Level) {
        self.limit = Some(level.bytes_max.saturating_mul(FILLED_PERCENT) / 100);
        self.used = level.bytes;
        self.stored_before = 0;
    }

    /// Handles a completed attempt without a check, whose outputs take up `bytes` in the store.
    pub fn stores(&mut self, zkvm: &ZkvmId, bytes: u64) {
        self.stored = self.stored.saturating_add(self.possible(bytes));
        self.believes(zkvm, bytes);
    }

    /// Handles a completed attempt that waits for its verdict. Of a size not believed yet, the next look at the
    /// store's level tells the truth.
    pub fn claims(&mut self, zkvm: &ZkvmId, bytes: u64) {
        let bytes = self.possible(bytes).min(self.size(zkvm));
        self.stored = self.stored.saturating_add(bytes);
    }

    /// Returns a number of bytes, as far as it is possible. More than an output may have, or than the store can hold, is a
    /// mistake or a lie.
    fn possible(&self, bytes: u64) -> u64 {
        bytes.min(PAYLOAD_MAX).min(self.limit.unwrap_or(u64::MAX))
    }

    /// Handles outputs of this size, stored before, that have their verdict.
    pub fn believes(&mut self, zkvm: &ZkvmId, bytes: u64) {
        let bytes = self.possible(bytes);
        let seen = self.outputs.entry(zkvm.clone()).or_default();
        seen.push_back(bytes);
        if seen.len() > SEEN_MAX {
            seen.pop_front();
        }
    }

    /// Returns whether there is room for one more attempt of a zkVM that is not needed next. `outstanding` counts the
    /// released attempts of each zkVM, and `heads` the pipelines.
    pub fn fits<'a>(
        &self,
        zkvm: &ZkvmId,
        outstanding: impl Iterator<Item = (&'a ZkvmId, usize)>,
        heads: usize,
    ) -> bool {
        let Some(limit) = self.limit else { return true };
        let (mut needed, mut largest) = (self.size(zkvm), self.size(zkvm));
        for (other, count) in outstanding {
            let size = self.size(other);
            needed = needed.saturating_add(size.saturating_mul(count as u64));
            largest = largest.max(size);
        }
        needed = needed.saturating_add(largest.saturating_mul(heads.max(1) as u64));
        let used = self
            .used
            .saturating_add(self.stored)
            .saturating_add(self.stored_before);
        needed == 0 || used.saturating_add(needed) <= limit
    }

    fn size(&self, zkvm: &ZkvmId) -> u64 {
        let seen = self.outputs.get(zkvm).and_then(|seen| seen.iter().max());
        seen.copied().unwrap_or(ASSUMED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn mock() -> ZkvmId {
        "mock".parse().unwrap()
    }

    fn level(bytes: u64, bytes_max: u64) -> Level {
        Level {
            messages: 1,
            bytes,
            bytes_max,
        }
    }

    fn fits(reserve: &Reserve, outstanding: usize) -> bool {
        reserve.fits(&mock(), std::iter::once((&mock(), outstanding)), 1)
    }

    #[test]
    fn outputs_that_stay_in_messages_need_no_room() {
        let mut reserve = Reserve::default();
        assert!(fits(&reserve, 1_000_000), "nothing is known of the store yet");
        reserve.sees(&level(0, 20 << 20));
        assert!(
            fits(&reserve, 7) && !fits(&reserve, 8),
            "assumed to be 2 MiB each"
        );
        reserve.stores(&mock(), 0);
        assert!(fits(&reserve, 1_000_000));
        reserve.sees(&level(20 << 20, 20 << 20));
        assert!(fits(&reserve, 1_000_000));
    }

    #[test]
    fn an_output_stored_while_the_level_is_read_counts_until_the_next_level() {
        let mut reserve = Reserve::default();
        reserve.sees(&level(0, 100));
        reserve.stores(&mock(), 10);
        reserve.looks();
        reserve.stores(&mock(), 10);
        reserve.sees(&level(10, 100));
        // 90 may be filled; 20 are, and the rest holds 7 outputs.
        assert!(fits(&reserve, 5) && !fits(&reserve, 6));
    }

    #[test]
    fn claims_of_huge_outputs_hold_up_no_work_before_a_verdict() {
        let mut reserve = Reserve::default();
        reserve.sees(&level(0, 1 << 30));
        reserve.believes(&mock(), 100);
        (0..1_000).for_each(|_| reserve.claims(&mock(), PAYLOAD_MAX));
        assert!(fits(&reserve, 1_000));
        reserve.believes(&mock(), PAYLOAD_MAX);
        assert!(!fits(&reserve, 1_000));
    }

    proptest! {
        /// In any order of releases, completions and looks: as long as outputs are no larger than those seen,
        /// the store always has room for one more output, that of the next block.
        #[test]
        fn the_next_block_always_has_room(
            size in 1_u64..2_000,
            events in prop::collection::vec(0_u8..4, 1..400),
        ) {
            const LIMIT: u64 = 10_000;
            let (mut reserve, mut used, mut outstanding) = (Reserve::default(), 0_u64, 0_usize);
            reserve.sees(&level(0, LIMIT));
            reserve.stores(&mock(), size);
            used += size;
            let mut asked = 0;
            for event in events {
                match event {
                    0 if fits(&reserve, outstanding) => outstanding += 1,
                    1 if outstanding > 0 => {
                        outstanding -= 1;
                        used += size;
                        reserve.stores(&mock(), size);
                    }
                    2 => { reserve.looks(); asked = used; }
                    3 if asked > 0 => { reserve.sees(&level(asked, LIMIT)); asked = 0; }
                    _ => {}
                }
                let in_flight = size * outstanding as u64;
                prop_assert!(used.max(size) == size || used + in_flight + size <= LIMIT, "{used} + {in_flight}");
            }
        }
    }
}
