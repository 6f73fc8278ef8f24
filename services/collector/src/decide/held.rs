//! Counts finished proofs of blocks without a record, for the real-time score.

use super::Collector;
use push0_domain::{BlockHash, ProofType, Timestamp};
use std::collections::BTreeMap;

impl Collector {
    /// Counts by type the finished proofs of blocks that have no record although their announcement was stored before
    /// `before`. The contribution of a block to a range is no proof.
    pub fn held_proofs(&self, before: Timestamp) -> BTreeMap<ProofType, u64> {
        let mut held = BTreeMap::new();
        let blocks = self.blocks.range((self.next, BlockHash::default())..);
        let old = blocks.filter(|(_, block)| block.stored_at < before && block.facts.is_none());
        for (proof_type, _) in old.flat_map(|(_, block)| block.done()) {
            *held.entry(proof_type.clone()).or_default() += 1;
        }
        held
    }
}
