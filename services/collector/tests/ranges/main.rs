//! Ranges, from results to records: each block ends in one record, through every fate.
#![expect(
    clippy::panic,
    clippy::expect_used,
    reason = "a failing test panics, in its helpers as well"
)]

mod rig;

use proptest::{prelude::*, sample::Index};
use push0_domain::{
    TaskId,
    message::{Emission, EmissionOutcome},
    subject::Kind,
    task::first_attempt,
};
use rig::{Rig, proved};
use std::{collections::BTreeMap, time::Duration};

/// Returns a rig with blocks `numbers` of revision 1 whose own stage is done.
fn ready(numbers: std::ops::Range<u64>) -> Rig {
    let mut rig = Rig::new(numbers.start);
    for number in numbers.clone() {
        rig.observe(number, 1);
    }
    for number in numbers {
        rig.finish(&prove(&rig, number), true);
    }
    rig
}

fn prove(rig: &Rig, number: u64) -> (TaskId, u32) {
    let is_it =
        |(id, _): &&(TaskId, u32)| id.stage.stage.as_str() == "prove" && id.stage.block.number == number;
    let found = rig.open.keys().find(is_it);
    found
        .unwrap_or_else(|| panic!("block {number} is not open"))
        .clone()
}

/// Returns first number, last number and outcome of each record.
fn records(rig: &Rig) -> Vec<(u64, u64, &'static str)> {
    let outcome = |record: &Emission| match record.outcome {
        EmissionOutcome::Proved(_) => "proved",
        EmissionOutcome::Dead { .. } => "dead",
        EmissionOutcome::Abandoned(_) => "abandoned",
    };
    let all = rig.records.iter();
    all.map(|r| (r.first.number, r.last.number, outcome(r))).collect()
}

/// Returns the open tasks: stage, first and last number, index, attempt.
fn asked(rig: &Rig) -> Vec<(String, u64, u64, u32, u32)> {
    let line = |(id, attempt): &(TaskId, u32)| {
        let (first, last) = id.stage.numbers().into_inner();
        (id.stage.stage.to_string(), first, last, id.index, *attempt)
    };
    rig.open.keys().map(line).collect()
}

fn range_task(rig: &Rig, index: u32) -> (TaskId, u32) {
    let is_it = |(id, _): &&(TaskId, u32)| id.stage.stage.as_str() == "range" && id.index == index;
    rig.open.keys().find(is_it).expect("it is open").clone()
}

#[test]
fn a_range_is_closed_before_a_multiple_and_proved_as_a_tree() {
    // Numbers 2 and 3 end before 4; 4 to 7 are whole; 8 waits.
    let mut rig = ready(2..9);
    let range = |first, last, index| ("range".to_owned(), first, last, index, 1);
    assert_eq!(asked(&rig), [range(2, 3, 0), range(4, 7, 0), range(4, 7, 1)]);
    rig.finish(&range_task(&rig, 1), true);
    rig.finish(&range_task(&rig, 0), true);
    rig.calm();
    assert_eq!(
        records(&rig),
        [(2, 3, "proved"), (4, 7, "proved"), (8, 8, "proved")]
    );
    assert_eq!(proved(&rig.records[1]).unwrap(), ["4/0", "5/0", "6/0", "7/0"]);
    let second = &rig.records[1];
    assert_eq!(
        (second.facts.transactions, second.parent_hash),
        (4, rig.chain[&3].0.hash)
    );
    assert_eq!(second.stored_at, rig.chain[&7].1.stored_at);
}

#[test]
fn an_unfilled_range_is_closed_after_a_while_with_what_was_ready_by_then() {
    let mut rig = ready(4..6);
    rig.pass(Duration::from_secs(9));
    rig.advance();
    assert_eq!(asked(&rig), []);
    rig.pass(Duration::from_millis(990));
    rig.observe(6, 1);
    rig.pass(Duration::from_millis(20));
    rig.finish(&prove(&rig, 6), true);
    // Block 6 was ready too late, and begins another range.
    assert_eq!(asked(&rig), [("range".to_owned(), 4, 5, 0, 1)]);
    // A collector that starts over finds the same cut.
    rig.open.clear();
    rig.restart(4);
    assert_eq!(asked(&rig), [("range".to_owned(), 4, 5, 0, 1)]);
    rig.calm();
    assert_eq!(records(&rig), [(4, 5, "proved"), (6, 6, "proved")]);
}

