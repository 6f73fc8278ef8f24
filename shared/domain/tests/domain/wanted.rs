//! Whether work is wanted, compared with a model that plays the stream BLOCKS in its order.

use proptest::{collection::vec, prelude::*};
use push0_domain::{
    Announcement, BlockHash, BlockRef, PipelineId, StageKey,
    message::{BlockEnded, EndReason},
    wanted::{Claim, Demand, assess_record},
};

/// A message of BLOCKS, or an event about an announcement made before.
#[derive(Clone, Debug)]
enum Event {
    /// A block by number and fork.
    Announced(u64, u8),
    /// Numbers, and optionally the only fork that is cancelled.
    Cancelled(u64, u64, Option<u8>),
    /// Numbers and the fork that the reorg names.
    Reorged(u64, u64, u8),
    /// The deadline of the announcement at this place in the log, if there is one.
    Late(usize),
    /// The record of the announcement at this place in the log, if there is one.
    Recorded(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let numbers = || (0..4_u64, 0..3_u64);
    prop_oneof![
        4 => (0..4_u64, 0..2_u8).prop_map(|(number, fork)| Event::Announced(number, fork)),
        1 => (numbers(), proptest::option::of(0..2_u8))
            .prop_map(|((first, more), fork)| Event::Cancelled(first, first + more, fork)),
        1 => (numbers(), 0..2_u8).prop_map(|((first, more), fork)| Event::Reorged(first, first + more, fork)),
        1 => (0..30_usize).prop_map(Event::Late),
        1 => (0..30_usize).prop_map(Event::Recorded),
    ]
}

fn hash(fork: u8) -> BlockHash {
    BlockHash([fork; 32])
}

fn pipeline() -> PipelineId {
    PipelineId::new("demo").expect("valid")
}

fn cancelled() -> EndReason {
    EndReason::Cancelled { note: String::new() }
}

/// Work for one announcement, as the model has it.
#[derive(Clone, Debug)]
struct Work {
    block: BlockRef,
    claim: Claim,
    is_wanted: bool,
}

/// Plays the events one after the other, each on the work announced until then.
#[derive(Default)]
struct Model {
    work: Vec<Work>,
    ends: Vec<BlockEnded>,
    records: Vec<(u64, Announcement)>,
}

impl Model {
    fn announced(&self, place: usize) -> Option<(BlockRef, Announcement)> {
        let work = self.work.get(place)?;
        Some((work.block, work.claim.announcement))
    }

    fn play(&mut self, position: u64, event: &Event) {
        match *event {
            Event::Announced(number, fork) => {
                let block = BlockRef {
                    number,
                    hash: hash(fork),
                };
                for is_retry in [false, true] {
                    let announcement = Announcement(position);
                    let claim = Claim {
                        announcement,
                        is_retry,
                    };
                    self.work.push(Work {
                        block,
                        claim,
                        is_wanted: true,
                    });
                }
            }
            Event::Cancelled(first, last, fork) => {
                self.stop(|work| {
                    let named = fork.is_none_or(|fork| work.block.hash == hash(fork));
                    (first..=last).contains(&work.block.number) && named && !work.claim.is_retry
                });
                let hashes = fork.map(hash).into_iter().collect();
                self.end(position, (first, last), hashes, cancelled());
            }
            Event::Reorged(first, last, fork) => {
                self.stop(|work| (first..=last).contains(&work.block.number));
                self.end(position, (first, last), vec![hash(fork)], EndReason::Reorged);
            }
            Event::Late(place) => {
                if let Some((block, announcement)) = self.announced(place) {
                    self.stop(|work| {
                        let is_older = work.claim.announcement <= announcement;
                        work.block == block && is_older && !work.claim.is_retry
                    });
                    let reason = EndReason::DeadlinePassed;
                    self.ends
                        .push(BlockEnded::of_one(pipeline(), block, announcement, reason));
                }
            }
            Event::Recorded(place) => {
                if let Some((block, announcement)) = self.announced(place) {
                    self.stop(|work| {
                        let is_older = work.claim.announcement <= announcement;
                        work.block.number == block.number && is_older && !work.claim.is_retry
                    });
                    self.records.push((block.number, announcement));
                }
            }
        }
    }

