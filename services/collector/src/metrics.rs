//! Metrics of the collector.

use prometheus::{CounterVec, HistogramVec, IntCounterVec, IntGaugeVec};
use push0_domain::{
    PipelineId, ProofType, Timestamp,
    message::{Emission, EmissionOutcome, EndReason, Outcome, TaskResult},
    pipeline::Pipeline,
};
use push0_runtime::metrics::{self, MetricError};
use std::{collections::BTreeMap, time::Duration};

/// The longest time to a record that counts as real-time.
const REAL_TIME: Duration = Duration::from_secs(10);

/// The collector's metrics. Labels are pipelines, outcomes, and proof types, stages and zkVMs of definitions, never blocks.
#[derive(Clone)]
pub(crate) struct Metrics {
    pub(crate) leading: IntGaugeVec,
    pub(crate) pending: IntGaugeVec,
    next: IntGaugeVec,
    pub(crate) refused: IntCounterVec,
    pub(crate) lost: IntCounterVec,
    emitted: IntCounterVec,
    seconds: HistogramVec,
    overhead: HistogramVec,
    stages: HistogramVec,
    busy: CounterVec,
    waits: HistogramVec,
    score: Score,
}

/// The parts of the real-time score.
#[derive(Clone)]
struct Score {
    blocks: IntCounterVec,
    proved: IntCounterVec,
    in_time: IntCounterVec,
    proofs: IntCounterVec,
    held: IntGaugeVec,
}

impl Score {
    fn register() -> Result<Self, MetricError> {
        let by_type = &["pipeline", "proof_type"];
        Ok(Self {
            blocks: metrics::counter_vec(
                "blocks_scored_total",
                "Blocks with a first record, without cancelled and replaced ones",
                &["pipeline"],
            )?,
            proved: metrics::counter_vec(
                "blocks_proved_total",
                "Blocks whose record has a proof of the type",
                by_type,
            )?,
            in_time: metrics::counter_vec(
                "blocks_in_real_time_total",
                "Blocks whose record has a proof of the type, within 10 s of the block's message",
                by_type,
            )?,
            proofs: metrics::counter_vec(
                "proofs_emitted_total",
                "Proofs in records; one for a range",
                by_type,
            )?,
            held: metrics::gauge_vec(
                "proofs_held",
                "Finished proofs of blocks without a record after 20 min, by type",
                by_type,
            )?,
        })
    }

    /// Counts a record. A block whose first record is amended is counted once, and is not in time.
    fn emitted(&self, emission: &Emission, took: Duration) {
        let pipeline = emission.pipeline.as_str();
        let blocks = (emission.last.number - emission.first.number).saturating_add(1);
        let is_first = !emission.amends();
        let proofs = match &emission.outcome {
            EmissionOutcome::Abandoned(EndReason::Cancelled { .. } | EndReason::Reorged) => return,
            EmissionOutcome::Proved(proofs) => proofs.as_slice(),
            _ => &[],
        };
        if is_first {
            self.blocks.with_label_values(&[pipeline]).inc_by(blocks);
        }
        for proof in proofs {
            let labels = [pipeline, proof.proof_type.as_str()];
            self.proofs.with_label_values(&labels).inc();
            self.proved.with_label_values(&labels).inc_by(blocks);
            if is_first && took < REAL_TIME {
                self.in_time.with_label_values(&labels).inc_by(blocks);
            }
        }
    }
}

