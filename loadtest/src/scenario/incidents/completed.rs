//! Proofs made, as the provers hand them to verifiers: each attempt counts once, however often it is reported.

use anyhow::Context as _;
use push0_bus::{Bus, Signals};
use push0_domain::{
    ProverId, TaskId,
    message::TaskResult,
    subject::{self, Kind},
};
use push0_harness::Process;
use std::collections::{BTreeMap, BTreeSet};

/// Hears of every proof that a verifier is to check.
pub(super) struct Completed {
    signals: Signals,
    seen: Seen,
}

impl Completed {
    pub(super) async fn listen(bus: &Bus) -> anyhow::Result<Self> {
        Ok(Self {
            signals: bus.listen([subject::all(Kind::Check)]).await?,
            seen: Seen::default(),
        })
    }

    /// Listens; returns only with an error.
    pub(super) async fn follow(&mut self) -> anyhow::Error {
        loop {
            match self.signals.next().await {
                Ok(signal) => {
                    if let Ok(TaskResult { header, prover, .. }) = signal.body() {
                        self.seen.hear(header.id, header.attempt, prover);
                    }
                }
                Err(error) => return error.into(),
            }
        }
    }

    /// Returns the number of proofs made of tasks that had one already.
    pub(super) fn again(&self) -> u64 {
        self.seen.again()
    }
}

/// The provers that completed each attempt of each task.
#[derive(Default)]
struct Seen(BTreeMap<TaskId, BTreeSet<(u32, ProverId)>>);

impl Seen {
    fn hear(&mut self, task: TaskId, attempt: u32, prover: ProverId) {
        self.0.entry(task).or_default().insert((attempt, prover));
    }

    fn again(&self) -> u64 {
        self.0.values().map(|proofs| proofs.len() as u64 - 1).sum()
    }
}

/// Returns the number of attempts that a prover has completed since its start.
pub(super) async fn of_prover(prover: &Process) -> anyhow::Result<u64> {
    let metrics = prover.metrics().await;
    let series = "push0_attempts_total{outcome=\"completed\"} ";
    let told = metrics.lines().find_map(|line| line.strip_prefix(series));
    // A prover without a completed attempt has no such line.
    told.map_or(Ok(0), |count| {
        count
            .parse()
            .with_context(|| format!("{}: {count}", prover.label()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use push0_domain::task::StageKey;
    use push0_harness::synthetic_block;

    #[test]
    fn a_second_proof_counts_and_a_second_report_of_one_does_not() {
        let task = |number| {
            let pipeline = "load".parse().unwrap();
            let stage = StageKey {
                block: synthetic_block(&pipeline, number),
                pipeline,
                first: None,
                proof_type: "main".parse().unwrap(),
                stage: "prove".parse().unwrap(),
            };
            stage.task(0)
        };
        let mut seen = Seen::default();
        for (number, attempt, prover) in [(1, 1, "p1"), (1, 1, "p1"), (2, 2, "p1")] {
            seen.hear(task(number), attempt, prover.parse().unwrap());
        }
        assert_eq!(seen.again(), 0);
        seen.hear(task(1), 2, "p2".parse().unwrap());
        assert_eq!(seen.again(), 1);
    }
}
