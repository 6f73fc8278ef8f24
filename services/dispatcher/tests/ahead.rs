//! Tests of how far blocks are read ahead of the output, and of cancellations read before their turn.

use proptest::{collection::vec, prelude::*};
use push0_dispatcher::{
    decide::{CANCELS_EARLY_MAX, Dispatcher, Effect, SourceId},
    session::{Attempts, Op, Received, Session},
};
use push0_domain::{
    Announcement, BlockHash, BlockRef, Payload, SealKeys, Timestamp,
    message::{
        BlockEvent, BlockFacts, Cancel, Emission, EmissionOutcome, EndReason, Lease, ObservedBlock,
        ProverState, Role,
    },
    output::Output,
    pipeline::Pipeline,
    seal_keys::SealKey,
    trace::TraceContext,
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

const NOW: Timestamp = Timestamp(1_000_000);

fn pipeline() -> Arc<Pipeline> {
    let text = "name = \"demo\"\n[source]\nkind = \"external\"\n[[proof]]\ntype = \"main\"\nzkvm = \"mock\"\n\
                verify = \"off\"\n[[proof.stage]]\nname = \"prove\"\nkind = \"map\"\ntimeout = \"9s\"\n";
    Arc::new(Pipeline::from_toml("test.toml", text).expect("valid"))
}

fn block(number: u64, fork: u8) -> BlockRef {
    let hash = BlockHash([fork; 32]);
    BlockRef { number, hash }
}

fn idle(pipeline: &Pipeline) -> Dispatcher {
    let mut dispatcher = Dispatcher::default();
    dispatcher.recall(&pipeline.name, Output::default());
    let lease = Lease {
        prover: "p".parse().expect("valid"),
        zkvm: "mock".parse().expect("valid"),
        role: Role::Prover,
        incarnation: 1,
        origin: None,
        beat: 1,
        slots: 1_000,
        ahead: 0,
        state: ProverState::Active,
        held: Vec::new(),
    };
    dispatcher.heard(&lease, NOW);
    dispatcher
}

fn cancel(pipeline: &Pipeline, first: u64, last: u64, hashes: Vec<BlockHash>) -> Cancel {
    Cancel {
        pipeline: pipeline.name.clone(),
        first,
        last,
        hashes,
        reason: EndReason::Reorged,
    }
}

fn record(pipeline: &Pipeline, block: BlockRef, announcement: u64) -> Emission {
    Emission {
        pipeline: pipeline.name.clone(),
        first: block,
        last: block,
        hashes: Vec::new(),
        standing: Vec::new(),
        parent_hash: BlockHash::default(),
        outcome: EmissionOutcome::Abandoned(EndReason::DeadlinePassed),
        next: block.number + 1,
        announcement: Announcement(announcement),
        stored_at: NOW,
        order_us: 0,
        facts: BlockFacts::default(),
    }
}

/// A message of BLOCKS: a block by number and fork, or a cancellation of numbers, optionally of
/// one fork only.
#[derive(Clone, Debug)]
enum Word {
    Block(u64, u8),
    Cancel(u64, u64, Option<u8>),
}

fn word() -> impl Strategy<Value = Word> {
    prop_oneof![
        3 => (0..5_u64, 0..2_u8).prop_map(|(number, fork)| Word::Block(number, fork)),
        1 => (0..5_u64, 0..3_u64, proptest::option::of(0..2_u8))
            .prop_map(|(first, more, fork)| Word::Cancel(first, first + more, fork)),
    ]
}

/// Outcome of playing the words.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    released: BTreeSet<(u64, u64, BlockHash)>,
    acknowledged: BTreeSet<u64>,
    ends: BTreeSet<(Announcement, u64, u64)>,
}

