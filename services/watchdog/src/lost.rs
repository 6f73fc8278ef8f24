//! Finds lost proofs: those without work in flight and without a result.
//!
//! A proof in progress always has a message in some stream: its block's announcement, a ready stage, a task, a check, or
//! the results that the collector joins next (docs/adr/0004). A prover that acknowledges a task and stores no result, or
//! an unreadable one, breaks this: the block would wait for ever, and with it all later blocks. The next
//! block of a pipeline is looked at, since any other becomes the next one, and later blocks if its proofs are lost.
//! In a pipeline with ranges, blocks wait for each other: the first of them that is not ready for its range is looked at,
//! while no range has a result. The collector looks for the work of ranges itself, since only it knows the opened ones.

use push0_domain::{
    BlockKey, ProofType, StageName,
    pipeline::{NextStage, Pipeline, ProofSpec},
    subject::AttemptKey,
};
use std::collections::{BTreeMap, BTreeSet};

/// A result of the next block that the collector holds.
#[derive(Clone, Debug)]
pub struct HeldResult {
    /// The type of the proof.
    pub proof_type: ProofType,
    /// The stage of the attempt.
    pub stage: StageName,
    /// The index of the task.
    pub index: u32,
    /// The number of tasks in the stage.
    pub of: u32,
    /// Whether the attempt completed, with a verdict that it is valid where the pipeline asks for one.
    pub is_completed: bool,
}

/// Returns the lost proofs of a block. `named` are those with a ready stage, a task or a check.
///
/// A failed attempt without a successor may be a dead task: of a block that waits for its turn, or of a proof that the
/// quorum can spare. Such a proof is lost only if the block `is_alive`, as the next one is, and has no work in flight.
pub fn lost_proofs(
    pipeline: &Pipeline,
    is_alive: bool,
    named: &BTreeSet<ProofType>,
    held: &[HeldResult],
) -> BTreeSet<ProofType> {
    let is_lost = |proof: &&ProofSpec| {
        let of_proof = || held.iter().filter(|result| result.proof_type == proof.proof_type);
        let may_be_dead = of_proof().any(|result| !result.is_completed);
        !named.contains(&proof.proof_type)
            && (!may_be_dead || (is_alive && named.is_empty()))
            && !is_complete(proof, of_proof())
    };
    let lost = pipeline.proofs.iter().filter(is_lost);
    lost.map(|proof| proof.proof_type.clone()).collect()
}

/// Returns whether results complete the last stage of a proof, or the last one before its range.
fn is_complete<'a>(proof: &ProofSpec, held: impl Iterator<Item = &'a HeldResult>) -> bool {
    let is_last =
        |stage: &StageName| matches!(proof.next(stage), Some(NextStage::Proof | NextStage::Range(_)));
    let done: Vec<&HeldResult> = held
        .filter(|result| result.is_completed && is_last(&result.stage))
        .collect();
    let Some(any) = done.first() else { return false };
    let is_tree = proof
        .stage(&any.stage)
        .is_some_and(|(_, stage)| stage.arity.is_some());
    let indices: BTreeSet<u32> = done.iter().map(|result| result.index).collect();
    if is_tree {
        indices.contains(&any.of.saturating_sub(1))
    } else {
        indices.len() >= any.of as usize
    }
}

/// Returns the blocks that the range of the next block waits for: by number, those with results of the last stage before
/// the range. Such a result may be a failure. `held` are the attempts of the pipeline with messages in RESULTS, which any
/// prover may store. Returns `None` if the pipeline has no range.
pub fn awaited(
    pipeline: &Pipeline,
    next: u64,
    held: &[AttemptKey],
) -> Option<BTreeMap<u64, BTreeSet<BlockKey>>> {
    let every = pipeline.range()?.every.unwrap_or(1);
    let numbers = next..next.saturating_add(every.into());
    let mut awaited: BTreeMap<u64, BTreeSet<BlockKey>> =
        numbers.map(|number| (number, BTreeSet::new())).collect();
    for attempt in held {
        if let Some((position, range)) = positions(pipeline, attempt)
            && position + 1 == range
            && let Some(blocks) = awaited.get_mut(&attempt.block.number)
        {
            blocks.insert(attempt.block);
        }
    }
    Some(awaited)
}

/// Returns whether a result of this attempt, if it is to be believed, says that a range from this number on is in progress.
pub fn is_in_range(pipeline: &Pipeline, next: u64, attempt: &AttemptKey) -> bool {
    let is_behind = positions(pipeline, attempt).is_some_and(|(position, range)| position >= range);
    is_behind && attempt.block.number >= next
}

/// Returns the positions of an attempt's stage and of the range in the attempt's proof.
fn positions(pipeline: &Pipeline, attempt: &AttemptKey) -> Option<(usize, usize)> {
    let proof = pipeline.proof(&attempt.proof_type)?;
    let (position, _) = proof.stage(&attempt.stage)?;
    let (range, _) = proof.stage(&proof.range()?.name)?;
    Some((position, range))
}

