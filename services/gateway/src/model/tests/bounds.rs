//! Whatever is told, the model stays small, and its counts stay right.

use super::*;
use crate::{
    gate,
    model::{
        block::{ATTEMPTS_MAX, BlockId},
        blocks::BYTES_MAX,
        fleet::MEMBERS_MAX,
    },
};
use push0_domain::{
    message::Origin,
    subject::{self, Kind},
};

fn held(model: &Model) -> Vec<u64> {
    model.blocks.iter().map(|(id, _)| id.number).collect()
}

fn waiting(model: &Model) -> usize {
    let zkvms = model.snapshot("x".into(), at(0)).zkvms;
    zkvms.iter().map(|zkvm| zkvm.waiting).sum()
}

#[test]
fn of_very_many_waiting_blocks_those_next_to_the_output_are_held_and_all_are_counted() {
    let mut model = model();
    let last = 5 + 3 * BLOCKS_MAX as u64;
    for number in 6..=last {
        model.observed(&observed(number), None, at(number));
    }
    let count = last - 4;
    model.read(reading(5, last, count), at(0));
    assert!(model.blocks.len() <= BLOCKS_MAX);
    assert_eq!(held(&model), (5..5 + BLOCKS_MAX as u64).collect::<Vec<_>>());
    assert_eq!(waiting(&model), count as usize);
    let snapshot = model.snapshot("x".into(), at(0));
    assert_eq!(snapshot.pipelines[0].lag, Some(count));
    let numbers: Vec<u64> = snapshot.blocks.iter().map(|block| block.number).collect();
    assert_eq!(numbers, (5..5 + SHOWN_MAX as u64).collect::<Vec<_>>());
    // More changed than a snapshot has, so clients get a snapshot.
    assert!(model.changes(at(0)).is_too_long);
    // Clients are told of none that has no room.
    model.observed(&observed(last + 1), None, at(last + 1));
    let change = model.changes(at(0));
    assert!(change.gone.is_none() && change.blocks.is_empty());
}

#[test]
fn blocks_come_back_when_the_output_nears_them() {
    let mut model = model();
    let (last, moved) = (100_000, 50_000);
    for number in 6..=last {
        model.observed(&observed(number), None, at(number));
    }
    model.record(&record(moved - 1, proved()), at(last), None);
    model.read(reading(moved, last, last + 1 - moved), at(last));
    let missing = model.missing();
    assert_eq!(missing.len(), MISSING_MAX);
    assert_eq!(missing[0], (demo(), moved));
    for _ in 0..8 {
        for (_, number) in model.missing() {
            model.recalled(&observed(number), at(number));
        }
    }
    assert_eq!(model.missing(), []);
    assert!(held(&model).contains(&moved) && held(&model).contains(&(moved + 500)));
    assert!(model.blocks.len() <= BLOCKS_MAX);
    assert_eq!(waiting(&model), (last + 1 - moved) as usize);
    // An attempt far ahead makes its block known, and more room than there is takes none from the next blocks.
    model.released(&key(last, 1), at(last));
    assert!(held(&model).contains(&last) && held(&model).contains(&moved));
}

#[test]
fn blocks_with_a_record_and_waiting_ones_share_the_room() {
    let mut model = model();
    for number in 6..=3_000 {
        model.observed(&observed(number), None, at(number));
        model.record(&record(number, proved()), at(number), None);
    }
    for number in 3_001..=9_000 {
        model.observed(&observed(number), None, at(number));
    }
    let open = model.blocks.iter().filter(|(_, block)| block.is_open()).count();
    assert_eq!((model.blocks.len(), open), (BLOCKS_MAX, BLOCKS_MAX / 2));
    assert!(held(&model).contains(&3_001) && held(&model).contains(&3_000));
    let shown = model.snapshot("x".into(), at(0)).blocks;
    assert_eq!(shown.len(), SHOWN_MAX);
    assert_eq!(
        shown.iter().filter(|block| block.state == "proved").count(),
        SHOWN_MAX / 2
    );
}

#[test]
fn waiting_blocks_are_no_more_than_the_stream_holds() {
    let mut model = model();
    model.observed(&observed(6), None, at(10));
    assert_eq!(waiting(&model), 2);
    // The release of block 5 was not heard.
    model.read(reading(5, 6, 1), at(20));
    model.read(reading(5, 6, 1), at(30));
    assert_eq!(waiting(&model), 1);
    model.observed(&observed(7), None, at(40));
    assert_eq!(waiting(&model), 2);
    // Before the first record of an external ingester, the next number is not known.
    let mut other = Model::default();
    let mut unknown = reading(0, 0, 9);
    (unknown.pipelines[0].1.next, unknown.pipelines[0].1.head) = (None, None);
    other.read(unknown, at(0));
    assert_eq!(waiting(&other), 9);
}

