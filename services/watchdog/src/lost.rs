//! Finds lost proofs: those without work in flight and without a result.
//!
//! A proof in progress always has a message in some stream: its block's announcement, a ready stage, a task, a check, or
//! the results that the collector joins next (docs/adr/0004). A prover that acknowledges a task and stores no result, or
//! one that cannot be read, breaks this: the block would wait for ever, and with it all blocks behind it. Only the next
//! block of a pipeline is looked at, since any other becomes the next one. In a pipeline with ranges, blocks wait for each
//! other: the first of them that is not ready for its range is looked at, while nothing of the pipeline is in flight.

use push0_bus::Led;
use push0_domain::{
    PipelineId, ProofType, StageName, Timestamp,
    pipeline::{NextStage, Pipeline, ProofSpec},
    subject::AttemptKey,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How long a pipeline must stand before its next block is looked at.
pub const STANDS_FOR: Duration = Duration::from_secs(4);
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
/// A failed attempt without a successor may be a dead task of a proof that the quorum can spare. Such a proof is lost
/// only if no other proof of the block has work in flight.
pub fn lost_proofs(
    pipeline: &Pipeline,
    named: &BTreeSet<ProofType>,
    held: &[HeldResult],
) -> BTreeSet<ProofType> {
    let is_lost = |proof: &&ProofSpec| {
        let of_proof = || held.iter().filter(|result| result.proof_type == proof.proof_type);
        let may_be_dead = of_proof().any(|result| !result.is_completed);
        !named.contains(&proof.proof_type)
            && (named.is_empty() || !may_be_dead)
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

/// Returns the first number from `next` on whose block has no result for its range; `None` if a range is in progress. `held`
/// are the attempts of the pipeline whose results the collector holds.
pub fn first_unready(pipeline: &Pipeline, next: u64, held: &[AttemptKey]) -> Option<u64> {
    let mut ready = BTreeSet::new();
    for attempt in held {
        let proof = pipeline.proof(&attempt.proof_type)?;
        let (position, _) = proof.stage(&attempt.stage)?;
        let (range, _) = proof.stage(&proof.range()?.name)?;
        if position >= range {
            return None;
        }
        if position + 1 == range {
            ready.insert(attempt.block.number);
        }
    }
    let every = pipeline.range()?.every.unwrap_or(1);
    (next..next.saturating_add(every.into())).find(|number| !ready.contains(number))
}

/// The next block of every pipeline, and for how long it has been the next one.
#[derive(Debug, Default)]
pub struct Heads(BTreeMap<PipelineId, Head>);

#[derive(Clone, Debug)]
struct Head {
    number: u64,
    since: Timestamp,
    /// The last look that found lost proofs. A single look may miss a message between two streams.
    last: Option<Look>,
    /// How often proofs were begun anew.
    asked: u32,
}

/// A look at the next block of a pipeline.
#[derive(Clone, Debug)]
pub struct Look {
    /// The number of the block that was looked at.
    pub number: u64,
    /// The lost proofs.
    pub lost: BTreeSet<ProofType>,
    /// The leading collector of the pipeline. Results may be unread while there is none.
    pub collector: Option<Led>,
}

impl Heads {
    /// Notes the next block of a pipeline. Returns whether it stands, so that the caller should look for messages
    /// about it.
    pub fn stands(&mut self, pipeline: &PipelineId, next: u64, now: Timestamp) -> bool {
        let fresh = || Head {
            number: next,
            since: now,
            last: None,
            asked: 0,
        };
        let head = self.0.entry(pipeline.clone()).or_insert_with(fresh);
        if head.number != next {
            *head = fresh();
        }
        now.since(head.since) >= STANDS_FOR
    }

    /// Handles a look at the next block of a pipeline. Returns the proofs to begin anew, which two looks in a row found
    /// lost while one collector led, and how often proofs of the block were begun anew with this time.
    pub fn looked(
        &mut self,
        pipeline: &PipelineId,
        look: Look,
        now: Timestamp,
    ) -> Option<(BTreeSet<ProofType>, u32)> {
        let head = self.0.get_mut(pipeline)?;
        let collector = look.collector.as_ref()?;
        let lost = head.last.as_ref().and_then(|last| {
            let earlier = last.collector.as_ref()?;
            // A collector that has just begun may not have read all results.
            let goes_on = collector.instance == earlier.instance && collector.lasts > earlier.lasts;
            let has_read = earlier.lasts >= STANDS_FOR && goes_on;
            let lost: BTreeSet<_> = last.lost.intersection(&look.lost).cloned().collect();
            (has_read && last.number == look.number && !lost.is_empty()).then_some(lost)
        });
        let Some(lost) = lost else {
            head.last = Some(look);
            return None;
        };
        head.asked += 1;
        head.last = None;
        let pause = FIRST_PAUSE.saturating_mul(1 << head.asked.min(6)) / 2;
        // The block is looked at again only after the pause.
        head.since = now.plus(pause.min(LONGEST_PAUSE));
        Some((lost, head.asked))
    }

    /// Forgets pipelines that have no definition any more.
    pub fn keep(&mut self, is_kept: impl Fn(&PipelineId) -> bool) {
        self.0.retain(|pipeline, _| is_kept(pipeline));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use push0_domain::BlockKey;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(1_000_000_000).plus(Duration::from_secs(seconds))
    }

    fn demo() -> PipelineId {
        "demo".parse().unwrap()
    }

    /// A look that finds these proofs lost, while the collector `led` has renewed its term for so many seconds.
    fn look(lost: &[&str], led: &str, seconds: u64) -> Look {
        let lost = lost.iter().map(|proof| proof.parse().unwrap()).collect();
        let collector = Led {
            instance: led.to_owned(),
            lasts: Duration::from_secs(seconds),
        };
        Look {
            number: 7,
            lost,
            collector: Some(collector),
        }
    }

    fn asked(lost: &[&str], times: u32) -> Option<(BTreeSet<ProofType>, u32)> {
        Some((look(lost, "c", 0).lost, times))
    }

    #[test]
    fn a_proof_is_begun_anew_after_two_looks_and_then_ever_more_seldom() {
        let mut heads = Heads::default();
        assert!(!heads.stands(&demo(), 7, at(0)));
        assert!(heads.stands(&demo(), 7, at(4)));
        assert_eq!(
            heads.looked(&demo(), look(&["a", "b"], "c", 9), at(4)),
            None,
            "a message may be on its way"
        );
        assert_eq!(
            heads.looked(&demo(), look(&["b", "d"], "c", 12), at(7)),
            asked(&["b"], 1)
        );
        assert!(!heads.stands(&demo(), 7, at(20)));
        assert!(heads.stands(&demo(), 7, at(21)));
        assert_eq!(heads.looked(&demo(), look(&["b"], "c", 26), at(21)), None);
        assert_eq!(
            heads.looked(&demo(), look(&["b"], "c", 29), at(24)),
            asked(&["b"], 2)
        );
        assert!(!heads.stands(&demo(), 7, at(47)));
        assert!(heads.stands(&demo(), 7, at(48)));
    }

    #[test]
    fn a_block_that_is_worked_on_and_one_that_moves_are_left_alone() {
        let mut heads = Heads::default();
        heads.stands(&demo(), 7, at(0));
        assert_eq!(heads.looked(&demo(), look(&["a"], "c", 9), at(4)), None);
        assert_eq!(heads.looked(&demo(), look(&[], "c", 12), at(7)), None);
        assert_eq!(
            heads.looked(&demo(), look(&["a"], "c", 15), at(10)),
            None,
            "looks count only in a row"
        );
        assert!(!heads.stands(&demo(), 8, at(13)));
        assert_eq!(heads.looked(&demo(), look(&["a"], "c", 22), at(17)), None);
    }

    #[test]
    fn nothing_is_begun_anew_while_results_may_be_unread() {
        for (earlier, later, why) in [
            (("c", 1), ("c", 4), "the collector has just begun"),
            (("c", 9), ("c", 9), "the collector stands still"),
            (("c", 9), ("d", 12), "another collector has taken over"),
        ] {
            let mut heads = Heads::default();
            heads.stands(&demo(), 7, at(0));
            assert_eq!(
                heads.looked(&demo(), look(&["a"], earlier.0, earlier.1), at(4)),
                None
            );
            assert_eq!(
                heads.looked(&demo(), look(&["a"], later.0, later.1), at(7)),
                None,
                "{why}"
            );
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
        for (named, held, lost) in [
            (&[][..], vec![], &["one", "tree"][..]),
            (&["one"], vec![], &["tree"]),
            (&["one", "tree"], vec![], &[]),
            (&[], parts(3).chain(one()).collect(), &["tree"]),
            (&["tree"], one().to_vec(), &[]),
            (&["tree"], failed().to_vec(), &[]),
            (&[], failed().to_vec(), &["one", "tree"]),
            (&[], root.to_vec(), &["one"]),
            (&[], leaf.to_vec(), &["one", "tree"]),
        ] {
            let named: BTreeSet<ProofType> = named.iter().map(|proof| proof.parse().unwrap()).collect();
            let expected: BTreeSet<ProofType> = lost.iter().map(|proof| proof.parse().unwrap()).collect();
            assert_eq!(
                lost_proofs(&pipeline, &named, &held),
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
    fn the_first_block_that_is_not_ready_for_its_range_is_looked_at() {
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
        for (held, expected) in [
            (vec![], Some(7)),
            (joined(7..9).collect(), Some(9)),
            (joined(8..11).collect(), Some(7)),
            (joined(7..9).chain([attempt(9, "split")]).collect(), Some(9)),
            (joined(7..11).collect(), None),
            (joined(7..9).chain([attempt(10, "aggregate")]).collect(), None),
        ] {
            assert_eq!(first_unready(&pipeline, 7, &held), expected, "{held:?}");
        }
    }
}