/// Returns the names of the stages on the critical path of a record, and how long the ends of its range were apart from the
/// readiness of the next stage, in seconds.
fn told(record: &Emission) -> (Vec<&str>, f64) {
    let path = record.critical_path();
    let last = path.last().expect("a leg");
    let account = record.account(last.ended_at).expect("a proof");
    let sum = account.parts.sum_us() + account.range_us + account.order_us + account.own_us;
    assert_eq!(sum, account.total_us, "{account:?}");
    let stages = path.iter().map(|leg| leg.stage.as_str());
    (stages.collect(), account.range_us as f64 / 1e6)
}

#[test]
fn a_record_tells_how_long_its_range_waited_to_be_closed() {
    // The last block closes the first range, the clock the second one.
    let mut rig = ready(0..6);
    for index in [0, 1] {
        rig.finish(&range_task(&rig, index), true);
    }
    rig.pass(Duration::from_secs(11));
    rig.advance();
    rig.calm();
    assert_eq!(records(&rig), [(0, 3, "proved"), (4, 5, "proved")]);
    assert_eq!(told(&rig.records[0]), (vec!["prove", "range", "wrap"], 0.0));
    let (stages, waited) = told(&rig.records[1]);
    assert_eq!(stages, ["prove", "range", "wrap"]);
    assert!((11.0..11.1).contains(&waited), "{waited}");
}

#[test]
fn the_time_in_which_a_whole_range_failed_is_a_wait_of_its_halves() {
    let mut rig = ready(0..4);
    rig.doom(&range_task(&rig, 0));
    let halves = rig.now;
    rig.calm();
    assert_eq!(records(&rig), [(0, 1, "proved"), (2, 3, "proved")]);
    for record in &rig.records {
        let path = record.critical_path();
        assert_eq!(path[1].ready_at, halves);
        assert!(path[0].ended_at < halves);
    }
}

#[test]
fn a_dead_block_has_a_record_of_its_own_between_two_ranges() {
    let mut rig = Rig::new(0);
    (0..4).for_each(|number| rig.observe(number, 1));
    for number in [0, 1, 3] {
        rig.finish(&prove(&rig, number), true);
    }
    rig.doom(&prove(&rig, 2));
    rig.calm();
    assert_eq!(
        records(&rig),
        [(0, 1, "proved"), (2, 2, "dead"), (3, 3, "proved")]
    );
}

#[test]
fn a_cancelled_block_takes_its_range_apart_and_the_others_form_new_ones() {
    let mut rig = ready(0..4);
    rig.finish(&range_task(&rig, 0), true);
    rig.cancel(2);
    assert_eq!(
        asked(&rig),
        [("range".to_owned(), 0, 1, 0, 1), ("range".to_owned(), 3, 3, 0, 1)]
    );
    rig.calm();
    assert_eq!(
        records(&rig),
        [(0, 1, "proved"), (2, 2, "abandoned"), (3, 3, "proved")]
    );
}

#[test]
fn the_blocks_that_a_reorg_leaves_are_proved_with_those_that_follow() {
    let mut rig = ready(0..4);
    rig.finish(&range_task(&rig, 1), true);
    rig.reorg(2);
    assert_eq!(asked(&rig), []);
    (2..4).for_each(|number| rig.observe(number, 1));
    rig.calm();
    assert_eq!(records(&rig), [(0, 3, "proved")]);
    assert_eq!(proved(&rig.records[0]).unwrap(), ["0/0", "1/0", "2/1", "3/1"]);
}

#[test]
fn a_range_that_dies_is_tried_as_two_halves_also_by_a_collector_that_starts_over() {
    let mut rig = ready(0..4);
    rig.finish(&range_task(&rig, 0), false);
    rig.finish(&range_task(&rig, 0), false);
    let halves = [("range".to_owned(), 0, 1, 0, 1), ("range".to_owned(), 2, 3, 0, 1)];
    // The other task of the first level may still run, but its result is not needed.
    let of_halves = |rig: &Rig| {
        let all = asked(rig).into_iter();
        all.filter(|(_, first, last, ..)| last - first < 3)
            .collect::<Vec<_>>()
    };
    assert_eq!(of_halves(&rig), halves);
    rig.restart(0);
    assert_eq!(of_halves(&rig), halves);
    assert!(rig.buried.is_empty());
    rig.calm();
    assert_eq!(records(&rig), [(0, 1, "proved"), (2, 3, "proved")]);
}

