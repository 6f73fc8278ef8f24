//! The plan of a seed: pipelines, chains and active faults.
//!
//! Each seed turns some kinds of fault off, because faults can hide one another.

use crate::chance::Chance;
use push0_domain::{
    PipelineId, ProofType, SealKeys, StageName, ZkvmId,
    message::StageKind,
    pipeline::{Pipeline, Policy, ProofSpec, Rest, Source, Stage, Verify},
    retry::Retry,
    seal_keys::SealKey,
};
use std::{sync::Arc, time::Duration};

/// Frequency of each fault, in permille unless a field says otherwise. Zero turns a fault off.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    /// Lost answers: the sender stores its message twice.
    pub(crate) repeated: u64,
    /// Lost acknowledgements of provers. A crashing service loses the end of its sent messages ten
    /// times as often.
    pub(crate) acks_lost: u64,
    /// Duplicate deliveries of a message.
    pub(crate) redelivered: u64,
    /// Heartbeats lost on the way.
    pub(crate) beats_lost: u64,
    /// Messages with a long delay.
    pub(crate) delayed: u64,
    /// Attempts with a failure.
    pub(crate) failures: u64,
    /// Final failures among the failed attempts.
    pub(crate) fatal: u64,
    /// Attempts with a false proof.
    pub(crate) lies: u64,
    /// Slow attempts, of 500 ms or more.
    pub(crate) slow: u64,
    /// Attempts without an end.
    pub(crate) hangs: u64,
    /// Mean time between crashes of one service, in milliseconds; 0 for no crashes.
    pub(crate) service_crash_ms: u64,
    /// Mean time between deaths of one prover, in milliseconds; 0 for no deaths.
    pub(crate) prover_death_ms: u64,
    /// Freezes in place of deaths.
    pub(crate) freezes: u64,
    /// Reorgs among the moves of the chain.
    pub(crate) reorgs: u64,
    /// Reorgs back to the replaced blocks.
    pub(crate) flips: u64,
    /// Moves of the chain in which an operator cancels some blocks.
    pub(crate) cancels: u64,
    /// Dead letters retried by an operator.
    pub(crate) retries: u64,
    /// Messages before which the broker's clock jumps by minutes, forward or back.
    pub(crate) clock_jumps: u64,
}

impl Faults {
    /// Draws the faults of a seed, about half of them off.
    pub(crate) fn draw(chance: &mut Chance) -> Self {
        let mut some = |low, high| {
            let value = chance.between(low, high);
            if chance.hit(500) { value } else { 0 }
        };
        Self {
            repeated: some(5, 60),
            acks_lost: some(5, 80),
            redelivered: some(5, 60),
            beats_lost: some(5, 50),
            delayed: some(5, 60),
            failures: some(20, 300),
            fatal: some(10, 200),
            lies: some(20, 200),
            slow: some(20, 150),
            hangs: some(5, 60),
            service_crash_ms: some(200, 4000),
            prover_death_ms: some(1000, 8000),
            freezes: some(100, 600),
            reorgs: some(50, 350),
            flips: some(200, 600),
            cancels: some(30, 150),
            retries: some(200, 900),
            clock_jumps: some(10, 300),
        }
    }
}

/// A pipeline, its chain's length, and the width of its splits.
#[derive(Clone, Debug)]
pub(crate) struct Lane {
    pub(crate) pipeline: Arc<Pipeline>,
    pub(crate) first: u64,
    pub(crate) blocks: u64,
    pub(crate) widest: u64,
    /// Number of blocks dispatched ahead of the output.
    pub(crate) ahead: u64,
}

/// All decisions of a seed made before the run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) faults: Faults,
    pub(crate) lanes: Vec<Lane>,
    pub(crate) zkvms: Vec<ZkvmId>,
    /// Number of blocks the dispatcher takes in ahead of each output.
    pub(crate) ahead: u64,
    /// Limit of a collector's memory for the content of messages, in bytes.
    pub(crate) room: usize,
    /// The keys of the seals.
    pub(crate) keys: SealKeys,
}

impl Plan {
    pub(crate) fn draw(chance: &mut Chance) -> Self {
        let faults = Faults::draw(chance);
        let zkvms: Vec<ZkvmId> = ["alpha", "beta"]
            .iter()
            .map(|id| valid(ZkvmId::new(id)))
            .collect();
        let count = chance.one_of(&[1, 1, 2, 3]);
        let ahead = chance.one_of(&[1, 2, 4, 100]);
        let lanes = (0..count).map(|at| lane(chance, at, &zkvms, ahead)).collect();
        let room = chance.one_of(&[0, 1500, 6000, usize::MAX]);
        Self {
            faults,
            lanes,
            zkvms,
            ahead,
            room,
            keys: SealKeys::new(SealKey::new([7; 32])),
        }
    }
}