#[test]
fn a_missed_record_is_made_good_by_the_next_readings() {
    let mut model = model();
    for number in 6..=8 {
        model.observed(&observed(number), None, at(number));
    }
    model.record(&record(5, proved()), at(10), None);
    let next = |model: &Model| model.snapshot("x".into(), at(20)).pipelines[0].next;
    // Such a reading may be older than the record.
    model.read(reading(5, 8, 3), at(20));
    assert_eq!(next(&model), Some(6));
    model.read(reading(8, 8, 1), at(20));
    model.read(reading(8, 8, 1), at(20));
    assert_eq!((next(&model), held(&model)), (Some(8), vec![5, 8]));
    // A record that is read later moves nothing.
    model.recorded_before(&record(6, proved()), at(9), None);
    assert_eq!((next(&model), held(&model)), (Some(8), vec![5, 6, 8]));
}

#[test]
fn wide_blocks_and_long_texts_are_bounded_in_bytes() {
    let mut model = model();
    let long = |number| {
        let failure = Failure::new(FailureClass::Retryable, "x".repeat(4096));
        result(number, 1, Outcome::Failed(failure), None)
    };
    for number in 5..40 {
        model.observed(&observed(number), None, at(number));
        for index in 0..300 {
            let key = AttemptKey {
                index,
                ..key(number, 1)
            };
            model.released(&key, at(number));
            model.result(&key, &long(number), at(number));
        }
        assert!(model.blocks.bytes() <= BYTES_MAX);
        model.record(&record(number, proved()), at(number), None);
    }
    let attempts = model.blocks.iter().map(|(_, block)| block.attempts().count());
    assert!(attempts.max().unwrap() <= ATTEMPTS_MAX);
    assert!(model.blocks.len() > 2, "{}", model.blocks.len());
}

#[test]
fn a_lease_under_the_name_of_another_changes_nothing() {
    let mut model = model();
    let own = subject::lease(&"mock".parse().unwrap(), &"p1".parse().unwrap());
    model.heard(&lease("p1", vec![]), at(0));
    for at_name in 0..10_000 {
        assert_eq!(gate::lease(&own, lease(&format!("p1-{at_name}"), vec![])), None);
    }
    let elsewhere = subject::lease(&"other".parse().unwrap(), &"p1".parse().unwrap());
    assert_eq!(gate::lease(&elsewhere, lease("p1", vec![])), None);
    let mut boastful = lease("p1", vec![]);
    boastful.slots = u32::MAX;
    assert_eq!(gate::lease(&own, boastful), None);
    assert!(gate::lease(&own, lease("p1", vec![(5, None)])).is_some());
}

#[test]
fn members_are_bounded_and_share_what_is_remembered() {
    let mut model = model();
    let held: Vec<(u64, Option<u64>)> = (1..41).map(|number| (number, Some(1))).collect();
    let mut lease = lease("p", held);
    lease.origin = Some(Origin {
        host: "h".repeat(100_000),
        pid: 1,
    });
    let mut ended = result(5, 1, completed(), None);
    for name in 0..10_000 {
        lease.prover = format!("p{name}").parse().unwrap();
        model.heard(&lease, at(0));
        ended.prover = lease.prover.clone();
        for _ in 0..5 {
            model.result(&key(5, 1), &ended, at(0));
        }
    }
    let told = model.changes(at(1_000)).provers.len();
    let provers = model.snapshot("x".into(), at(1_000)).provers;
    assert_eq!((told, provers.len()), (MEMBERS_MAX, MEMBERS_MAX));
    let count = |of: &dyn Fn(&view::Prover) -> usize| provers.iter().map(of).sum::<usize>();
    assert!(count(&|prover| prover.held.len()) <= 8_192);
    assert!(count(&|prover| prover.recent.len()) <= 8_192);
    assert!(
        provers
            .iter()
            .all(|prover| prover.host.as_ref().unwrap().len() < 200)
    );
    // One that is gone makes room for one that is there.
    (lease.prover, lease.held) = ("late".parse().unwrap(), Vec::new());
    model.heard(&lease, at(60_000));
    let change = model.changes(at(60_000));
    assert_eq!(change.gone.unwrap().provers.len(), 1);
    assert!(change.provers.iter().any(|prover| prover.id == "late"));
}