#[test]
fn what_the_halves_of_a_range_failed_counts_after_the_collector_starts_over() {
    let mut rig = ready(0..4);
    rig.finish(&range_task(&rig, 0), false);
    rig.finish(&range_task(&rig, 0), false);
    rig.open.retain(|(id, _), _| id.stage.numbers().count() < 4);
    rig.finish(&range_task(&rig, 0), false);
    rig.open.clear();
    rig.restart(0);
    // The first half is at its second attempt; the other has no result yet.
    let of_halves = [("range".to_owned(), 0, 1, 0, 2), ("range".to_owned(), 2, 3, 0, 1)];
    assert_eq!(asked(&rig), of_halves);
    rig.finish(&range_task(&rig, 0), false);
    rig.finish(&range_task(&rig, 0), true);
    rig.calm();
    let (zero, one) = ((0, 0, "proved"), (1, 1, "proved"));
    assert_eq!(records(&rig), [zero, one, (2, 3, "proved")]);
}

#[test]
fn a_range_that_cannot_be_halved_dies_as_a_whole() {
    let mut rig = Rig::new(0);
    (0..3).for_each(|number| rig.observe(number, 2));
    (0..3).for_each(|number| rig.finish(&prove(&rig, number), true));
    rig.doom(&range_task(&rig, 0));
    assert_eq!(records(&rig), [(0, 2, "dead")]);
    assert_eq!((rig.records[0].hashes.len(), rig.buried.len()), (3, 1));
    rig.calm();
}

#[test]
fn a_collector_that_starts_over_does_not_ask_for_what_a_range_has_done() {
    let mut rig = ready(0..4);
    for index in [0, 1, 2] {
        rig.finish(&range_task(&rig, index), true);
    }
    let wrap = [("wrap".to_owned(), 0, 3, 0, 1)];
    assert_eq!(asked(&rig), wrap);
    rig.restart(0);
    assert_eq!(asked(&rig), wrap);
    rig.calm();
    assert_eq!(records(&rig), [(0, 3, "proved")]);
}

#[test]
fn a_dead_block_that_is_retried_amends_its_record_as_a_range_of_one() {
    let mut rig = Rig::new(0);
    rig.observe(0, 2);
    let first = prove(&rig, 0);
    let again = rig.open[&first].clone();
    rig.doom(&first);
    assert_eq!(records(&rig), [(0, 0, "dead")]);
    rig.retry(again);
    rig.calm();
    assert_eq!(records(&rig), [(0, 0, "dead"), (0, 0, "proved")]);
    assert_eq!(rig.records[1].next, 1);
}

/// Returns the open task of stage `wrap`.
fn wrap_task(rig: &Rig) -> (TaskId, u32) {
    let found = rig.open.keys().find(|(id, _)| id.stage.stage.as_str() == "wrap");
    found.expect("it is open").clone()
}

#[test]
fn a_range_whose_task_was_taken_away_begins_anew_behind_all_earlier_attempts() {
    for room in [0, usize::MAX] {
        for (done, stage) in [(0, "range"), (1, "range"), (2, "range"), (3, "wrap")] {
            let mut rig = Rig::with_room(0, room);
            (0..4).for_each(|number| rig.observe(number, 1));
            (0..4).for_each(|number| rig.finish(&prove(&rig, number), true));
            assert_eq!(rig.miss(), 0, "its tasks are open");
            (0..done).for_each(|index| rig.finish(&range_task(&rig, index), true));
            rig.take_away(|id| id.stage.stage.as_str() == stage);
            assert_eq!(asked(&rig), []);
            let anew = |start: u32| {
                let attempt = first_attempt(start);
                [0, 1].map(|index| ("range".to_owned(), 0, 3, index, attempt))
            };
            assert_eq!(rig.miss(), 1);
            assert_eq!(asked(&rig), anew(1), "after {done} tasks");
            assert_eq!(rig.miss(), 0, "it is worked on");
            rig.take_away(|_| true);
            assert_eq!(rig.miss(), 1);
            assert_eq!(asked(&rig), anew(2));
            // The results of the first start are held until the later one has a result.
            rig.finish(&range_task(&rig, 1), true);
            rig.take_away(|_| true);
            rig.restart(0);
            assert_eq!(asked(&rig), []);
            assert_eq!(rig.miss(), 1);
            assert_eq!(asked(&rig), anew(3));
            rig.calm();
            assert_eq!(records(&rig), [(0, 3, "proved")]);
            assert_eq!(proved(&rig.records[0]).unwrap(), ["0/0", "1/0", "2/0", "3/0"]);
            assert!(rig.buried.is_empty());
        }
    }
}