fn lane(chance: &mut Chance, at: usize, zkvms: &[ZkvmId], ahead: u64) -> Lane {
    let shape = chance.below(8);
    let attempts = u32::try_from(chance.between(1, 4)).unwrap_or(1);
    let hedge = chance.hit(400).then(|| Duration::from_millis(500));
    let verify = chance.one_of(&[Verify::Final, Verify::Final, Verify::EveryStage, Verify::Off]);
    let main = chance.below(zkvms.len());
    let fastest = Duration::from_millis(chance.one_of(&[0, 0, 100, 700]));
    let more_memory = chance.hit(300);
    let stage = |name: &str, kind, arity, zkvm: usize| Stage {
        name: valid(StageName::new(name)),
        kind,
        zkvm: zkvms[zkvm].clone(),
        arity,
        every: None,
        close_after: None,
        split_on_failure: false,
        timeout: Duration::from_millis(1500),
        attempts,
        deaths: 10,
        retry: Retry {
            first: Duration::from_millis(50),
            longest: Duration::from_millis(400),
        },
        hedge_after: hedge,
        fastest,
        more_memory: more_memory.then(|| zkvms[1 - zkvm].clone()),
    };
    let range = Stage {
        every: Some(u32::try_from(chance.between(1, 5)).unwrap_or(1)),
        close_after: Some(Duration::from_millis(chance.between(200, 3000))),
        split_on_failure: chance.hit(500),
        ..stage(
            "range",
            StageKind::Range,
            chance.one_of(&[None, Some(2)]),
            1 - main,
        )
    };
    let proof = |name: &str, zkvm: usize, stages| ProofSpec {
        proof_type: valid(ProofType::new(name)),
        zkvm: zkvms[zkvm].clone(),
        program_id: None,
        verify,
        stages,
    };
    let single_named = |name, zkvm| vec![stage(name, StageKind::Map, None, zkvm)];
    let single = |zkvm| single_named("prove", zkvm);
    let split = |arity, zkvm| {
        vec![
            stage("split", StageKind::Split, None, zkvm),
            stage("segment", StageKind::Map, None, zkvm),
            stage("join", StageKind::Join, arity, 1 - zkvm),
            stage("wrap-up", StageKind::Map, None, zkvm),
        ]
    };
    let (proofs, quorum) = match shape {
        0 | 1 => (vec![proof("main", main, single(main))], 1),
        2 => (vec![proof("main", main, split(None, main))], 1),
        3 => (vec![proof("main", main, split(Some(3), main))], 1),
        6 => (vec![proof("main", main, [single(main), vec![range]].concat())], 1),
        7 => {
            let all = [single(main), vec![range], single_named("wrap", main)].concat();
            (vec![proof("main", main, all)], 1)
        }
        _ => (
            vec![proof("left", 0, single(0)), proof("right", 1, split(Some(2), 1))],
            if shape == 4 { 1 } else { 2 },
        ),
    };
    let policy = if shape < 6 && chance.hit(250) {
        let within = Duration::from_millis(chance.between(500, 6000));
        Policy::Deadline { within }
    } else {
        Policy::OldestFirst
    };
    let pipeline = Pipeline {
        name: valid(PipelineId::new(&format!("lane-{at}"))),
        revision: 1,
        policy,
        weight: chance.one_of(&[1, 1, 3]),
        source: Source::External,
        quorum,
        rest: chance.one_of(&[Rest::Stop, Rest::Finish]),
        proofs,
    };
    // The blocks of a range are needed together, so dispatch must reach two ranges ahead.
    let every = pipeline.range().and_then(|range| range.every).unwrap_or(0);
    Lane {
        ahead: ahead.max(2 * u64::from(every)),
        pipeline: Arc::new(pipeline),
        first: chance.between(0, 9),
        blocks: chance.between(2, 9),
        widest: chance.between(2, 13),
    }
}

/// Unwraps a name built from a constant of this crate.
#[expect(clippy::panic, reason = "an invalid constant is a mistake in this file")]
pub(crate) fn valid<T, E: std::fmt::Display>(name: Result<T, E>) -> T {
    name.unwrap_or_else(|error| panic!("{error}"))
}
