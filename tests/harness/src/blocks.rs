//! Synthetic blocks and the headers of their tasks, and a check of the records emitted for them.

use push0_bus::Kept;
use push0_domain::{
    Announcement, BlockHash, BlockRef, CriticalPath, PipelineId, StageKey, Timestamp, ZkvmId,
    message::{BlockContext, BlockFacts, Emission, EmissionOutcome, StageKind, TaskHeader},
    seal::Seal,
    trace::TraceContext,
};
use std::ops::RangeInclusive;

/// Returns the hash of block `number` of a pipeline's synthetic chain.
pub fn synthetic_hash(pipeline: &PipelineId, number: u64) -> BlockHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"push0 block\0");
    hasher.update(pipeline.as_str().as_bytes());
    hasher.update(b"\0");
    hasher.update(&number.to_le_bytes());
    BlockHash(*hasher.finalize().as_bytes())
}

/// Returns block `number` of a pipeline's synthetic chain. The parent of block 0 has number 2^64 - 1.
pub fn synthetic_block(pipeline: &PipelineId, number: u64) -> BlockRef {
    BlockRef {
        number,
        hash: synthetic_hash(pipeline, number),
    }
}

/// Returns the unsealed header of the first attempt at a task `main/<stage>` of a synthetic block: a map of one task,
/// without verification.
pub fn synthetic_header(pipeline: &PipelineId, number: u64, zkvm: &ZkvmId, stage: &str) -> TaskHeader {
    let stage = StageKey {
        pipeline: pipeline.clone(),
        block: synthetic_block(pipeline, number),
        first: None,
        proof_type: "main".parse().expect("a name"),
        stage: stage.parse().expect("a name"),
    };
    TaskHeader {
        id: stage.task(0),
        attempt: 1,
        hedge_of: None,
        zkvm: zkvm.clone(),
        context: BlockContext {
            amends: false,
            revision: 1,
            parent_hash: synthetic_hash(pipeline, number.wrapping_sub(1)),
            announcement: Announcement(1),
            stored_at: Timestamp::default(),
            first_announcement: None,
            deadline_at: None,
            facts: BlockFacts::default(),
        },
        kind: StageKind::Map,
        of: 1,
        timeout_ms: 10_000,
        hedge_after_ms: None,
        attempts_max: 3,
        give_up_at: None,
        check: false,
        program_id: None,
        path: CriticalPath::default(),
        seal: Seal::default(),
    }
}

/// Returns the trace under which a synthetic block is published. The trace is derived from the block's hash,
/// so a test can look it up.
pub fn synthetic_trace(pipeline: &PipelineId, number: u64) -> TraceContext {
    let digits = hex::encode(synthetic_hash(pipeline, number).0);
    TraceContext {
        traceparent: Some(format!("00-{}-{}-01", &digits[..32], &digits[32..48])),
        tracestate: None,
    }
}