#[test]
fn a_retry_that_was_taken_away_is_missed_and_a_result_that_comes_late_is_none_of_the_new_start() {
    let mut rig = ready(0..4);
    let late = range_task(&rig, 1);
    let late_task = rig.open[&late].clone();
    rig.finish(&range_task(&rig, 0), false);
    assert_eq!(range_task(&rig, 0).1, 2);
    rig.take_away(|_| true);
    assert_eq!(rig.miss(), 1);
    rig.finish(&range_task(&rig, 0), true);
    rig.open.insert(late.clone(), late_task);
    rig.finish(&late, true);
    assert_eq!(
        asked(&rig),
        [("range".to_owned(), 0, 3, 1, first_attempt(1))],
        "the level is not complete"
    );
    rig.calm();
    assert_eq!(records(&rig), [(0, 3, "proved")]);
}

#[test]
fn only_attempts_whose_result_would_change_a_range_are_its_work() {
    let mut rig = ready(0..4);
    rig.finish(&range_task(&rig, 0), false);
    rig.finish(&range_task(&rig, 1), true);
    let is_work =
        |rig: &Rig, kind, stage: &str, index, attempt| rig.is_work(kind, (0, 3), stage, index, attempt);
    let anew = first_attempt(1);
    for (kind, stage, index, attempt, expected, why) in [
        (Kind::Task, "range", 0, 2, true, "the second attempt"),
        (Kind::Check, "range", 0, 2, true, "its check"),
        (Kind::Check, "range", 0, 1, false, "it has failed"),
        (Kind::Task, "range", 1, 2, false, "a copy of a done task"),
        (
            Kind::Stage,
            "range",
            1,
            1,
            true,
            "a stage has more tasks than the first one",
        ),
        (Kind::Task, "range", 2, 1, true, "a task of the next level"),
        (Kind::Task, "wrap", 0, 1, true, "a task of the next stage"),
        (Kind::Task, "prove", 0, anew, false, "a block's own stage"),
        (Kind::Task, "range", 1, anew, true, "a later start"),
        (Kind::Task, "other", 0, 1, false, "no such stage"),
    ] {
        assert_eq!(is_work(&rig, kind, stage, index, attempt), expected, "{why}");
    }
    rig.take_away(|_| true);
    rig.miss();
    rig.finish(&range_task(&rig, 0), true);
    assert!(!is_work(&rig, Kind::Task, "range", 1, 2), "an earlier start");
    assert!(is_work(&rig, Kind::Task, "range", 1, anew));
    rig.finish(&range_task(&rig, 1), true);
    assert!(!is_work(&rig, Kind::Stage, "range", 0, anew), "an earlier level");
}

#[test]
fn halves_whose_tasks_were_taken_away_begin_anew_and_the_whole_range_does_not() {
    let mut rig = ready(0..4);
    rig.doom(&range_task(&rig, 0));
    rig.take_away(|_| true);
    assert_eq!(rig.miss(), 2);
    let half = |first, last| ("range".to_owned(), first, last, 0, first_attempt(1));
    assert_eq!(asked(&rig), [half(0, 1), half(2, 3)]);
    rig.calm();
    assert_eq!(records(&rig), [(0, 1, "proved"), (2, 3, "proved")]);
}

#[test]
fn what_is_done_dead_or_taken_apart_does_not_begin_anew() {
    // The second range is proved before the first one.
    let mut rig = ready(0..8);
    for task in [(4, 0), (4, 1), (4, 2)] {
        let of_second = |(id, _): &&(TaskId, u32)| {
            (id.stage.first_block().number, id.index) == task && id.stage.stage.as_str() == "range"
        };
        let key = rig.open.keys().find(of_second).expect("it is open").clone();
        rig.finish(&key, true);
    }
    rig.finish(&wrap_task(&rig), true);
    assert_eq!(rig.miss(), 0, "the second range waits for its turn");
    rig.take_away(|_| true);
    rig.cancel(1);
    assert_eq!(rig.miss(), 0, "other ranges were opened");
    rig.calm();
    let records = records(&rig);
    assert_eq!(
        records[..3],
        [(0, 0, "proved"), (1, 1, "abandoned"), (2, 3, "proved")]
    );

    let mut rig = Rig::new(0);
    (0..4).for_each(|number| rig.observe(number, 2));
    (1..4).for_each(|number| rig.finish(&prove(&rig, number), true));
    rig.pass(Duration::from_secs(11));
    rig.advance();
    rig.doom(&range_task(&rig, 0));
    assert_eq!(
        rig.miss(),
        0,
        "the range of block 3 is dead, and waits for its turn"
    );
}

