//! Checks of the output: P2, P3 and P7.

use super::Promises;
use crate::{
    plan::Lane,
    proofs::{self, Written},
};
use push0_domain::{
    BlockRef,
    message::{Emission, EmissionOutcome, EndReason},
};
use std::collections::BTreeSet;

impl Promises {
    pub(super) fn record(&mut self, lane: usize, record: &Emission) {
        let before = self.views[lane]
            .get(&record.last.number)
            .map(|(_, before)| before);
        // A retried letter may be older than the newest announcement of its block. An amendment is then
        // recognised by its `next`, which does not follow its own last block.
        let amends = record.next != record.last.number + 1;
        let same = |before: &&Emission| {
            let same = (before.first, before.last) == (record.first, record.last);
            same && (amends || record.announcement <= before.announcement)
        };
        let is_dead = |before: &Emission| matches!(before.outcome, EmissionOutcome::Dead { .. });
        let judged = if before.filter(same).is_some_and(is_dead) {
            self.amendment(lane, record)
        } else {
            self.in_order(lane, record)
        };
        match judged {
            Ok(blocks) => self.outcome(lane, record, &blocks),
            Err(broken) => self.break_with(format_args!("{broken}")),
        }
    }

    /// Checks P2 and P3: a record follows the record before, or steps back to the fork of a reorg. Returns
    /// the record's blocks.
    fn in_order(&mut self, lane: usize, record: &Emission) -> Result<Vec<BlockRef>, String> {
        let (first, last) = (record.first.number, record.last.number);
        let blocks: Vec<BlockRef> = record.blocks().collect();
        let numbers: Vec<u64> = blocks.iter().map(|block| block.number).collect();
        let ends = (blocks.first(), blocks.last());
        if numbers != (first..=last).collect::<Vec<_>>() || ends != (Some(&record.first), Some(&record.last))
        {
            return Err(format!("P2: record {first} to {last} is about {blocks:?}"));
        }
        self.step_back(lane, record)?;
        let view = &mut self.views[lane];
        let parent = view.last_key_value().map(|(_, (parent, _))| parent.hash);
        if parent.is_some_and(|parent| parent != record.parent_hash) {
            return Err(format!("P2: record {first} is no child of the one before"));
        }
        if record.next != last + 1 {
            return Err(format!("P3: {} follows on record {last}", record.next));
        }
        for block in &blocks {
            let parent = view.last_key_value().map(|(_, (parent, _))| parent.hash);
            let own = self.parents.get(&(lane, *block)).copied();
            if own.is_none() || parent.is_some_and(|parent| Some(parent) != own) {
                return Err(format!("P2: {block} is no child of the one before"));
            }
            view.insert(block.number, (*block, record.clone()));
        }
        self.ranges += u64::from(blocks.len() > 1);
        Ok(blocks)
    }

    /// Checks that a step back replaces only blocks already replaced on the chain.
    fn step_back(&mut self, lane: usize, record: &Emission) -> Result<(), String> {
        let (begin, first) = (self.lanes[lane].first, record.first.number);
        let view = &mut self.views[lane];
        match view.last_key_value().map(|(number, _)| *number) {
            None if first != begin => Err(format!("P2: the first record is {first}")),
            Some(newest) if first > newest + 1 => Err(format!("P2: record {first} after {newest}")),
            Some(newest) if first <= newest => {
                let replaced = view.get(&first).map(|(block, _)| block.hash).unwrap_or_default();
                if !self.reorgs[lane].iter().any(|c| c.hashes.contains(&replaced)) {
                    let what = format!("P2: record {first} after {newest}, which no reorg replaced");
                    return Err(format!("{what}: {record:?}"));
                }
                self.rollbacks += 1;
                view.split_off(&first);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Checks the amendment of dead blocks: they are now proved, once, and nothing else changes.
    fn amendment(&mut self, lane: usize, record: &Emission) -> Result<Vec<BlockRef>, String> {
        let view = &mut self.views[lane];
        // The output may have stepped back meanwhile. Records of replacing blocks are checked
        // when they arrive.
        let goes_on = view
            .range(record.last.number..)
            .any(|(number, _)| record.next == number + 1);
        let mut blocks = Vec::new();
        for (_, (block, before)) in view.range_mut(record.first.number..=record.last.number) {
            blocks.push(*block);
            *before = record.clone();
        }
        if !goes_on || !matches!(record.outcome, EmissionOutcome::Proved(_)) {
            return Err(format!("P3: {record:?} amends a dead block"));
        }
        self.amended += 1;
        Ok(blocks)
    }

    /// Checks the outcome of a record: its proofs (P3, P7), its dead letter, or its reason to
    /// be abandoned (P1).
    fn outcome(&mut self, lane: usize, record: &Emission, blocks: &[BlockRef]) {
        let number = record.last.number;
        match &record.outcome {
            EmissionOutcome::Proved(proofs) => {
                self.outcomes[0] += 1;
                let types: BTreeSet<_> = proofs.iter().map(|p| &p.proof_type).collect();
                let quorum = self.lanes[lane].pipeline.quorum as usize;
                if types.len() != proofs.len() || proofs.len() < quorum {
                    return self.break_with(format_args!("P3: the proofs of {number} are {types:?}"));
                }
                for proof in proofs {
                    let pipeline = self.lanes[lane].pipeline.clone();
                    let Some(at) = pipeline
                        .proofs
                        .iter()
                        .position(|p| p.proof_type == proof.proof_type)
                    else {
                        return self.break_with(format_args!("P3: an unwanted proof in record {number}"));
                    };
                    let is = proofs::number(&proof.payload);
                    let expected = self
                        .expect(lane, blocks, at)
                        .last()
                        .and_then(|s| s.last())
                        .cloned();
                    if expected != Some(vec![is]) {
                        self.break_with(format_args!("P7: a false proof in record {number}"));
                    }
                }
            }
            EmissionOutcome::Dead { dead_letter, .. } => {
                self.outcomes[1] += 1;
                if !self.letters.contains(dead_letter) {
                    self.break_with(format_args!(
                        "P1: record {number} names a dead letter that was never stored"
                    ));
                }
            }
            EmissionOutcome::Abandoned(EndReason::Reorged) => {
                self.break_with(format_args!("P1: record {number} was abandoned for a reorg"));
            }
            EmissionOutcome::Abandoned(_) => self.outcomes[2] += 1,
        }
    }

    pub(super) fn expect(&mut self, lane: usize, blocks: &[BlockRef], at: usize) -> &Written {
        let Lane { pipeline, widest, .. } = &self.lanes[lane];
        let compute = || proofs::expected(&pipeline.proofs[at], blocks, *widest);
        let key = (lane, blocks.to_vec(), at);
        self.expected.entry(key).or_insert_with(compute)
    }
}
