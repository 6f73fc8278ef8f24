//! State of a pipeline's output, derived from its newest records.

use crate::{
    BlockHash, BlockRef,
    message::{Emission, Standing},
    wanted::{self, Announcement, Claim, Demand},
};
use std::collections::BTreeMap;

/// Number of remembered blocks. Of a deeper reorg, the order of announcements tells enough.
pub const DEPTH: usize = 64;

/// A block that has its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// The block's hash, which the next block must have as its parent.
    pub hash: BlockHash,
    /// The announcement that the block's record is about.
    pub announcement: Announcement,
    /// The last number covered by the block's record. For a block listed as `standing` in a later record:
    /// the first number of that record.
    pub covered_to: u64,
}

/// The next number of a pipeline, and its last emitted blocks.
///
/// A record is about every announcement of its number up to and including that of its own block, and about no
/// later one: after a reorg a number is wanted again with another hash, and after a reorg of that reorg the
/// very same block is wanted again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    next: u64,
    emitted: BTreeMap<u64, Emitted>,
}

impl Output {
    /// Creates the state in which `next` is emitted next and `emitted` are the blocks emitted
    /// last, by number.
    pub fn new(next: u64, emitted: BTreeMap<u64, Emitted>) -> Self {
        Self { next, emitted }
    }

    /// Updates the state after a record was stored. An amending record changes nothing.
    pub fn note(&mut self, record: &Emission) {
        if record.amends() {
            return;
        }
        // After a reorg the output continues from a lower number.
        self.emitted.split_off(&record.first.number);
        self.emitted.extend(Emitted::all(record));
        while self.emitted.len() > DEPTH {
            self.emitted.pop_first();
        }
        self.next = record.next;
    }

    /// Returns the next number to emit.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Returns the blocks emitted last, by number; at most [`DEPTH`].
    pub fn emitted(&self) -> &BTreeMap<u64, Emitted> {
        &self.emitted
    }

    /// Returns the demand for work that begins with this block number.
    pub fn assess(&self, number: u64, claim: Claim) -> Demand {
        // Numbers below the newest `DEPTH` blocks are forgotten and count as recorded, unless they were announced
        // after a block above them: then a deep reorg replaced both. While fewer blocks are known, an older number
        // may only be one whose record was not read.
        let is_deep = || {
            let oldest = self.emitted.first_key_value();
            let is_older = |(oldest, record): (&u64, &Emitted)| {
                number < *oldest && claim.announcement <= record.announcement
            };
            self.emitted.len() == DEPTH && oldest.is_some_and(is_older)
        };
        match self.emitted.get(&number) {
            Some(record) => wanted::assess_record(record.announcement, claim),
            None if is_deep() => wanted::assess_record(claim.announcement, claim),
            None => Demand::Wanted,
        }
    }
}

/// Reconstructs an output from its log, reading the newest record first.
#[derive(Debug)]
pub struct Reading {
    output: Output,
    /// Records of numbers below this one are still unread.
    before: u64,
}

impl Reading {
    /// Starts from the newest record of the pipeline.
    pub fn new(newest: &Emission) -> Self {
        let next = newest.next;
        let mut reading = Self {
            output: Output::new(next, BTreeMap::new()),
            before: next,
        };
        if newest.amends() {
            // This record amends an older one, whose number is read in its turn. The `standing` list
            // describes the blocks before `next` as they were when the record was written, and is valid
            // only while the record is the newest.
            reading.learn(Emitted::standing_in(newest, next).collect());
        }
        reading
    }

    /// Returns the number whose newest record should be read next; `None` when enough blocks are known.
    pub fn wants(&self) -> Option<u64> {
        let is_enough = self.output.emitted.len() >= DEPTH;
        self.before.checked_sub(1).filter(|_| !is_enough)
    }

    /// Takes the newest record of the number that [`Self::wants`] returned.
    pub fn read(&mut self, record: &Emission) {
        self.before = self.before.saturating_sub(1).min(record.first.number);
        self.learn(Emitted::all(record).collect());
    }