#[test]
fn provers_of_two_zkvms_may_have_one_name() {
    let mut model = model();
    model.heard(&lease("p1", vec![]), at(0));
    let mut other = lease("p1", vec![]);
    other.zkvm = "other".parse().unwrap();
    model.heard(&other, at(0));
    let provers = model.snapshot("x".into(), at(0)).provers;
    let zkvms: Vec<&str> = provers.iter().map(|prover| prover.zkvm.as_str()).collect();
    assert_eq!(zkvms, ["mock", "other"]);
}

#[test]
fn reports_make_no_block_and_no_pipeline_known() {
    let mut model = model();
    for number in 100..10_100 {
        let mut unknown = key(number, 1);
        model.checking(&unknown, &result(number, 1, completed(), None), at(0));
        model.result(
            &unknown,
            &result(number, 1, failed(FailureClass::Died), None),
            at(0),
        );
        unknown.pipeline = format!("p{number}").parse().unwrap();
        model.checking(&unknown, &result(number, 1, completed(), None), at(0));
    }
    assert_eq!((held(&model), model.chains.len()), (vec![5], 1));
    assert!(model.changes(at(0)).blocks.iter().all(|block| block.number == 5));
}

#[test]
fn reports_of_one_block_are_bounded_and_hide_no_released_attempt() {
    let mut model = model();
    model.released(&key(5, 1), at(0));
    for attempt in 2..10_000 {
        let mut made_up = key(5, attempt);
        made_up.stage = format!("s{attempt}").parse().unwrap();
        model.checking(&made_up, &result(5, attempt, completed(), None), at(0));
    }
    let block = model.blocks.get(&BlockId::of(&demo(), &block(5))).unwrap();
    assert_eq!(block.attempts().count(), ATTEMPTS_MAX);
    assert!(block.stages.len() <= 128, "{}", block.stages.len());
    assert!(block.attempts().any(|(place, _)| place.number == 1));
    // After the record, no attempt is new.
    model.record(&record(5, proved()), at(10), None);
    let view = view(&model, 5, 20).attempts;
    model.checking(&key(5, 77), &result(5, 77, completed(), None), at(20));
    assert_eq!(view, ATTEMPTS_MAX);
}

#[test]
fn a_report_is_believed_of_its_speaker_only() {
    let report = result(5, 1, failed(FailureClass::Stopped), None);
    let subject = |prover: &str| subject::result(&prover.parse().unwrap(), &key(5, 1), None);
    assert_eq!(gate::report(&subject("p2"), Kind::Result, &report), None);
    assert_eq!(gate::report(&subject("p1"), Kind::Verdict, &report), None);
    let by_watchdog = subject::result_by_watchdog(&key(5, 1));
    assert_eq!(gate::report(&by_watchdog, Kind::Result, &report), Some(key(5, 1)));
}

#[test]
fn huge_numbers_are_no_trouble() {
    let mut model = model();
    let mut report = result(5, 1, completed(), None);
    (report.prove_us, report.transfer_us) = (u64::MAX, u64::MAX);
    let key = AttemptKey {
        index: u32::MAX,
        ..key(5, 1)
    };
    model.released(&key, at(0));
    model.checking(&key, &report, at(1));
    model.result(&key, &report, at(2));
    let mut upside_down = record(5, proved());
    upside_down.first.number = u64::MAX;
    model.record(&upside_down, at(3), None);
    model.observed(&observed(u64::MAX), None, at(4));
    model.read(reading(5, u64::MAX, u64::MAX), at(5));
    assert_eq!(model.missing().len(), MISSING_MAX);
    model.snapshot("x".into(), at(6));
}

#[test]
fn very_many_pipelines_are_not_all_shown() {
    let mut model = model();
    for number in 0..1_000 {
        let mut announced = observed(7);
        announced.pipeline = format!("p{number}").parse().unwrap();
        model.observed(&announced, None, at(0));
        let mut released = key(7, 1);
        released.pipeline = format!("r{number}").parse().unwrap();
        model.released(&released, at(0));
    }
    assert_eq!(model.chains.len(), PIPELINES_MAX);
    model.read(reading(5, 7, 1), at(0));
    assert!(model.chains.len() <= PIPELINES_MAX);
}
