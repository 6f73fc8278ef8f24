//! The output: P2, P3 and P7.

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
    /// P2 and P3.
    pub(super) fn record(&mut self, lane: usize, record: &Emission) {
        let view = &mut self.views[lane];
        let number = record.last.number;
        let same = |before: &&Emission| (before.last, before.stored_at) == (record.last, record.stored_at);
        let before = view.get(&number).filter(same);
        if before.is_some_and(|before| matches!(before.outcome, EmissionOutcome::Dead { .. })) {
            return self.amendment(lane, record);
        }
        if let Some((newest, _)) = view.last_key_value() {
            let newest = *newest;
            if number <= newest {
                // A step back is right only if the chain had replaced what stood here.
                let replaced = &view[&number.max(*view.first_key_value().map_or(&0, |(n, _)| n))];
                let told = self.reorgs[lane]
                    .iter()
                    .any(|c| c.hashes.contains(&replaced.last.hash));
                if !told {
                    let what =
                        format!("P2: record {number} after {newest}, which no reorg replaced: {record:?}");
                    return self.break_with(format_args!("{what}"));
                }
                self.rollbacks += 1;
                view.split_off(&number);
            } else if number != newest + 1 {
                return self.break_with(format_args!("P2: record {number} after {newest}"));
            }
        } else if number != self.lanes[lane].first {
            return self.break_with(format_args!("P2: the first record is {number}"));
        }
        let view = &mut self.views[lane];
        if let Some((_, parent)) = view.last_key_value()
            && parent.last.hash != record.parent_hash
        {
            return self.break_with(format_args!("P2: record {number} is no child of the one before"));
        }
        if record.next != number + 1 || view.insert(number, record.clone()).is_some() {
            return self.break_with(format_args!("P3: record {number} twice"));
        }
        self.outcome(lane, record);
    }

    /// Of a block that was dead and is proved after all: once, and nothing else changes.
    fn amendment(&mut self, lane: usize, record: &Emission) {
        let view = &mut self.views[lane];
        // The output may have gone back meanwhile: what it replaces is judged when that comes.
        let goes_on = view
            .range(record.last.number..)
            .any(|(number, _)| record.next == number + 1);
        view.insert(record.last.number, record.clone());
        if !goes_on || !matches!(record.outcome, EmissionOutcome::Proved(_)) {
            return self.break_with(format_args!("P3: {record:?} amends a dead block"));
        }
        self.amended += 1;
        self.outcome(lane, record);
    }

    /// P7.
    fn outcome(&mut self, lane: usize, record: &Emission) {
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
                        return self.break_with(format_args!("P3: a proof of {number} that nobody wanted"));
                    };
                    let is = proofs::number(&proof.payload);
                    let expected = self
                        .expect(lane, &record.last, at)
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
                        "P1: record {number} names a dead letter that nobody stored"
                    ));
                }
            }
            EmissionOutcome::Abandoned(EndReason::Reorged) => {
                self.break_with(format_args!("P1: record {number} was abandoned for a reorg"));
            }
            EmissionOutcome::Abandoned(_) => self.outcomes[2] += 1,
        }
    }

    pub(super) fn expect(&mut self, lane: usize, block: &BlockRef, at: usize) -> &Written {
        let Lane { pipeline, widest, .. } = &self.lanes[lane];
        let compute = || proofs::expected(&pipeline.proofs[at], block, *widest);
        self.expected.entry((lane, *block, at)).or_insert_with(compute)
    }
}