/// Checks promises P1 to P3 for one pipeline: each block of the range is proved exactly once, in ascending
/// order, without gaps, each the child of the one before.
///
/// # Panics
/// The emissions differ; the message names the first wrong block.
#[track_caller]
pub fn assert_complete_in_order(emissions: &[Kept<Emission>], blocks: RangeInclusive<u64>) {
    let (mut expected, last) = (*blocks.start(), *blocks.end());
    let mut parent: Option<BlockHash> = None;
    for kept in emissions {
        let emission = match &kept.body {
            Ok(emission) => emission,
            Err(error) => panic!("`{}` cannot be read: {error}", kept.subject),
        };
        let Emission { first, last: end, .. } = emission;
        assert!(
            first.number == expected,
            "block {expected} should come next, sequence {} has {first}: {}",
            kept.sequence,
            if first.number < expected {
                "a duplicate, or out of order"
            } else {
                "a gap"
            }
        );
        assert!(
            end.number >= first.number,
            "the range {first} to {end} is backwards"
        );
        if let Some(parent) = parent {
            assert_eq!(
                emission.parent_hash, parent,
                "{first} is not the child of the block before it"
            );
        }
        match &emission.outcome {
            EmissionOutcome::Proved(proofs) => assert!(!proofs.is_empty(), "{first} is proved by nothing"),
            other => panic!("{first} is not proved: {other:?}"),
        }
        assert_eq!(
            emission.next,
            end.number + 1,
            "{end} says that another block comes next"
        );
        parent = Some(end.hash);
        expected = end.number + 1;
    }
    assert!(
        expected == last + 1,
        "emissions end before block {expected}, expected up to {last} ({} emissions)",
        emissions.len()
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use push0_domain::{
        Announcement, Payload, ProofType, ProverId, Timestamp, ZkvmId,
        message::{BlockFacts, EndReason, Proof},
    };

    fn emission(number: u64) -> Emission {
        let pipeline: PipelineId = "demo".parse().unwrap();
        let block = synthetic_block(&pipeline, number);
        Emission {
            first: block,
            last: block,
            hashes: Vec::new(),
            standing: Vec::new(),
            parent_hash: synthetic_hash(&pipeline, number - 1),
            next: number + 1,
            outcome: EmissionOutcome::Proved(vec![Proof {
                proof_type: ProofType::new("main").unwrap(),
                zkvm: ZkvmId::new("mock").unwrap(),
                program_id: None,
                prover: ProverId::new("p1").unwrap(),
                verifier: None,
                payload: Payload::empty(),
                bytes: 0,
                prove_us: 1,
                transfer_us: 0,
                verify_us: 0,
                attempt: 1,
                path: Vec::new(),
                signed: None,
            }]),
            announcement: Announcement(1),
            stored_at: Timestamp(1),
            order_us: 1,
            facts: BlockFacts::default(),
            pipeline,
        }
    }

    fn kept(emissions: impl IntoIterator<Item = Emission>) -> Vec<Kept<Emission>> {
        let keep = |(at, body)| Kept {
            body: Ok(body),
            subject: "s".into(),
            sequence: at as u64 + 1,
            stored_at: Timestamp(1),
            trace: TraceContext::default(),
        };
        emissions.into_iter().enumerate().map(keep).collect()
    }

    fn verdict(emissions: Vec<Kept<Emission>>) -> String {
        // The panic hook prints every panic; these panics are expected, though they look like failures
        // in the output.
        let checked = std::panic::catch_unwind(|| assert_complete_in_order(&emissions, 5..=8));
        match checked {
            Ok(()) => "complete".into(),
            Err(panic) => *panic.downcast::<String>().expect("a message"),
        }
    }

    #[test]
    fn a_complete_run_passes() {
        assert_eq!(verdict(kept((5..=8).map(emission))), "complete");
    }

    #[test]
    fn every_flaw_is_named() {
        let mut orphan = emission(7);
        orphan.parent_hash = BlockHash([0; 32]);
        let mut given_up = emission(6);
        given_up.outcome = EmissionOutcome::Abandoned(EndReason::Reorged);
        let flawed = [
            ("a gap", vec![emission(5), emission(7), emission(8)]),
            (
                "a duplicate",
                vec![emission(5), emission(6), emission(6), emission(7), emission(8)],
            ),
            ("out of order", vec![emission(5), emission(6), emission(5)]),
            ("expected up to 8", vec![emission(5), emission(6)]),
            ("expected up to 8", vec![]),
            ("expected up to 8", (5..=9).map(emission).collect()),
            (
                "not the child",
                vec![emission(5), emission(6), orphan, emission(8)],
            ),
            (
                "is not proved",
                vec![emission(5), given_up, emission(7), emission(8)],
            ),
        ];
        for (flaw, emissions) in flawed {
            let said = verdict(kept(emissions));
            assert!(said.contains(flaw), "expected `{flaw}`: {said}");
        }
    }
}