    fn learn(&mut self, blocks: BTreeMap<u64, Emitted>) {
        let first = blocks.keys().next().copied();
        self.before = self.before.min(first.unwrap_or(self.before));
        for (number, block) in blocks {
            self.output.emitted.entry(number).or_insert(block);
        }
    }

    /// Returns the output as far as its log was read.
    pub fn output(mut self) -> Output {
        let emitted = &mut self.output.emitted;
        while emitted.len() > DEPTH {
            emitted.pop_first();
        }
        self.output
    }
}

impl Emitted {
    /// Returns the blocks that a record covers or lists as standing, by number. The blocks of a range were
    /// announced no later than its last block, so all of them get the announcement of the last one.
    fn all(record: &Emission) -> impl Iterator<Item = (u64, Self)> {
        let standing = (!record.amends()).then(|| Self::standing_in(record, record.first.number));
        let own = record
            .blocks()
            .map(|block| (block, record.announcement, record.last.number));
        let own = own.map(|(block, announcement, covered_to)| {
            let emitted = Self {
                hash: block.hash,
                announcement,
                covered_to,
            };
            (block.number, emitted)
        });
        standing.into_iter().flatten().chain(own)
    }

    fn standing_in(record: &Emission, covered_to: u64) -> impl Iterator<Item = (u64, Self)> {
        record.standing.iter().map(move |standing| {
            let emitted = Self {
                hash: standing.block.hash,
                announcement: standing.announcement,
                covered_to,
            };
            (standing.block.number, emitted)
        })
    }

    /// Returns the standing blocks right before the number `before`, in ascending order: blocks whose
    /// record reaches up to `before` or beyond.
    pub fn standing(emitted: &BTreeMap<u64, Self>, before: u64) -> Vec<Standing> {
        let down = (0..before).rev();
        let cut = down.map_while(|number| {
            let emitted = emitted.get(&number).filter(|e| e.covered_to >= before)?;
            let hash = emitted.hash;
            Some(Standing {
                block: BlockRef { number, hash },
                announcement: emitted.announcement,
            })
        });
        let mut standing: Vec<Standing> = cut.collect();
        standing.reverse();
        standing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        PipelineId, Timestamp,
        message::{BlockFacts, EmissionOutcome, EndReason},
    };

    fn record(number: u64, tag: u8, announcement: u64) -> Emission {
        let block = BlockRef {
            number,
            hash: BlockHash([tag; 32]),
        };
        Emission {
            pipeline: PipelineId::new("demo").unwrap(),
            first: block,
            last: block,
            hashes: Vec::new(),
            standing: Vec::new(),
            parent_hash: BlockHash::default(),
            outcome: EmissionOutcome::Abandoned(EndReason::DeadlinePassed),
            next: number + 1,
            announcement: Announcement(announcement),
            stored_at: Timestamp::default(),
            order_us: 0,
            facts: BlockFacts::default(),
        }
    }

    fn output(records: impl IntoIterator<Item = Emission>) -> Output {
        let mut output = Output::default();
        records.into_iter().for_each(|record| output.note(&record));
        output
    }

    fn is_recorded(output: &Output, number: u64, announcement: u64) -> bool {
        output.assess(number, Claim::first(Announcement(announcement))) == Demand::Recorded
    }

    #[test]
    fn a_block_that_was_announced_after_the_record_of_its_number_is_not_recorded() {
        let output = output([record(5, 1, 50), record(6, 1, 60), record(7, 1, 70)]);
        assert!(is_recorded(&output, 6, 60) && is_recorded(&output, 6, 59));
        assert!(!is_recorded(&output, 6, 61) && !is_recorded(&output, 8, 1));
    }

    #[test]
    fn an_older_number_counts_as_recorded_unless_a_deep_reorg_announced_it_again() {
        let depth = DEPTH as u64;
        let known = |count| output((10..10 + count).map(|n| record(n, 1, 10 * n)));
        assert!(is_recorded(&known(depth), 9, 90) && is_recorded(&known(depth), 3, 100));
        assert!(!is_recorded(&known(depth), 9, 101) && !is_recorded(&known(depth), 3, 5000));
        assert!(!is_recorded(&known(depth - 1), 9, 1));
    }