#[cfg(test)]
mod tests {
    use super::*;
    use push0_domain::PipelineId;

    fn demo() -> PipelineId {
        "demo".parse().unwrap()
    }

    const STEPS: &str = r#"
        name = "demo"
        source = { kind = "external" }
        quorum = { valid = 1 }
        [[proof]]
        type = "one"
        zkvm = "vm"
        stage = [{ name = "prove", kind = "map", timeout = "1s" }]
        [[proof]]
        type = "tree"
        zkvm = "vm"
        stage = [
            { name = "split", kind = "split", timeout = "1s" },
            { name = "part", kind = "map", timeout = "1s" },
            { name = "join", kind = "join", arity = 2, timeout = "1s" },
        ]
    "#;

    fn result(proof: &str, stage: &str, (index, of): (u32, u32), is_completed: bool) -> HeldResult {
        HeldResult {
            proof_type: proof.parse().unwrap(),
            stage: stage.parse().unwrap(),
            index,
            of,
            is_completed,
        }
    }

    #[test]
    fn proofs_without_a_message_and_without_all_results_are_lost() {
        let pipeline = Pipeline::from_toml("test.toml", STEPS).unwrap();
        let parts = |count| (0..count).map(|index| result("tree", "part", (index, 4), true));
        let one = || [result("one", "prove", (0, 1), true)];
        let failed = || [result("one", "prove", (0, 1), false)];
        let root = [result("tree", "join", (2, 3), true)];
        let leaf = [result("tree", "join", (1, 3), true)];
        for (is_alive, named, held, lost) in [
            (true, &[][..], vec![], &["one", "tree"][..]),
            (false, &[], vec![], &["one", "tree"]),
            (true, &["one"], vec![], &["tree"]),
            (true, &["one", "tree"], vec![], &[]),
            (true, &[], parts(3).chain(one()).collect(), &["tree"]),
            (true, &["tree"], one().to_vec(), &[]),
            (true, &["tree"], failed().to_vec(), &[]),
            (true, &[], failed().to_vec(), &["one", "tree"]),
            (false, &[], failed().to_vec(), &["tree"]),
            (true, &[], root.to_vec(), &["one"]),
            (true, &[], leaf.to_vec(), &["one", "tree"]),
        ] {
            let named: BTreeSet<ProofType> = named.iter().map(|proof| proof.parse().unwrap()).collect();
            let expected: BTreeSet<ProofType> = lost.iter().map(|proof| proof.parse().unwrap()).collect();
            assert_eq!(
                lost_proofs(&pipeline, is_alive, &named, &held),
                expected,
                "{named:?} {held:?}"
            );
        }
    }

    const RANGES: &str = r#"
        name = "demo"
        source = { kind = "external" }
        [[proof]]
        type = "main"
        zkvm = "vm"
        stage = [
            { name = "split", kind = "split", timeout = "1s" },
            { name = "join", kind = "join", timeout = "1s" },
            { name = "aggregate", kind = "range", every = 4, close_after = "1m", timeout = "1s" },
        ]
    "#;

    #[test]
    fn a_range_waits_for_the_blocks_up_to_its_widest() {
        let pipeline = Pipeline::from_toml("test.toml", RANGES).unwrap();
        let attempt = |number, stage: &str| AttemptKey {
            zkvm: "vm".parse().unwrap(),
            pipeline: demo(),
            block: BlockKey {
                number,
                hash_prefix: [0; 4],
                blocks: 1,
            },
            proof_type: "main".parse().unwrap(),
            stage: stage.parse().unwrap(),
            index: 0,
            attempt: 1,
        };
        let joined = |numbers: std::ops::Range<u64>| numbers.map(|number| attempt(number, "join"));
        let with_results = |held: &[AttemptKey]| {
            let awaited = awaited(&pipeline, 7, held)?;
            Some(
                awaited
                    .values()
                    .map(|blocks| blocks.len())
                    .collect::<Vec<usize>>(),
            )
        };
        let made_up = AttemptKey {
            proof_type: "other".parse().unwrap(),
            ..attempt(7, "join")
        };
        for (held, expected) in [
            (vec![], Some(vec![0, 0, 0, 0])),
            (joined(8..12).collect(), Some(vec![0, 1, 1, 1])),
            (
                joined(7..8).chain([attempt(8, "split")]).collect(),
                Some(vec![1, 0, 0, 0]),
            ),
            (
                joined(7..8).chain([attempt(10, "aggregate"), made_up]).collect(),
                Some(vec![1, 0, 0, 0]),
            ),
        ] {
            assert_eq!(with_results(&held), expected, "{held:?}");
        }
        for (attempt, expected) in [
            (attempt(10, "aggregate"), true),
            (attempt(6, "aggregate"), false),
            (attempt(10, "join"), false),
        ] {
            assert_eq!(is_in_range(&pipeline, 7, &attempt), expected, "{attempt:?}");
        }
    }
}