impl Metrics {
    pub(crate) fn register() -> Result<Self, MetricError> {
        Ok(Self {
            leading: metrics::gauge_vec(
                "collector_leading",
                "1 if this instance collects the pipeline",
                &["pipeline"],
            )?,
            pending: metrics::gauge_vec(
                "results_unacknowledged",
                "Results that wait for the next step",
                &["pipeline"],
            )?,
            next: metrics::gauge_vec("next_block", "The next block number to emit", &["pipeline"])?,
            refused: metrics::counter_vec(
                "reports_refused_total",
                "Reports of participants that changed nothing, by reason",
                &["pipeline", "reason"],
            )?,
            lost: metrics::counter_vec(
                "ranges_lost_total",
                "Ranges that were begun anew, because a prover took a task away and gave no result",
                &["pipeline"],
            )?,
            emitted: metrics::counter_vec(
                "blocks_emitted_total",
                "Records emitted",
                &["pipeline", "outcome"],
            )?,
            seconds: metrics::work_vec(
                "block_seconds",
                "From a block's message stored to its record stored",
                &["pipeline"],
            )?,
            overhead: metrics::latency_vec(
                "overhead_seconds",
                "As block_seconds, without the time in provers and verifiers",
                &["pipeline"],
            )?,
            stages: metrics::work_vec(
                "stage_seconds",
                "Time of completed attempts: proving, transfer of inputs and outputs, verification",
                &["pipeline", "proof_type", "stage", "work"],
            )?,
            busy: metrics::seconds_counter_vec(
                "prover_busy_seconds_total",
                "Time of provers for attempts, those that failed included: proving and transfer",
                &["pipeline", "proof_type", "zkvm"],
            )?,
            waits: metrics::waits()?,
            score: Score::register()?,
        })
    }

    /// Shows the number to emit next.
    pub(crate) fn emits_next(&self, pipeline: &PipelineId, next: u64) {
        self.next
            .with_label_values(&[pipeline.as_str()])
            .set(i64::try_from(next).unwrap_or(i64::MAX));
    }

    /// Counts the end of an attempt.
    pub(crate) fn ended(&self, result: &TaskResult) {
        let header = &result.header;
        let stage = &header.id.stage;
        let (pipeline, proof_type) = (stage.pipeline.as_str(), stage.proof_type.as_str());
        // A prover may report any time; work and transfer within the stage's timeout are believed.
        let longest = Duration::from_millis(header.timeout_ms);
        let seconds = |micros| Duration::from_micros(micros).min(longest).as_secs_f64();
        self.busy
            .with_label_values(&[pipeline, proof_type, header.zkvm.as_str()])
            .inc_by(seconds(result.prove_us) + seconds(result.transfer_us));
        if !matches!(result.outcome, Outcome::Completed { .. }) {
            return;
        }
        let observe = |work, micros| {
            self.stages
                .with_label_values(&[pipeline, proof_type, stage.stage.as_str(), work])
                .observe(seconds(micros));
        };
        observe("prove", result.prove_us);
        observe("transfer", result.transfer_us);
        if let Some(verdict) = &result.verdict {
            observe("verify", verdict.verify_us);
        }
    }

    /// Begins the counters of the score at 0, so that the first record is an increase.
    pub(crate) fn scores(&self, definition: &Pipeline) {
        let (score, pipeline) = (&self.score, definition.name.as_str());
        score.blocks.with_label_values(&[pipeline]);
        for proof in &definition.proofs {
            for counter in [&score.proved, &score.in_time, &score.proofs] {
                counter.with_label_values(&[pipeline, proof.proof_type.as_str()]);
            }
        }
    }