    #[test]
    fn after_a_reorg_the_output_goes_on_from_a_lower_number() {
        let records = [
            record(5, 1, 50),
            record(6, 1, 60),
            record(7, 1, 70),
            record(6, 2, 80),
        ];
        let output = output(records);
        assert_eq!(output.next(), 7);
        assert!(!is_recorded(&output, 7, 70) && is_recorded(&output, 6, 80));
    }

    #[test]
    fn the_record_of_a_range_is_about_each_of_its_blocks() {
        let range = |first: u64, last: u64| Emission {
            first: BlockRef {
                number: first,
                hash: BlockHash([1; 32]),
            },
            hashes: (first..=last).map(|_| BlockHash([1; 32])).collect(),
            ..record(last, 1, last * 10)
        };
        let mut output = output([record(4, 1, 40), range(5, 8)]);
        assert_eq!((output.next(), output.emitted().len()), (9, 5));
        assert!(is_recorded(&output, 6, 60) && !is_recorded(&output, 6, 81));
        // The chain replaced the blocks of the range from 7 on.
        output.note(&range(7, 9));
        let numbers: Vec<u64> = output.emitted().keys().copied().collect();
        assert_eq!((output.next(), numbers), (10, vec![4, 5, 6, 7, 8, 9]));
        let standing = |before| -> Vec<u64> {
            let standing = Emitted::standing(output.emitted(), before);
            standing.iter().map(|standing| standing.block.number).collect()
        };
        assert_eq!(
            (standing(9), standing(7), standing(5)),
            (vec![7, 8], vec![5, 6], vec![])
        );
        assert!(is_recorded(&output, 5, 80) && is_recorded(&output, 8, 90));
    }

    #[test]
    fn a_record_that_amends_changes_nothing() {
        let mut output = output([record(5, 1, 50), record(6, 1, 60)]);
        let before = output.clone();
        output.note(&Emission {
            next: 7,
            ..record(5, 1, 50)
        });
        assert_eq!(output, before);
    }

    #[test]
    fn what_stands_of_a_range_is_known_also_behind_a_record_that_amends() {
        // A range of 4 and 5; the chain replaced 5; then the record of 3 was amended.
        let range = Emission {
            first: record(4, 1, 0).first,
            hashes: vec![BlockHash([1; 32]); 2],
            ..record(5, 1, 50)
        };
        let stands = Standing {
            block: range.first,
            announcement: Announcement(50),
        };
        let amending = Emission {
            next: 5,
            standing: vec![stands],
            ..record(3, 1, 30)
        };
        let read = |log: &[Emission]| {
            let mut reading = Reading::new(log.last().unwrap());
            while let Some(number) = reading.wants() {
                match log.iter().rev().find(|record| record.last.number == number) {
                    Some(record) => reading.read(record),
                    None => break,
                }
            }
            reading.output()
        };
        let hashes = |output: &Output| -> Vec<(u64, u8)> {
            let all = output.emitted().iter();
            all.map(|(number, emitted)| (*number, emitted.hash.0[0]))
                .collect()
        };
        let mut log = vec![record(3, 1, 30), range, amending];
        let output = read(&log);
        assert_eq!((output.next(), hashes(&output)), (5, vec![(3, 1), (4, 1)]));
        assert_eq!(Emitted::standing(output.emitted(), 5), log[2].standing);
        // The `standing` entry of block 4 is void once the chain has replaced block 4 too.
        log.push(record(4, 2, 90));
        let output = read(&log);
        assert_eq!((output.next(), hashes(&output)), (5, vec![(3, 1), (4, 2)]));
    }

    #[test]
    fn a_record_of_the_largest_number_is_followed_by_no_small_one() {
        let mut last = record(u64::MAX - 1, 1, 1);
        last.last.number = u64::MAX;
        last.first.number = u64::MAX;
        last.hashes = vec![BlockHash([1; 32]), BlockHash([2; 32])];
        assert_eq!(last.blocks().count(), 1);
        last.next = 0;
        assert!(last.amends());
    }

    #[test]
    fn memory_is_bounded() {
        assert_eq!(output((0..1000).map(|n| record(n, 1, n))).emitted().len(), DEPTH);
    }
}
