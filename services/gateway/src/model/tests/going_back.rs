//! What is known goes back with the chain, the output and the broker.

use super::*;

/// Returns a model that knows block 5 as the next one and the announced blocks up to this one.
fn up_to(last: u64) -> Model {
    let mut model = model();
    for number in 6..=last {
        model.observed(&observed(number), None, at(number));
    }
    model
}

fn pipeline(model: &Model) -> view::Pipeline {
    model.snapshot("x".into(), at(0)).pipelines.remove(0)
}

fn numbers(model: &Model) -> Vec<u64> {
    model.blocks.iter().map(|(id, _)| id.number).collect()
}

/// Reads the same so often that nothing heard before may be newer.
fn settle(model: &mut Model, reading: &Reading) {
    for _ in 0..3 {
        model.read(reading.clone(), at(0));
    }
}

#[test]
fn the_head_goes_back_with_a_shorter_chain() {
    let mut model = up_to(40);
    model.read(reading(5, 12, 8), at(50));
    assert_eq!(pipeline(&model).head, Some(40), "the reading may be older");
    settle(&mut model, &reading(5, 12, 8));
    assert_eq!((pipeline(&model).head, pipeline(&model).lag), (Some(12), Some(8)));
    assert_eq!(
        numbers(&model),
        (5..=12).collect::<Vec<_>>(),
        "nothing waits beyond the head"
    );
    // A fact of the old chain that is read late raises nothing.
    model.recalled(&observed(40), at(60));
    model.observed(&observed(13), None, at(70));
    assert_eq!(pipeline(&model).head, Some(13));
}

#[test]
fn without_a_cursor_the_head_is_what_was_announced() {
    let mut model = up_to(9);
    let mut external = reading(5, 0, 5);
    external.pipelines[0].1.head = None;
    settle(&mut model, &external);
    assert_eq!(pipeline(&model).head, Some(9));
}

#[test]
fn a_new_session_believes_the_broker_alone() {
    let mut model = up_to(40);
    model.record(&record(20, proved()), at(50), None);
    model.define(&reading(5, 12, 0));
    assert_eq!(
        (pipeline(&model).next, pipeline(&model).head),
        (Some(5), Some(12))
    );
}

#[test]
fn blocks_emitted_beyond_the_output_were_replaced() {
    let mut model = model();
    for number in 5..=9 {
        model.observed(&observed(number), None, at(number));
        model.record(&record(number, proved()), at(number), None);
    }
    model.changes(at(10));
    let mut other = record(6, proved());
    (other.first.hash, other.last.hash) = (BlockHash([9; 32]), BlockHash([9; 32]));
    model.record(&other, at(20), None);
    let states = |model: &Model| -> Vec<_> {
        let blocks = model.snapshot("x".into(), at(30)).blocks;
        blocks.iter().map(|block| (block.number, block.state)).collect()
    };
    assert_eq!(model.changes(at(30)).blocks.len(), 5, "clients are told");
    let of = |number| (number, "replaced");
    let mut shown = states(&model);
    shown.sort_unstable();
    assert_eq!(shown, [(5, "proved"), (6, "proved"), of(6), of(7), of(8), of(9)]);
    assert_eq!(view(&model, 8, 30).waits_for, "The chain replaced the block.");
    // The chain returns to a block, which is proved again.
    model.observed(&observed(8), None, at(40));
    assert_eq!(view(&model, 8, 50).state, "waiting");
    // An old output that a restored broker tells does the same.
    settle(&mut model, &reading(5, 9, 0));
    assert!(states(&model).contains(&of(5)));
}

#[test]
fn a_block_released_after_the_end_of_its_predecessors_stands() {
    let mut model = model();
    // A reset names no hashes, and the new block was announced before.
    let mut ended = BlockEnded::of_one(demo(), block(5), Announcement(5), EndReason::Reorged);
    ended.hashes.clear();
    model.end(&ended, at(10));
    assert_eq!(view(&model, 5, 20).state, "replaced");
    model.released(&key(5, 1), at(30));
    assert_eq!(view(&model, 5, 40).state, "waiting");
}

#[test]
fn a_damaged_record_moves_nothing_and_a_lost_one_does() {
    let mut model = model();
    let mut lost = reading(0, 4, 0);
    (lost.pipelines[0].1.next, lost.pipelines[0].1.is_damaged) = (Some(1), true);
    settle(&mut model, &lost);
    assert_eq!(pipeline(&model).next, Some(5));
    lost.pipelines[0].1.is_damaged = false;
    settle(&mut model, &lost);
    assert_eq!(pipeline(&model).next, Some(1));
}

#[test]
fn a_removed_pipeline_is_forgotten_when_none_of_its_blocks_is_in_flight() {
    let mut model = up_to(9);
    model.changes(at(10));
    model.read(Reading::default(), at(10));
    assert_eq!(model.names(), [demo()], "it finishes its blocks");
    let over = Reading {
        over: vec![demo()],
        ..Reading::default()
    };
    model.read(over, at(10));
    let snapshot = model.snapshot("x".into(), at(10));
    assert!(snapshot.pipelines.is_empty() && snapshot.blocks.is_empty());
    // No event takes a pipeline away, so clients start over.
    assert!(model.changes(at(10)).is_too_long);
}

#[test]
fn an_emptied_broker_leaves_nothing_of_the_old_blocks() {
    let mut model = up_to(9);
    let made = |seconds: Option<u64>| Reading {
        made_at: seconds.map(|seconds| at(seconds * 1_000)),
        ..reading(5, 9, 5)
    };
    model.read(made(Some(1)), at(10));
    model.read(made(None), at(10));
    assert_eq!(numbers(&model).len(), 5, "a stream did not answer");
    model.changes(at(10));
    model.read(made(Some(2)), at(20));
    assert_eq!(numbers(&model), [0; 0]);
    assert!(model.changes(at(20)).is_too_long);
}