    /// Shows how many finished proofs old blocks have that have no record. A type without one shows 0.
    pub(crate) fn held(&self, definition: &Pipeline, held: &BTreeMap<ProofType, u64>) {
        for proof in &definition.proofs {
            let count = held.get(&proof.proof_type).copied().unwrap_or_default();
            self.score
                .held
                .with_label_values(&[definition.name.as_str(), proof.proof_type.as_str()])
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Counts a record whose proofs were complete at `ready_at`.
    pub(crate) fn emitted(&self, emission: &Emission, ready_at: Option<Timestamp>, now: Timestamp) {
        let pipeline = emission.pipeline.as_str();
        let outcome = match &emission.outcome {
            EmissionOutcome::Proved(_) => "proved",
            EmissionOutcome::Dead { .. } => "dead",
            EmissionOutcome::Abandoned(_) => "abandoned",
        };
        self.emitted.with_label_values(&[pipeline, outcome]).inc();
        self.emits_next(&emission.pipeline, emission.next);
        let total = now.since(emission.stored_at);
        self.score.emitted(emission, total);
        if let Some(ready_at) = ready_at {
            self.waits
                .with_label_values(&[pipeline, "order"])
                .observe(now.since(ready_at).as_secs_f64());
        }
        self.seconds
            .with_label_values(&[pipeline])
            .observe(total.as_secs_f64());
        let overhead = total.saturating_sub(Duration::from_micros(emission.busy_us()));
        self.overhead
            .with_label_values(&[pipeline])
            .observe(overhead.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use push0_domain::{
        Announcement, BlockHash, BlockRef, Payload,
        message::{BlockFacts, Proof},
    };

    fn proof(proof_type: &str) -> Proof {
        Proof {
            proof_type: proof_type.parse().expect("a valid type"),
            zkvm: "mock".parse().expect("a valid zkVM"),
            program_id: None,
            prover: "p".parse().expect("a valid name"),
            verifier: None,
            payload: Payload::Inline(Vec::new()),
            bytes: 0,
            prove_us: 0,
            transfer_us: 0,
            verify_us: 0,
            attempt: 1,
            path: Vec::new(),
            signed: None,
        }
    }

    /// Returns the record of blocks `first..=last`, with `next` as the number to emit next.
    fn record((first, last, next): (u64, u64, u64), outcome: EmissionOutcome) -> Emission {
        let block = |number| BlockRef {
            number,
            hash: BlockHash::default(),
        };
        Emission {
            pipeline: "scored".parse().expect("a valid name"),
            first: block(first),
            last: block(last),
            hashes: Vec::new(),
            standing: Vec::new(),
            parent_hash: BlockHash::default(),
            outcome,
            next,
            announcement: Announcement(1),
            stored_at: Timestamp(0),
            order_us: 0,
            facts: BlockFacts::default(),
        }
    }

    #[test]
    fn each_wanted_block_is_scored_once_and_in_time_below_ten_seconds() {
        let metrics = Metrics::register().expect("the metrics register");
        let proved = |types: &[&str]| EmissionOutcome::Proved(types.iter().map(|kind| proof(kind)).collect());
        let dead = || EmissionOutcome::Dead {
            dead_letter: "id".to_owned(),
            reason: "it failed".to_owned(),
        };
        let note = "not wanted".to_owned();
        let cancelled = EmissionOutcome::Abandoned(EndReason::Cancelled { note });
        let at = |seconds| Timestamp(0).plus(Duration::from_secs(seconds));
        for (record, now) in [
            (record((1, 1, 2), proved(&["a", "b"])), at(9)),
            (record((2, 2, 3), proved(&["a"])), at(10)),
            (record((3, 5, 6), proved(&["a"])), at(1)),
            (
                record((6, 6, 7), EmissionOutcome::Abandoned(EndReason::DeadlinePassed)),
                at(1),
            ),
            (record((7, 7, 8), cancelled), at(1)),
            (record((8, 8, 9), dead()), at(1)),
            // A retry proves block 8 within a second.
            (record((8, 8, 9 + 1), proved(&["a"])), at(1)),
        ] {
            metrics.emitted(&record, None, now);
        }
        let score = &metrics.score;
        let of = |counter: &IntCounterVec, kind| counter.with_label_values(&["scored", kind]).get();
        assert_eq!(score.blocks.with_label_values(&["scored"]).get(), 7);
        assert_eq!((of(&score.proved, "a"), of(&score.proved, "b")), (6, 1));
        assert_eq!((of(&score.in_time, "a"), of(&score.in_time, "b")), (4, 1));
        assert_eq!((of(&score.proofs, "a"), of(&score.proofs, "b")), (4, 1));
    }
}
