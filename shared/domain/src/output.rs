//! Where the output of a pipeline stands, as its newest records tell it.

use crate::{BlockHash, BlockRef};
use std::collections::BTreeMap;

/// How many records are looked back at: the ingester undoes no deeper reorg.
pub const DEPTH: usize = 64;

/// The number that is emitted next, and the hashes of the blocks emitted last.
///
/// Hashes, because after a reorg a block of an emitted number is wanted again under another hash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Output {
    next: u64,
    emitted: BTreeMap<u64, BlockHash>,
}

impl Output {
    /// An output that goes on with `next` after these blocks.
    pub fn new(next: u64, emitted: BTreeMap<u64, BlockHash>) -> Self {
        Self { next, emitted }
    }

    /// A record of `block` was stored, and `next` follows. A record that amends another changes
    /// nothing here.
    pub fn note(&mut self, block: BlockRef, next: u64) {
        if block.number + 1 != next {
            return;
        }
        // After a reorg the output goes on from a lower number.
        self.emitted.split_off(&next);
        self.emitted.insert(block.number, block.hash);
        while self.emitted.len() > DEPTH {
            self.emitted.pop_first();
        }
        self.next = next;
    }

    /// The number that is emitted next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The blocks emitted last.
    pub fn emitted(&self) -> &BTreeMap<u64, BlockHash> {
        &self.emitted
    }

    /// Whether this very block has its record.
    pub fn is_settled(&self, block: &BlockRef) -> bool {
        let older = self
            .emitted
            .first_key_value()
            .is_some_and(|(first, _)| block.number < *first);
        block.number < self.next
            && self
                .emitted
                .get(&block.number)
                .map_or(older, |hash| *hash == block.hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(number: u64, tag: u8) -> BlockRef {
        BlockRef {
            number,
            hash: BlockHash([tag; 32]),
        }
    }

    fn output(blocks: impl IntoIterator<Item = BlockRef>) -> Output {
        let mut output = Output::default();
        blocks.into_iter().for_each(|b| output.note(b, b.number + 1));
        output
    }

    #[test]
    fn a_block_of_an_emitted_number_and_another_hash_is_not_settled() {
        let output = output([block(5, 1), block(6, 1), block(7, 1)]);
        assert!(output.is_settled(&block(6, 1)) && output.is_settled(&block(1, 9)));
        assert!(!output.is_settled(&block(6, 2)) && !output.is_settled(&block(8, 1)));
    }

    #[test]
    fn after_a_reorg_the_output_goes_on_from_a_lower_number() {
        let output = output([block(5, 1), block(6, 1), block(7, 1), block(6, 2)]);
        assert_eq!(output.next(), 7);
        assert!(!output.is_settled(&block(7, 1)) && output.is_settled(&block(6, 2)));
    }

    #[test]
    fn a_record_that_amends_changes_nothing() {
        let mut output = output([block(5, 1), block(6, 1)]);
        let before = output.clone();
        output.note(block(5, 1), 7);
        assert_eq!(output, before);
    }

    #[test]
    fn memory_is_bounded() {
        assert_eq!(output((0..1000).map(|n| block(n, 1))).emitted().len(), DEPTH);
    }
}