#[derive(Clone, Debug)]
enum Act {
    Observe,
    Finish(Index),
    Fail(Index),
    Restart,
    Cancel(Index),
    Reorg(u64),
    Wait(u64),
    TakeAway(u32),
    Miss,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => Just(Act::Observe),
        16 => any::<Index>().prop_map(Act::Finish),
        2 => any::<Index>().prop_map(Act::Fail),
        2 => Just(Act::Restart),
        1 => any::<Index>().prop_map(Act::Cancel),
        1 => (1u64..6).prop_map(Act::Reorg),
        2 => (1u64..12).prop_map(Act::Wait),
        2 => (0u32..3).prop_map(Act::TakeAway),
        2 => Just(Act::Miss),
    ]
}

/// Returns the final output: each number with the record that holds.
fn view(rig: &Rig, start: u64) -> BTreeMap<u64, Emission> {
    let mut view: BTreeMap<u64, Emission> = BTreeMap::new();
    let mut next = start;
    for record in &rig.records {
        assert!(record.first.number <= next, "a gap before {record:?}");
        view.split_off(&record.first.number);
        if let Some(before) = record.first.number.checked_sub(1).and_then(|n| view.get(&n)) {
            let parent = before.blocks().find(|b| b.number + 1 == record.first.number);
            assert_eq!(parent.map(|b| b.hash), Some(record.parent_hash), "{record:?}");
        }
        assert_eq!(record.next, record.last.number + 1);
        let numbers: Vec<u64> = record.blocks().map(|b| b.number).collect();
        assert_eq!(
            numbers,
            (record.first.number..=record.last.number).collect::<Vec<_>>()
        );
        view.extend(numbers.into_iter().map(|number| (number, record.clone())));
        next = record.next;
    }
    view
}

proptest! {
    #[test]
    fn each_block_of_the_chain_ends_in_one_record_whatever_happens(
        start in 0u64..6,
        revisions in (0u64..30, 0u64..30),
        acts in prop::collection::vec(act(), 1..160),
        room in prop_oneof![Just(0), 1000..20_000_usize, Just(usize::MAX)],
    ) {
        let mut rig = Rig::with_room(start, room);
        let mut tip = start;
        let revision = |number| 1 + u32::from(number >= revisions.0) + u32::from(number >= revisions.0 + revisions.1);
        for act in acts {
            match act {
                Act::Observe => {
                    let next = rig.chain.last_key_value().map_or(start, |(n, _)| n + 1);
                    rig.observe(next, revision(next));
                    tip = tip.max(next);
                }
                Act::Finish(which) | Act::Fail(which) => {
                    let succeeds = matches!(act, Act::Finish(_));
                    if let Some(key) = rig.any(which) {
                        rig.finish(&key, succeeds);
                    }
                }
                Act::Restart => rig.restart(start),
                Act::Cancel(which) => rig.cancel(start + which.index((tip - start + 1) as usize) as u64),
                Act::Reorg(depth) => rig.reorg((tip + 1).saturating_sub(depth).max(start)),
                Act::TakeAway(index) => rig.take_away(|id| id.index == index),
                Act::Miss => {
                    rig.miss();
                }
                Act::Wait(seconds) => {
                    rig.pass(Duration::from_secs(seconds));
                    rig.advance();
                }
            }
        }
        for number in rig.chain.last_key_value().map_or(start, |(n, _)| n + 1)..=tip {
            rig.observe(number, revision(number));
        }
        rig.calm();
        let view = view(&rig, start);
        prop_assert_eq!(view.keys().copied().collect::<Vec<_>>(), (start..=tip).collect::<Vec<_>>());
        for (number, record) in &view {
            let block = record.blocks().find(|b| b.number == *number);
            prop_assert_eq!(block, rig.chain.get(number).map(|(block, _)| *block), "{:?}", record);
            let every = [4, 3, 1][revision(*number) as usize - 1];
            prop_assert_eq!(record.first.number / every, record.last.number / every, "{:?}", record);
            if let Some(proved) = proved(record) {
                let members = record.blocks().map(|b| format!("{}/{}", b.number, b.hash.0[8]));
                prop_assert_eq!(proved, members.collect::<Vec<_>>());
            }
        }
    }
}
