//! Metrics of the janitor.

use push0_domain::Participant;
use push0_runtime::metrics::{self, IntCounterVec, IntGaugeVec, MetricError};
use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

/// How many participants have series of their own: a credential of a fleet signs any number of names.
const NAMED_MAX: usize = 256;
/// The label of further ones. No participant has it as its name.
const OTHERS: &str = "(others)";

/// Counts of removals, by kind.
pub(super) struct Metrics {
    pub(super) removed: IntCounterVec,
    /// How many messages of a participant were removed, by stream. A gauge, so that the first one shows in a rate.
    flooding: IntGaugeVec,
    named: Mutex<BTreeSet<Participant>>,
}

impl Metrics {
    pub(super) fn register() -> Result<Self, MetricError> {
        let metrics = Self {
            removed: metrics::counter_vec(
                "room_removed_total",
                "Entries removed to make room, or after the time for which they are kept",
                &["what"],
            )?,
            flooding: metrics::gauge_vec(
                "participant_flooding",
                "Messages of a participant that were removed: orphaned ones, or blobs beyond its share",
                &["zkvm", "prover", "stream"],
            )?,
            named: Mutex::default(),
        };
        for what in ["facts", "records", "blobs", "junk", "dead-letters"] {
            metrics.removed.with_label_values(&[what]);
        }
        Ok(metrics)
    }

    /// Counts removed messages of a participant.
    pub(super) fn flooded(&self, who: &Participant, stream: &str, count: u64) {
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let name = name_of(&mut named, who);
        let total = self
            .flooding
            .with_label_values(&[who.zkvm.as_str(), name, stream]);
        total.add(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// Returns the label of a participant: its name, for the first ones.
fn name_of<'a>(named: &mut BTreeSet<Participant>, who: &'a Participant) -> &'a str {
    if named.len() < NAMED_MAX {
        named.insert(who.clone());
    }
    if named.contains(who) {
        who.name.as_str()
    } else {
        OTHERS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_names_makes_few_series() {
        let mut named = BTreeSet::new();
        let mut label = |index: usize| {
            let who = Participant {
                zkvm: "mock".parse().unwrap(),
                name: format!("mock-{index}").parse().unwrap(),
            };
            name_of(&mut named, &who).to_owned()
        };
        let labels: BTreeSet<String> = (0..10_000).map(&mut label).collect();
        assert_eq!(labels.len(), NAMED_MAX + 1);
        assert_eq!((label(0).as_str(), label(9_999).as_str()), ("mock-0", OTHERS));
        assert!(OTHERS.parse::<push0_domain::ProverId>().is_err());
    }
}
