//! The next block of every pipeline that stands, the looks at it, and how often its proofs were begun anew.

use crate::motion::Moved;
use push0_bus::Led;
use push0_domain::{
    BlockKey, PipelineId, ProofType, Timestamp,
    message::{BlockEnded, KnownBlock},
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

/// Most ends of blocks remembered of a pipeline that stands. With more of them, nothing is begun anew.
const ENDS_MAX: usize = 1024;

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
    /// When proofs were last seen to move.
    moved: BTreeMap<ProofIn, Moved>,
    ends: Ends,
}

/// The unacknowledged ends of the next block and of later ones. The
/// collector holds the end of a later block until that block's turn, which may wait for the next one.
#[derive(Clone, Debug, Default)]
struct Ends {
    read_to: u64,
    are_all_read: bool,
    found: Vec<BlockEnded>,
}

/// A proof of the block with this number.
pub type ProofOf = (u64, ProofType);
/// Proofs of this type: of the block with this number, or of all blocks.
pub type ProofIn = (Option<u64>, ProofType);

/// A look at the next block of a pipeline and, if proofs of this block are lost, at the blocks behind.
#[derive(Clone, Debug)]
pub struct Look {
    /// When the look began.
    pub at: Timestamp,
    /// The lost proofs, each with the instant at which the newest work with a held result was ready; 0 without a result.
    pub lost: BTreeMap<ProofOf, Timestamp>,
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
            moved: BTreeMap::new(),
            ends: Ends::default(),
        };
        let head = self.0.entry(pipeline.clone());
        let head = head.or_insert_with(|| fresh(BTreeMap::new()));
        if head.number != next {
            *head = fresh(head.starts.split_off(&next));
        }
        now >= head.look_at
    }

    /// Returns the sequence up to which the ends of a pipeline's blocks were read.
    pub fn ends_read(&self, pipeline: &PipelineId) -> u64 {
        self.0.get(pipeline).map_or(0, |head| head.ends.read_to)
    }

    /// Notes stored ends of a pipeline's blocks, each with its sequence, and whether these are the last ones.
    pub fn read_ends(&mut self, pipeline: &PipelineId, ends: Vec<(u64, Option<BlockEnded>)>, are_all: bool) {
        let Some(head) = self.0.get_mut(pipeline) else {
            return;
        };
        head.ends.are_all_read = are_all;
        for (sequence, ended) in ends {
            head.ends.read_to = sequence;
            let ahead = ended.filter(|ended| ended.last >= head.number);
            if head.ends.found.len() <= ENDS_MAX {
                head.ends.found.extend(ahead);
            }
        }
    }

    /// Returns whether an end of the block may wait for the collector.
    pub fn may_end(&self, pipeline: &PipelineId, block: &KnownBlock) -> bool {
        let Some(Head { ends, .. }) = self.0.get(pipeline) else {
            return true;
        };
        let known = block.block;
        let is_about = |ended: &BlockEnded| {
            (ended.first..=ended.last).contains(&known.number)
                && (ended.hashes.is_empty() || ended.hashes.contains(&known.hash))
                && ended.before > block.announced_after.next()
        };
        !ends.are_all_read || ends.found.len() > ENDS_MAX || ends.found.iter().any(is_about)
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

    /// Returns when proofs were last seen to move; `None` if no look has read their messages.
    pub fn moved(&self, pipeline: &PipelineId, proof: &ProofIn) -> Option<&Moved> {
        self.0.get(pipeline)?.moved.get(proof)
    }

    /// Notes that proofs move.
    pub fn moves(&mut self, pipeline: &PipelineId, proof: ProofIn, moved: Moved) {
        if let Some(head) = self.0.get_mut(pipeline) {
            head.moved.insert(proof, moved);
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
        // A prover can repeat a result without end, but no result of work that was ready after the earlier look: that look
        // found neither a stage nor a task from which it could come.
        let is_unchanged = |(proof, held): &(&ProofOf, &Timestamp)| {
            let then = earlier.lost.get(*proof);
            then.is_some_and(|then| **held <= earlier.at.max(*then))
        };
        let lost = self.lost.iter().filter(is_unchanged);
        lost.map(|(proof, _)| proof.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use push0_domain::{
        Announcement, BlockHash, BlockRef,
        message::{BlockFacts, EndReason},
    };

    fn at(seconds: u64) -> Timestamp {
        Timestamp(1_000_000_000).plus(Duration::from_secs(seconds))
    }

    fn demo() -> PipelineId {
        "demo".parse().unwrap()
    }

    /// A look that finds these proofs lost, each with the second in which its newest work with a result was ready, while the
    /// collector `led` has renewed its term for so many seconds. The look began in second 2.
    fn look(lost: &[(u64, &str, u64)], led: &str, seconds: u64) -> Look {
        let lost = lost
            .iter()
            .map(|(number, proof, held)| ((*number, proof.parse().unwrap()), at(*held)));
        let collector = Led {
            instance: led.to_owned(),
            lasts: Duration::from_secs(seconds),
        };
        Look {
            at: at(2),
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
        let first = look(&[(7, "a", 0), (7, "b", 0), (9, "a", 0), (10, "a", 2)], "c", 9);
        assert_eq!(
            heads.looked(&demo(), first, at(2)),
            begun(&[]),
            "a message may be on its way"
        );
        assert!(heads.is_look_due(&demo(), 7, at(3)));
        // Of block 10, a result of later work has come in between. Of block 9, a prover repeats an earlier result.
        let second = look(&[(7, "b", 0), (7, "d", 0), (9, "a", 1), (10, "a", 3)], "c", 10);
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

    fn known(number: u64, announced_after: u64) -> KnownBlock {
        KnownBlock {
            block: BlockRef {
                number,
                hash: BlockHash([7; 32]),
            },
            parent_hash: BlockHash::default(),
            revision: 1,
            observed_at: at(0),
            announced_after: Announcement(announced_after),
            input: None,
            facts: BlockFacts::default(),
        }
    }

    #[test]
    fn only_an_end_that_is_about_the_block_keeps_it_from_being_begun_anew() {
        let end = |first, last, hashes, before| BlockEnded {
            pipeline: demo(),
            first,
            last,
            hashes,
            before: Announcement(before),
            reason: EndReason::Reorged,
        };
        let mut heads = Heads::default();
        assert!(heads.may_end(&demo(), &known(7, 40)), "nothing was read yet");
        heads.is_look_due(&demo(), 7, at(0));
        heads.read_ends(&demo(), vec![(3, Some(end(100, 200, vec![], 90)))], false);
        assert!(heads.may_end(&demo(), &known(7, 40)), "not all ends are read");
        let others = [
            end(8, 9, vec![], 90),
            end(7, 7, vec![BlockHash([8; 32])], 90),
            end(7, 7, vec![], 41),
        ];
        let others = others
            .into_iter()
            .zip(4..)
            .map(|(end, sequence)| (sequence, Some(end)));
        heads.read_ends(&demo(), others.collect(), true);
        assert_eq!(heads.ends_read(&demo()), 6);
        assert!(!heads.may_end(&demo(), &known(7, 40)));
        for about in [end(7, 7, vec![BlockHash([7; 32])], 42), end(1, 9, vec![], 90)] {
            let mut heads = Heads::default();
            heads.is_look_due(&demo(), 7, at(0));
            heads.read_ends(&demo(), vec![(7, Some(about.clone()))], true);
            assert!(heads.may_end(&demo(), &known(7, 40)), "{about:?}");
        }
    }
}