    fn stop(&mut self, is_stopped: impl Fn(&Work) -> bool) {
        let stopped = self.work.iter_mut().filter(|work| is_stopped(work));
        stopped.for_each(|work| work.is_wanted = false);
    }

    fn end(&mut self, position: u64, (first, last): (u64, u64), hashes: Vec<BlockHash>, reason: EndReason) {
        self.ends.push(BlockEnded {
            pipeline: pipeline(),
            first,
            last,
            hashes,
            before: Announcement(position),
            reason,
        });
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// A service that hears of ends and records early, late, or in another order comes to the same answer.
    #[test]
    fn the_order_in_which_ends_and_records_are_heard_changes_no_answer(events in vec(event(), 1..30)) {
        let mut model = Model::default();
        for (at, event) in events.iter().enumerate() {
            model.play(at as u64 + 1, event);
        }
        for Work { block, claim, is_wanted } in model.work {
            let by_end = model.ends.iter().map(|end| end.assess(block, claim));
            let records = model.records.iter().filter(|(number, _)| *number == block.number);
            let by_record = records.map(|(_, recorded)| assess_record(*recorded, claim));
            let answer = by_end.chain(by_record).all(Demand::is_wanted);
            prop_assert_eq!(answer, is_wanted, "{:?} {:?}", block, claim);
        }
    }

    /// If an announcement of a block is wanted, so are a later announcement of the block and a retry.
    #[test]
    fn a_greater_claim_outlives_a_lesser_one(
        event in event(),
        position in 1..9_u64,
        number in 0..4_u64,
        fork in 0..2_u8,
        announcements in (0..9_u64, 0..9_u64),
        retries in (any::<bool>(), any::<bool>()),
    ) {
        let claim = |announcement, is_retry| Claim { announcement: Announcement(announcement), is_retry };
        let (earlier, later) = (announcements.0.min(announcements.1), announcements.0.max(announcements.1));
        let lesser = claim(earlier, retries.0 && retries.1);
        let greater = claim(later, retries.1);
        let mut model = Model::default();
        model.play(position, &event);
        let block = BlockRef { number, hash: hash(fork) };
        for end in &model.ends {
            let is_kept = end.assess(block, lesser).is_wanted();
            prop_assert!(!is_kept || end.assess(block, greater).is_wanted());
        }
    }
}

/// A range of the blocks 5 to 7, announced at 10.
fn range_is_ended_by(
    first: u64,
    last: u64,
    hashes: Vec<BlockHash>,
    before: u64,
    reason: EndReason,
) -> Demand {
    let block = |number, fork| BlockRef {
        number,
        hash: hash(fork),
    };
    let stage = StageKey {
        pipeline: pipeline(),
        block: block(7, 7),
        first: Some(block(5, 5)),
        proof_type: "main".parse().expect("valid"),
        stage: "range".parse().expect("valid"),
    };
    let ended = BlockEnded {
        pipeline: pipeline(),
        first,
        last,
        hashes,
        before: Announcement(before),
        reason,
    };
    ended.assess(&stage, Claim::first(Announcement(10)))
}

#[test]
fn the_end_of_one_block_of_a_range_ends_the_range() {
    assert_eq!(
        range_is_ended_by(6, 6, Vec::new(), 11, cancelled()),
        Demand::Ended
    );
    assert_eq!(
        range_is_ended_by(5, 5, vec![hash(5)], 11, cancelled()),
        Demand::Ended
    );
    assert_eq!(
        range_is_ended_by(7, 9, vec![hash(7)], 11, EndReason::Reorged),
        Demand::Replaced
    );
}

#[test]
fn a_range_outlives_the_ends_of_other_blocks_and_of_earlier_announcements() {
    assert_eq!(
        range_is_ended_by(8, 9, Vec::new(), 11, cancelled()),
        Demand::Wanted
    );
    assert_eq!(
        range_is_ended_by(5, 7, vec![hash(1)], 11, cancelled()),
        Demand::Wanted
    );
    assert_eq!(
        range_is_ended_by(5, 7, Vec::new(), 10, cancelled()),
        Demand::Wanted
    );
    assert_eq!(
        range_is_ended_by(5, 9, vec![hash(7)], 10, EndReason::Reorged),
        Demand::Wanted
    );
}
