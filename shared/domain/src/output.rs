//! Where the output of a pipeline stands, as its newest records tell it.

use crate::{
    BlockHash, BlockRef, Timestamp,
    message::{Emission, Standing},
};
use std::collections::BTreeMap;

/// How many records are looked back at: the ingester undoes no deeper reorg.
pub const DEPTH: usize = 64;

/// A block that has its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Emitted {
    /// Its hash: what the next block must link to.
    pub hash: BlockHash,
    /// When the broker had stored its announcement.
    pub announced_at: Timestamp,
    /// The last number that its record covers, or that the record which tells of it begins with.
    pub covered_to: u64,
}

/// The number that is emitted next, and the blocks emitted last.
///
/// A record settles what was announced under its number until then, and nothing that is announced
/// later: after a reorg a number is wanted again under another hash, and after a reorg of that reorg
/// the very same block is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    next: u64,
    emitted: BTreeMap<u64, Emitted>,
}

impl Output {
    /// An output that goes on with `next` after these blocks.
    pub fn new(next: u64, emitted: BTreeMap<u64, Emitted>) -> Self {
        Self { next, emitted }
    }

    /// A record was stored. One that amends another changes nothing here.
    pub fn note(&mut self, record: &Emission) {
        if record.last.number + 1 != record.next {
            return;
        }
        // After a reorg the output goes on from a lower number.
        self.emitted.split_off(&record.first.number);
        self.emitted.extend(Emitted::all(record));
        while self.emitted.len() > DEPTH {
            self.emitted.pop_first();
        }
        self.next = record.next;
    }

    /// The number that is emitted next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The blocks emitted last.
    pub fn emitted(&self) -> &BTreeMap<u64, Emitted> {
        &self.emitted
    }

    /// Whether a block that was announced at `announced_at` needs no proof any more.
    pub fn is_settled(&self, number: u64, announced_at: Timestamp) -> bool {
        let record = self.emitted.get(&number);
        // Of what lies deeper nothing is remembered. As long as less than that is known, an older
        // number may as well be one whose record was not seen.
        let is_deep = || {
            let first = self.emitted.first_key_value();
            self.emitted.len() == DEPTH && first.is_some_and(|(first, _)| number < *first)
        };
        record.map_or_else(is_deep, |record| announced_at <= record.announced_at)
    }
}

impl Emitted {
    /// What a record says of blocks, by number. Those of a range were announced no later than the last
    /// of them.
    pub fn all(record: &Emission) -> impl Iterator<Item = (u64, Self)> {
        let standing = record.standing.iter().map(|standing| {
            let (block, announced_at) = (standing.block, standing.announced_at);
            (block, announced_at, record.first.number)
        });
        let own = record
            .blocks()
            .map(|block| (block, record.stored_at, record.last.number));
        standing.chain(own).map(|(block, announced_at, covered_to)| {
            let emitted = Self {
                hash: block.hash,
                announced_at,
                covered_to,
            };
            (block.number, emitted)
        })
    }

    /// The blocks right before this number that stand although the record that covers them reaches
    /// further, from the first to the last.
    pub fn standing(emitted: &BTreeMap<u64, Self>, before: u64) -> Vec<Standing> {
        let down = (0..before).rev();
        let cut = down.map_while(|number| {
            let emitted = emitted.get(&number).filter(|e| e.covered_to >= before)?;
            let hash = emitted.hash;
            Some(Standing {
                block: BlockRef { number, hash },
                announced_at: emitted.announced_at,
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
        PipelineId,
        message::{BlockFacts, EmissionOutcome, EndReason},
    };

    fn record(number: u64, tag: u8, announced_at: u64) -> Emission {
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
            stored_at: Timestamp(announced_at),
            busy_us: 0,
            facts: BlockFacts::default(),
        }
    }

    fn output(records: impl IntoIterator<Item = Emission>) -> Output {
        let mut output = Output::default();
        records.into_iter().for_each(|record| output.note(&record));
        output
    }

    #[test]
    fn a_block_that_was_announced_after_the_record_of_its_number_is_not_settled() {
        let output = output([record(5, 1, 50), record(6, 1, 60), record(7, 1, 70)]);
        assert!(output.is_settled(6, Timestamp(60)) && output.is_settled(6, Timestamp(59)));
        assert!(!output.is_settled(6, Timestamp(61)) && !output.is_settled(8, Timestamp(1)));
    }

    #[test]
    fn an_older_number_is_settled_only_where_no_reorg_reaches() {
        let depth = DEPTH as u64;
        let known = |count| output((10..10 + count).map(|n| record(n, 1, n)));
        assert!(known(depth).is_settled(9, Timestamp(99)));
        assert!(!known(depth - 1).is_settled(9, Timestamp(1)));
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
        assert!(!output.is_settled(7, Timestamp(70)) && output.is_settled(6, Timestamp(80)));
    }

    #[test]
    fn the_record_of_a_range_settles_each_of_its_blocks() {
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
        assert!(output.is_settled(6, Timestamp(60)) && !output.is_settled(6, Timestamp(81)));
        // The chain replaced what the range covered from 7 on.
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
        assert!(output.is_settled(5, Timestamp(80)) && output.is_settled(8, Timestamp(90)));
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
    fn memory_is_bounded() {
        assert_eq!(output((0..1000).map(|n| record(n, 1, n))).emitted().len(), DEPTH);
    }
}