/// Plays the words to a dispatcher. Before word N, the next `early[N]` cancellations behind it
/// are read early.
fn play(words: &[Word], early: &[usize]) -> Outcome {
    let pipeline = pipeline();
    let mut real = idle(&pipeline);
    let mut outcome = Outcome::default();
    let say = |real: &mut Dispatcher, outcome: &mut Outcome, position: usize, is_early: bool| {
        let source = SourceId::Block(position as u64 + 1);
        let effects = match &words[position] {
            Word::Block(number, fork) => real.block(source, block(*number, *fork), None, &pipeline),
            Word::Cancel(first, last, fork) => {
                let hashes = fork.map(|fork| BlockHash([fork; 32])).into_iter().collect();
                let cancel = cancel(&pipeline, *first, *last, hashes);
                real.cancel(source, &cancel, [], is_early)
            }
        };
        for effect in effects {
            let acknowledged = match effect {
                Effect::Done(source) => Some(source),
                Effect::End(ended, source) => {
                    outcome.ends.insert((ended.before, ended.first, ended.last));
                    source
                }
                other => unreachable!("{other:?}"),
            };
            let sequence = acknowledged.map(SourceId::sequence);
            assert!(
                sequence.is_none_or(|sequence| outcome.acknowledged.insert(sequence)),
                "twice"
            );
        }
    };
    let mut looked_to = 0;
    for position in 0..words.len() {
        looked_to = looked_to.max(position);
        for _ in 0..early.get(position).copied().unwrap_or(0) {
            let ahead = words.iter().enumerate().skip(looked_to);
            let Some((found, _)) = ahead.clone().find(|(_, word)| matches!(word, Word::Cancel(..))) else {
                break;
            };
            say(&mut real, &mut outcome, found, true);
            looked_to = found + 1;
        }
        say(&mut real, &mut outcome, position, false);
    }
    while let Some(release) = real.release(NOW) {
        let block = release.stage.block;
        outcome
            .released
            .insert((release.source.sequence(), block.number, block.hash));
    }
    outcome
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// P8: whenever a cancellation is read before its turn, in the end the same blocks are released, the same
    /// ends are told, and the same messages are acknowledged, once each.
    #[test]
    fn a_cancel_that_is_read_early_ends_what_it_would_have_ended_in_its_turn(
        words in vec(word(), 1..40),
        early in vec(0..3_usize, 0..40),
    ) {
        prop_assert_eq!(play(&words, &early), play(&words, &[]));
    }

    /// P6: a block is taken in only if it is near enough to the next block to emit, or ends at once.
    #[test]
    fn no_block_is_taken_in_that_is_too_far_ahead(
        first in 0..100_u64,
        emitted in 0..20_u64,
        ahead in 1..20_u64,
        number in 0..200_u64,
        is_cancelled in any::<bool>(),
    ) {
        let pipeline = pipeline();
        let mut real = idle(&pipeline);
        real.announced(&pipeline.name, first);
        for number in first..first + emitted {
            real.emitted(&record(&pipeline, block(number, 1), number));
        }
        if is_cancelled {
            let cancel = cancel(&pipeline, number, number, Vec::new());
            real.cancel(SourceId::Block(9), &cancel, [], true);
        }
        let room = |sequence| real.has_room(SourceId::Block(sequence), &pipeline.name, &block(number, 1), ahead);
        let is_near = number <= first + emitted + ahead;
        prop_assert_eq!(room(8), is_near || is_cancelled);
        // The block announced again behind the cancellation is not cancelled.
        prop_assert_eq!(room(10), is_near);
    }
}

#[test]
fn the_same_block_that_is_announced_behind_its_cancel_is_wanted() {
    let words = [
        Word::Block(1, 0),
        Word::Cancel(1, 1, Some(0)),
        Word::Block(1, 1),
        Word::Cancel(1, 1, Some(1)),
        Word::Block(1, 0),
    ];
    let released = play(&words, &[2]).released;
    assert_eq!(released, BTreeSet::from([(5, 1, BlockHash([0; 32]))]));
}

#[test]
fn cancels_that_wait_for_unread_blocks_are_limited() {
    let pipeline = pipeline();
    let mut real = idle(&pipeline);
    let mut taken = 0;
    for sequence in 1..=10_000 {
        if real.has_room_for_cancels(&pipeline.name) {
            let cancel = cancel(&pipeline, sequence, sequence, Vec::new());
            real.cancel(SourceId::Block(sequence), &cancel, [], true);
            taken += 1;
        }
    }
    assert_eq!(taken, CANCELS_EARLY_MAX);
    // The first cancellation comes in its turn, which makes room for another.
    let first = cancel(&pipeline, 1, 1, Vec::new());
    let effects = real.cancel(SourceId::Block(1), &first, [], false);
    assert_eq!(effects, [Effect::Done(SourceId::Block(1))]);
    assert!(real.has_room_for_cancels(&pipeline.name));
}

