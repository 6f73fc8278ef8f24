//! The waits between operations of a session: records, acknowledgements, reads and looks.

use crate::rig::{self, Ended, NOW, attempt, completed, single, stage};
use push0_collector::{
    decide::{Collector, Told},
    session::{Op, Report, Session, Token},
    state::Handle,
};
use push0_domain::{
    Announcement, BlockHash, BlockRef, Payloads, Timestamp,
    message::{BlockEnded, BlockFacts, EndReason, KnownBlock, Outcome},
    pipeline::Pipeline,
    trace::TraceContext,
};
use std::{collections::BTreeMap, sync::Arc};

/// Most publishes in flight, most records in flight, and most blocks looked up in a tick.
const IN_FLIGHT_MAX: u64 = 1024;
const BATCH_MAX: u64 = 256;
const LOOKS_AT_ONCE: u64 = 64;

/// A session whose next block is 7, after its replay.
fn session(pipeline: &Pipeline) -> Session {
    let mut session = Session::new(Collector::new(pipeline.name.clone(), 7, BTreeMap::new()));
    session.replays(false);
    session
}

/// Tells the session of a result of a block, in the message with the block's number.
fn tell(session: &mut Session, pipeline: &Arc<Pipeline>, number: u64, ended: Ended, is_replay: bool) {
    let mut told = rig::Session::new(pipeline.clone());
    told.adapt = |header| {
        header.context.parent_hash = BlockHash([(header.id.stage.block.number - 1) as u8; 32]);
    };
    let report = Report {
        result: told.result(number, ended),
        told: Told::default(),
        trace: TraceContext::default(),
    };
    session.replays(is_replay);
    session.result(Handle(number), report, pipeline, NOW);
}

/// Takes the operations until there is none. Returns the others and the acknowledged messages.
fn ops(session: &mut Session) -> (Vec<Op>, Vec<u64>) {
    let (mut others, mut acknowledged) = (Vec::new(), Vec::new());
    while let Some(op) = session.next_op() {
        match op {
            Op::Ack(handles) => acknowledged.extend(handles.iter().map(|handle| handle.0)),
            op => others.push(op),
        }
    }
    (others, acknowledged)
}

#[test]
fn nothing_is_concluded_before_all_unacknowledged_results_are_replayed() {
    let pipeline = single(1, 1);
    let mut session = session(&pipeline);
    tell(&mut session, &pipeline, 7, attempt(1, completed(0)), true);
    session.tick(NOW);
    assert!(session.next_op().is_none());
    session.replays(false);
    session.tick(NOW);
    assert!(matches!(session.next_op(), Some(Op::Append)));
    assert!(
        session.next_op().is_none(),
        "a result is acknowledged behind its record"
    );
    session.recorded(NOW);
    assert_eq!(ops(&mut session).1, [7]);
}

#[test]
fn records_are_stored_in_batches_each_behind_the_one_before() {
    let pipeline = single(1, 1);
    let mut session = session(&pipeline);
    let last = 7 + BATCH_MAX;
    let replayed = (7..=last).map(|number| (number, number < last));
    for (number, is_replay) in replayed {
        tell(
            &mut session,
            &pipeline,
            number,
            attempt(1, completed(0)),
            is_replay,
        );
    }
    for numbers in [7..last, last..last + 1] {
        assert!(matches!(ops(&mut session).0[..], [Op::Append]));
        let stored = session.batch().iter().map(|ready| ready.emission.last.number);
        assert!(stored.eq(numbers.clone()));
        session.recorded(NOW);
        let Some(Op::Ack(first)) = session.next_op() else {
            panic!("no acknowledgement");
        };
        assert_eq!(first, [Handle(numbers.start)]);
    }
}

#[test]
fn no_more_results_are_read_while_too_many_stages_or_bytes_are_in_flight() {
    let stages = [
        stage("split", "split", ""),
        stage("segment", "map", ""),
        stage("join", "join", ""),
    ];
    let pipeline = rig::pipeline(1, 1, &stages);
    let mut session = session(&pipeline);
    for number in 7..7 + IN_FLIGHT_MAX {
        assert!(session.has_room());
        let outputs = Payloads::List(vec![rig::number(0), rig::number(1)]);
        let split = Ended {
            stage: "split",
            ..attempt(1, Outcome::Completed { outputs })
        };
        tell(&mut session, &pipeline, number, split, false);
    }
    assert!(!session.has_room());
    let (opened, acknowledged) = ops(&mut session);
    let tokens: Vec<Token> = opened
        .iter()
        .map(|op| match op {
            Op::Open(_, token) => *token,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!((tokens.len() as u64, acknowledged), (IN_FLIGHT_MAX, Vec::new()));
    session.opened(tokens[0]);
    assert_eq!(ops(&mut session).1, [7]);
    assert!(session.has_room());
    session.weighs(tokens[1], 4 << 20);
    assert!(!session.has_room());
    session.opened(tokens[1]);
    assert!(session.has_room());
}

#[test]
fn blocks_given_up_before_any_result_are_looked_up_in_turn_some_in_each_tick() {
    let mut session = session(&single(1, 1));
    let (last, known) = (7 + LOOKS_AT_ONCE, 7..7 + LOOKS_AT_ONCE);
    let cancelled = BlockEnded {
        pipeline: single(1, 1).name.clone(),
        first: 7,
        last,
        hashes: Vec::new(),
        before: Announcement(2),
        reason: EndReason::Cancelled { note: String::new() },
    };
    session.end(Handle(1), cancelled, NOW);
    let mut looks = Vec::new();
    for tick in 1..=30 {
        session.tick(NOW);
        while let Some(op) = session.next_op() {
            if let Op::Look(number) = op {
                looks.push((tick, number));
                let block = known.contains(&number).then(|| block(number));
                session.known(block.as_slice(), NOW);
            }
        }
    }
    let (mut expected, unknown) = (Vec::from_iter(known.map(|number| (10, number))), [11, 20, 30]);
    expected.extend(unknown.map(|tick| (tick, last)));
    assert_eq!(looks, expected);
}

fn block(number: u64) -> (KnownBlock, Timestamp) {
    let known = KnownBlock {
        block: BlockRef {
            number,
            hash: BlockHash([number as u8; 32]),
        },
        parent_hash: BlockHash([(number - 1) as u8; 32]),
        revision: 1,
        observed_at: NOW,
        announced_after: Announcement(1),
        input: None,
        facts: BlockFacts::default(),
    };
    (known, NOW)
}
