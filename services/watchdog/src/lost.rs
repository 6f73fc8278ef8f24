//! Finds lost proofs: those without work in flight and without a result.
//!
//! A proof in progress always has a message in some stream: its block's announcement, a ready stage, a task, a check, or
//! the results that the collector joins next (docs/adr/0004). A prover that acknowledges a task and stores no result, or
//! one that cannot be read, breaks this: the block would wait for ever, and with it all blocks behind it. The next
//! block of a pipeline is looked at, since any other becomes the next one, and the blocks behind it if proofs of it are lost. In a pipeline with ranges, blocks wait for each
//! other: the first of them that is not ready for its range is looked at, while nothing of the pipeline is in flight.

use push0_bus::Led;
use push0_domain::{
    BlockKey, PipelineId, ProofType, StageName, Timestamp,
    pipeline::{NextStage, Pipeline, ProofSpec},
    subject::AttemptKey,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How long a pipeline must stand before its next block is looked at.
const STANDS_FOR: Duration = Duration::from_secs(2);
/// The pause after a look that found work in flight.
const NEXT_LOOK: Duration = Duration::from_secs(3);
/// The pause after a look that found lost proofs.
const SECOND_LOOK: Duration = Duration::from_secs(1);
/// How long a collector must have led, so that it has read all results.
const LEADS_FOR: Duration = Duration::from_secs(4);
/// The pause after proofs were begun anew; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

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
/// quorum can spare. Such a proof is lost only if the block is the `next` one and has no work in flight.
pub fn lost_proofs(
    pipeline: &Pipeline,
    is_next: bool,
    named: &BTreeSet<ProofType>,
    held: &[HeldResult],
) -> BTreeSet<ProofType> {
    let is_lost = |proof: &&ProofSpec| {
        let of_proof = || held.iter().filter(|result| result.proof_type == proof.proof_type);
        let may_be_dead = of_proof().any(|result| !result.is_completed);
        !named.contains(&proof.proof_type)
            && (!may_be_dead || (is_next && named.is_empty()))
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
/// the range. Such a result may be a failure. `held` are the attempts of the pipeline whose results the collector holds.
/// Returns `None` if the pipeline has no range, or if one is in progress.
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
        let proof = pipeline.proof(&attempt.proof_type)?;
        let (position, _) = proof.stage(&attempt.stage)?;
        let (range, _) = proof.stage(&proof.range()?.name)?;
        if position >= range {
            return None;
        }
        if position + 1 == range
            && let Some(blocks) = awaited.get_mut(&attempt.block.number)
        {
            blocks.insert(attempt.block);
        }
    }
    Some(awaited)
}

/// The next block of every pipeline, and for how long it has been the next one.
#[derive(Debug, Default)]
pub struct Heads(BTreeMap<PipelineId, Head>);

#[derive(Clone, Debug)]
struct Head {
    number: u64,
    /// When to look at the block.
    look_at: Timestamp,
    /// The last look that found lost proofs. A single look may miss a message between two streams.
    last: Option<Look>,
    /// Blocks known to be ready for the range of the next block.
    ready: BTreeSet<BlockKey>,
    /// How often proofs were begun anew for the next block.
    times: u32,
    /// How often proofs of each block from the next one on were begun anew.
    starts: BTreeMap<u64, u32>,
}

/// A proof of the block with this number.
pub type ProofOf = (u64, ProofType);

/// A look at the next block of a pipeline and, if proofs of it are lost, at the blocks behind it.
#[derive(Clone, Debug)]
pub struct Look {
    /// The lost proofs, each with the sequence of its newest held result; 0 if there is none.
    pub lost: BTreeMap<ProofOf, u64>,
    /// The leading collector of the pipeline. Results may be unread while there is none.
    pub collector: Option<Led>,
}

impl Heads {
    /// Notes the next block of a pipeline. Returns whether to look for messages about it.
    pub fn is_look_due(&mut self, pipeline: &PipelineId, next: u64, now: Timestamp) -> bool {
        let fresh = |starts| Head {
            number: next,
            look_at: now.plus(STANDS_FOR),
            last: None,
            ready: BTreeSet::new(),
            times: 0,
            starts,
        };
        let head = self.0.entry(pipeline.clone());
        let head = head.or_insert_with(|| fresh(BTreeMap::new()));
        if head.number != next {
            *head = fresh(head.starts.split_off(&next));
        }
        now >= head.look_at
    }

    /// Returns whether a block is known to be ready for the range of the next block.
    pub fn is_ready(&self, pipeline: &PipelineId, block: &BlockKey) -> bool {
        let head = self.0.get(pipeline);
        head.is_some_and(|head| head.ready.contains(block))
    }

    /// Notes that a block is ready for the range of the next block.
    pub fn ready(&mut self, pipeline: &PipelineId, block: BlockKey) {
        if let Some(head) = self.0.get_mut(pipeline) {
            head.ready.insert(block);
        }
    }

    /// Handles a look at the next block of a pipeline. Returns the proofs to begin anew, which two looks in a row found
    /// lost while one collector led, each with the number of its start.
    pub fn looked(&mut self, pipeline: &PipelineId, look: Look, now: Timestamp) -> BTreeMap<ProofOf, u32> {
        let Some(head) = self.0.get_mut(pipeline) else {
            return BTreeMap::new();
        };
        let is_lost = !look.lost.is_empty();
        let last = head.last.replace(look.clone());
        let lost = last.map_or_else(BTreeSet::new, |last| look.confirms(&last));
        if lost.is_empty() {
            head.look_at = now.plus(if is_lost { SECOND_LOOK } else { NEXT_LOOK });
            return BTreeMap::new();
        }
        head.last = None;
        head.times += 1;
        let pause = FIRST_PAUSE.saturating_mul(1 << head.times.min(6)) / 2;
        head.look_at = now.plus(pause.min(LONGEST_PAUSE));
        let numbers: BTreeSet<u64> = lost.iter().map(|(number, _)| *number).collect();
        for number in numbers {
            *head.starts.entry(number).or_default() += 1;
        }
        let start = |number| head.starts.get(&number).copied().unwrap_or(1);
        lost.into_iter()
            .map(|proof| (proof.clone(), start(proof.0)))
            .collect()
    }

    /// Forgets pipelines that have no definition any more.
    pub fn keep(&mut self, is_kept: impl Fn(&PipelineId) -> bool) {
        self.0.retain(|pipeline, _| is_kept(pipeline));
    }
}

impl Look {
    /// Returns the proofs that an earlier look found lost as well, if one collector has led since well before it: a
    /// collector that has just begun may not have read all results.
    fn confirms(&self, earlier: &Self) -> BTreeSet<ProofOf> {
        let (Some(now), Some(then)) = (&self.collector, &earlier.collector) else {
            return BTreeSet::new();
        };
        let goes_on = now.instance == then.instance && now.lasts > then.lasts;
        if then.lasts < LEADS_FOR || !goes_on {
            return BTreeSet::new();
        }
        let is_unchanged = |(proof, held): &(&ProofOf, &u64)| earlier.lost.get(*proof) == Some(held);
        let lost = self.lost.iter().filter(is_unchanged);
        lost.map(|(proof, _)| proof.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(1_000_000_000).plus(Duration::from_secs(seconds))
    }

    fn demo() -> PipelineId {
        "demo".parse().unwrap()
    }

    /// A look that finds these proofs lost, each with its newest held result, while the collector `led` has renewed its
    /// term for so many seconds.
    fn look(lost: &[(u64, &str, u64)], led: &str, seconds: u64) -> Look {
        let lost = lost
            .iter()
            .map(|(number, proof, held)| ((*number, proof.parse().unwrap()), *held));
        let collector = Led {
            instance: led.to_owned(),
            lasts: Duration::from_secs(seconds),
        };
        Look {
            lost: lost.collect(),
            collector: Some(collector),
        }
    }

    fn begun(proofs: &[(u64, &str, u32)]) -> BTreeMap<ProofOf, u32> {
        let begun = proofs
            .iter()
            .map(|(number, proof, start)| ((*number, proof.parse().unwrap()), *start));
        begun.collect()
    }

    #[test]
    fn a_proof_is_begun_anew_after_two_looks_and_then_ever_more_seldom() {
        let mut heads = Heads::default();
        assert!(!heads.is_look_due(&demo(), 7, at(0)));
        assert!(heads.is_look_due(&demo(), 7, at(2)));
        let first = look(&[(7, "a", 0), (7, "b", 0), (9, "a", 5), (10, "a", 6)], "c", 9);
        assert_eq!(
            heads.looked(&demo(), first, at(2)),
            begun(&[]),
            "a message may be on its way"
        );
        assert!(heads.is_look_due(&demo(), 7, at(3)));
        // Of block 10, a result has come in between.
        let second = look(&[(7, "b", 0), (7, "d", 0), (9, "a", 5), (10, "a", 7)], "c", 10);
        assert_eq!(
            heads.looked(&demo(), second, at(3)),
            begun(&[(7, "b", 1), (9, "a", 1)])
        );
        assert!(!heads.is_look_due(&demo(), 7, at(12)));
        assert!(heads.is_look_due(&demo(), 7, at(13)));
        let again = |seconds| look(&[(7, "b", 0)], "c", seconds);
        assert_eq!(heads.looked(&demo(), again(26), at(13)), begun(&[]));
        assert_eq!(heads.looked(&demo(), again(29), at(14)), begun(&[(7, "b", 2)]));
        assert!(!heads.is_look_due(&demo(), 7, at(33)));
        assert!(heads.is_look_due(&demo(), 7, at(34)));
        // A block that was begun anew behind another one goes on counting when it is the next one.
        assert!(!heads.is_look_due(&demo(), 9, at(35)));
        assert!(heads.is_look_due(&demo(), 9, at(37)));
        let next = |seconds| look(&[(9, "a", 8)], "c", seconds);
        assert_eq!(heads.looked(&demo(), next(60), at(37)), begun(&[]));
        assert_eq!(heads.looked(&demo(), next(63), at(38)), begun(&[(9, "a", 2)]));
    }

    #[test]
    fn a_block_with_work_in_flight_and_one_that_moves_are_left_alone() {
        let mut heads = Heads::default();
        heads.is_look_due(&demo(), 7, at(0));
        for (lost, seconds, why) in [
            (&[(7, "a", 0)][..], 4, "one look"),
            (&[], 7, "work in flight"),
            (&[(7, "a", 0)], 10, "looks count only in a row"),
        ] {
            let looked = heads.looked(&demo(), look(lost, "c", seconds + 5), at(seconds));
            assert_eq!(looked, begun(&[]), "{why}");
        }
        assert!(!heads.is_look_due(&demo(), 8, at(13)));
        let moved = look(&[(8, "a", 0)], "c", 22);
        assert_eq!(heads.looked(&demo(), moved, at(17)), begun(&[]));
    }

    #[test]
    fn nothing_is_begun_anew_while_results_may_be_unread() {
        for (earlier, later, why) in [
            (("c", 1), ("c", 4), "the collector has just begun"),
            (("c", 9), ("c", 9), "the collector stands still"),
            (("c", 9), ("d", 12), "another collector has taken over"),
        ] {
            let mut heads = Heads::default();
            heads.is_look_due(&demo(), 7, at(0));
            for (led, seconds) in [earlier, later] {
                let looked = heads.looked(&demo(), look(&[(7, "a", 0)], led, seconds), at(seconds));
                assert_eq!(looked, begun(&[]), "{why}");
            }
        }
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
        for (is_next, named, held, lost) in [
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
                lost_proofs(&pipeline, is_next, &named, &held),
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
    fn a_range_waits_for_the_blocks_up_to_its_widest_unless_it_is_in_progress() {
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
        for (held, expected) in [
            (vec![], Some(vec![0, 0, 0, 0])),
            (joined(8..12).collect(), Some(vec![0, 1, 1, 1])),
            (
                joined(7..8).chain([attempt(8, "split")]).collect(),
                Some(vec![1, 0, 0, 0]),
            ),
            (joined(7..8).chain([attempt(10, "aggregate")]).collect(), None),
        ] {
            assert_eq!(with_results(&held), expected, "{held:?}");
        }
    }
}