/// P6: finished blocks and cancellations leave no state behind. The debug output keeps its length, except for
/// the digits of counters.
#[test]
fn blocks_and_cancels_that_went_by_leave_nothing() {
    const DIGITS: usize = 400;
    let pipeline = pipeline();
    let mut real = idle(&pipeline);
    let mut length_after = |blocks: std::ops::Range<u64>| {
        for number in blocks {
            let source = SourceId::Block(2 * number);
            real.block(source, block(number, 1), None, &pipeline);
            let release = real.release(NOW).expect("a free place");
            real.stored(release.source, release.index);
            real.ended(&release.key);
            real.emitted(&record(&pipeline, block(number, 1), 2 * number));
            let gone = cancel(&pipeline, number, number, vec![BlockHash([2; 32])]);
            real.cancel(SourceId::Block(2 * number + 1), &gone, [], false);
        }
        format!("{real:?}").len()
    };
    let (before, after) = (length_after(100_000..102_000), length_after(102_000..110_000));
    assert!(after <= before + DIGITS, "{before} bytes became {after}");
    assert!(real.forget(&pipeline.name) && !real.knows(&pipeline.name));
    let left = format!("{real:?}");
    assert!(!left.contains("demo"), "{left}");
}

fn observed(pipeline: &Pipeline, number: u64, sequence: u64) -> Received<BlockEvent> {
    let block = ObservedBlock {
        pipeline: pipeline.name.clone(),
        revision: 1,
        block: block(number, 1),
        parent_hash: BlockHash::default(),
        input: Payload::empty(),
        observed_at: NOW,
        deadline_at: None,
        facts: BlockFacts::default(),
    };
    Received {
        body: BlockEvent::Observed(block),
        trace: TraceContext::default(),
        subject: String::new(),
        sequence,
        stored_at: NOW,
        is_replay: false,
    }
}

/// P1, P8: a late block fills the hole in front of a parked block. It cannot be acknowledged before the consumer has
/// delivered it. A cancel waits until the release is in TASKS.
#[test]
fn a_pipeline_that_waits_for_its_output_asks_for_any_record_that_it_missed() {
    let pipeline = pipeline();
    let name = &pipeline.name;
    let mut session = Session::new(1);
    session.core = idle(&pipeline);
    session.core.recall(name, Output::new(1, Default::default()));
    session.open(name, true, NOW);
    assert_eq!(session.outputs(), [(name.clone(), 1)]);
    // The record of a range, blocks 1 to 3, was missed. It has the number 3.
    session.receive(name, observed(&pipeline, 4, 1), Some(pipeline.clone()));
    assert!(session.is_parked(name));
    assert_eq!(session.outputs(), [(name.clone(), 0)]);
}

#[test]
fn a_late_block_is_released_at_once_and_acknowledged_in_its_turn() {
    let pipeline = pipeline();
    let (name, defined) = (&pipeline.name, || Some(pipeline.clone()));
    let mut session = Session::new(1);
    session.core = idle(&pipeline);
    session.core.announced(name, 1);
    session.open(name, true, NOW);
    let parked = session.receive(name, observed(&pipeline, 3, 1), defined());
    assert!(parked.is_empty() && session.is_parked(name));
    assert!(session.seeks_late_blocks(name, NOW).is_none(), "too soon");
    let search = session.seeks_late_blocks(name, NOW.plus(Duration::from_secs(2)));
    assert_eq!(search.map(|search| (search.parked, search.front)), Some((1, 1)));
    let late = session.receive_late(name, observed(&pipeline, 1, 2), defined());
    assert!(late.is_empty());

    let left = [(name, 1)];
    assert!(session.release(0, left, NOW).is_none(), "a cancel may be unread");
    session.receive_early(name, []);
    assert!(session.release(1, left, NOW).is_none(), "a stage is unread");
    let released = session.release(0, left, NOW).expect("all is read that can be");
    let found = released.into_iter().map(|release| {
        let body = session.body(release.source).expect("it is cached");
        (release, Some((body, pipeline.clone())))
    });
    let round = found.collect();
    let keys = SealKeys::new(SealKey::new([1; 32]));
    let published = session.publish(round, &keys, NOW).expect("it is sealed");
    assert!(matches!(&published[..], [Op::Publish(out)] if out.release.source == SourceId::Block(2)));

    let cancel = cancel(&pipeline, 3, 3, Vec::new());
    assert!(session.receive_early(name, [(3, cancel)]).is_empty() && session.awaits_answers());
    let stored = session.stored((SourceId::Block(2), 0));
    assert!(matches!(stored[..], [Op::ListTasks]), "{stored:?}");
    let cancelled = session.list(&Attempts::new());
    assert!(matches!(cancelled[..], [Op::End(_)]) && !session.awaits_answers());

    let block = session.unpark(name, NOW).expect("it is parked");
    let ended = session.receive(name, block, defined());
    assert!(matches!(ended[..], [Op::Acknowledge(SourceId::Block(1))]));
    let turn = session.receive(name, observed(&pipeline, 1, 2), defined());
    assert!(matches!(turn[..], [Op::Acknowledge(SourceId::Block(2))]));
}
