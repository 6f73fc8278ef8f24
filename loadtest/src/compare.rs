//! Comparison of a pipeline's output with the blocks that went in.

use anyhow::bail;
use push0_bus::{Bus, Stream};
use push0_domain::{
    PipelineId,
    message::{Emission, EmissionOutcome},
    subject,
};
use std::{collections::BTreeMap, ops::RangeInclusive};

/// Faults of an output. A good one has none.
#[derive(Debug, Default)]
pub(crate) struct Comparison {
    /// Blocks without a record.
    pub(crate) lost: Vec<u64>,
    /// Records of blocks that have one already.
    pub(crate) duplicates: u64,
    /// Records of a lower number than the one before.
    pub(crate) inversions: u64,
    /// Blocks that were given up, and why.
    pub(crate) dead: Vec<String>,
}

impl Comparison {
    /// Reads all records of a pipeline that got the blocks `numbers`.
    pub(crate) async fn of(
        bus: &Bus,
        pipeline: &PipelineId,
        numbers: RangeInclusive<u64>,
    ) -> anyhow::Result<Self> {
        let subjects = subject::proofs_of_pipeline(pipeline);
        let records = bus
            .scan::<Emission>(Stream::Proofs, &subjects, 1, usize::MAX)
            .await?;
        let mut comparison = Self::default();
        let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
        let mut last = 0;
        for kept in &records {
            let Ok(emission) = &kept.body else {
                bail!("{} cannot be read", kept.subject);
            };
            for number in emission.first.number..=emission.last.number {
                *seen.entry(number).or_default() += 1;
            }
            comparison.inversions += u64::from(emission.first.number < last);
            if let EmissionOutcome::Dead { reason, .. } = &emission.outcome {
                comparison
                    .dead
                    .push(format!("block {}: {reason}", emission.first.number));
            }
            last = emission.last.number;
        }
        comparison.duplicates = seen.values().map(|times| times - 1).sum();
        comparison.lost = numbers.filter(|number| !seen.contains_key(number)).collect();
        Ok(comparison)
    }

    /// Returns the number of faults.
    pub(crate) fn faults(&self) -> u64 {
        self.lost.len() as u64 + self.duplicates + self.inversions + self.dead.len() as u64
    }
}
