//! Simulated proofs: one number per payload, a function of the inputs.
//!
//! An honest prover writes the number and a liar writes another number. The block determines the outputs of
//! each of its tasks. So a join that misses an input, takes an input twice or takes inputs out of order
//! yields a proof that an honest verifier refuses.

use crate::chance::mix;
use push0_domain::{
    BlockRef, Payload, Payloads,
    message::StageKind,
    pipeline::{ProofSpec, Stage},
};

/// Returns a number as a payload.
pub(crate) fn payload(number: u64) -> Payload {
    Payload::Inline(number.to_le_bytes().to_vec())
}

/// Returns the number in a payload; 0 for a payload without a number.
pub(crate) fn number(payload: &Payload) -> u64 {
    match payload {
        Payload::Inline(bytes) => bytes.as_slice().try_into().map_or(0, u64::from_le_bytes),
        _ => 0,
    }
}

/// Returns the witness of a block, which its first stage reads.
pub(crate) fn witness(block: &BlockRef) -> u64 {
    let [a, b, c, d, ..] = block.hash.0;
    mix(block.number << 32 | u64::from(u32::from_le_bytes([a, b, c, d])))
}

/// Returns the number of parts made by a split of `input`.
pub(crate) fn width(input: u64, widest: u64) -> u64 {
    1 + mix(input ^ 0x51) % widest
}

/// Returns the outputs of a task with these inputs.
pub(crate) fn run(stage: &Stage, widest: u64, inputs: &[u64]) -> Vec<u64> {
    let all = inputs
        .iter()
        .fold(mix(stage.name.as_str().len() as u64), |all, input| {
            mix(all.rotate_left(7) ^ input)
        });
    match stage.kind {
        StageKind::Split => (0..width(all, widest)).map(|part| mix(all ^ part)).collect(),
        _ => vec![all],
    }
}

/// The outputs of each task, by stage and index.
pub(crate) type Written = Vec<Vec<Vec<u64>>>;

/// Returns the expected outputs of each task for a block or for the blocks of a range. For a range, the
/// stages of its last block come first, then those of the range.
pub(crate) fn expected(spec: &ProofSpec, blocks: &[BlockRef], widest: u64) -> Written {
    let range = spec
        .stages
        .iter()
        .position(|stage| stage.kind == StageKind::Range);
    let (own, shared) = spec.stages.split_at(range.unwrap_or(spec.stages.len()));
    let each = blocks
        .iter()
        .map(|block| written(own, vec![witness(block)], widest));
    let each: Vec<Written> = each.collect();
    let last = |stages: &Written| {
        stages
            .last()
            .and_then(|tasks| tasks.last().cloned())
            .unwrap_or_default()
    };
    let inputs = each.iter().flat_map(last).collect();
    let mut stages = each.last().cloned().unwrap_or_default();
    stages.extend(written(shared, inputs, widest));
    stages
}

fn written(of: &[Stage], mut inputs: Vec<u64>, widest: u64) -> Written {
    let mut stages = Vec::new();
    for stage in of {
        let mut tasks: Vec<Vec<u64>> = Vec::new();
        match (stage.kind, stage.arity) {
            (StageKind::Map, _) => tasks.extend(inputs.iter().map(|i| run(stage, widest, &[*i]))),
            (StageKind::Join | StageKind::Range, Some(arity)) => {
                let mut level = inputs.clone();
                loop {
                    let next: Vec<Vec<u64>> = level
                        .chunks(arity as usize)
                        .map(|c| run(stage, widest, c))
                        .collect();
                    level = next.concat();
                    tasks.extend(next);
                    if level.len() <= 1 {
                        break;
                    }
                }
            }
            _ => tasks.push(run(stage, widest, &inputs)),
        }
        inputs = match (stage.kind, stage.arity) {
            (StageKind::Join | StageKind::Range, Some(_)) => tasks.last().cloned().unwrap_or_default(),
            _ => tasks.concat(),
        };
        stages.push(tasks);
    }
    stages
}

/// Returns the numbers in a list of payloads.
pub(crate) fn numbers(payloads: &Payloads) -> Vec<u64> {
    (0..payloads.count())
        .map(|i| payloads.get(i).as_ref().map_or(0, number))
        .collect()
}
