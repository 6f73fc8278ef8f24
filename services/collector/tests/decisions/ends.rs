//! Deadlines and ends of blocks, and their order against results.

use crate::rig::{Ended, NOW, Session, attempt, completed, failed, opening, record, single};
use push0_collector::{
    decide::{Collector, Step},
    state::Handle,
};
use push0_domain::{
    Announcement, BlockHash, BlockRef, Timestamp,
    message::{
        BlockEnded, BlockFacts, Emission, EmissionOutcome, EndReason, FailureClass, KnownBlock, TaskHeader,
    },
};
use std::collections::BTreeMap;

/// A dead letter may be retried before its block has a record. Such a retry amends no record, and the block's
/// deadline ends it like any other work, also in a collector that hears of nothing but the retry.
#[test]
fn a_retry_before_the_record_does_not_outlive_the_deadline() {
    for told_by_the_clock in [false, true] {
        let mut told = Session::new(single(2, 2));
        told.adapt = |header| {
            header.context.deadline_at = Some(Timestamp(500));
            header.context.amends = true;
        };
        assert_eq!(told.tell(attempt(2, completed(0))), []);
        if told_by_the_clock {
            told.core.tick(Timestamp(500));
        } else {
            let ended = BlockEnded {
                pipeline: told.pipeline.name.clone(),
                first: 7,
                last: 7,
                hashes: vec![BlockHash([7; 32])],
                before: Announcement(2),
                reason: EndReason::DeadlinePassed,
            };
            told.core.end(Handle(100), ended);
        }
        let pipeline = told.pipeline.clone();
        let steps = told.core.advance(NOW, |_| Some(pipeline.clone()));
        let emitted = steps.iter().find(|step| matches!(step, Step::Emit(..)));
        let outcome = &record(emitted.expect("a record")).outcome;
        assert_eq!(*outcome, EmissionOutcome::Abandoned(EndReason::DeadlinePassed));
    }
}

/// A proof that was stored before its block's deadline counts although the block was given up.
#[test]
fn what_comes_in_time_counts_although_it_was_thought_out_of_reach() {
    for (stored_at, is_proved) in [(Timestamp(499), true), (Timestamp(500), false)] {
        let mut told = Session::new(single(1, 1));
        told.adapt = |header| {
            header.context.deadline_at = Some(Timestamp(500));
            header.context.parent_hash = BlockHash([6; 32]);
        };
        // The block's turn has not come: another block is before it.
        told.core = Collector::new(told.pipeline.name.clone(), 6, BTreeMap::new());
        told.stored_at = stored_at;
        let ended = BlockEnded {
            pipeline: told.pipeline.name.clone(),
            first: 7,
            last: 7,
            hashes: vec![BlockHash([7; 32])],
            before: Announcement(2),
            reason: EndReason::OutOfReach,
        };
        told.core.end(Handle(1), ended);
        told.handles = 1;
        assert_eq!(told.tell(attempt(1, completed(0))), []);
        let cancelled = BlockEnded {
            pipeline: told.pipeline.name.clone(),
            first: 6,
            last: 6,
            hashes: Vec::new(),
            before: Announcement(2),
            reason: EndReason::Cancelled { note: String::new() },
        };
        told.core.end(Handle(101), cancelled);
        let known = KnownBlock {
            block: BlockRef {
                number: 6,
                hash: BlockHash([6; 32]),
            },
            parent_hash: BlockHash([5; 32]),
            revision: 1,
            observed_at: Timestamp(1),
            announced_after: Announcement::default(),
            input: None,
            facts: BlockFacts::default(),
        };
        told.core.known(&known, Timestamp(1));
        let pipeline = told.pipeline.clone();
        let steps = told.core.advance(NOW, |_| Some(pipeline.clone()));
        let records: Vec<&Emission> = steps
            .iter()
            .filter_map(|step| match step {
                Step::Emit(record, ..) => Some(&**record),
                _ => None,
            })
            .collect();
        assert_eq!(records.len(), 2, "{steps:?}");
        assert_eq!(
            matches!(records[1].outcome, EmissionOutcome::Proved(_)),
            is_proved,
            "{:?}",
            records[1]
        );
    }
}

/// The broker's clock may jump between two messages. A cancellation dated before the announcement that it follows
/// ends the block all the same, and an announcement dated before the cancellation that it follows is wanted.
#[test]
fn the_place_of_an_announcement_in_its_stream_decides_and_no_clock() {
    const BY_A_WRONG_CLOCK: [fn(&mut TaskHeader); 2] = [
        |header| header.context.stored_at = Timestamp(9_000_000_000),
        |header| header.context.stored_at = Timestamp(0),
    ];
    for adapt in BY_A_WRONG_CLOCK {
        for (before, is_proved) in [(Announcement(1), true), (Announcement(2), false)] {
            let mut told = Session::new(single(1, 1));
            told.adapt = adapt;
            let cancelled = BlockEnded {
                pipeline: told.pipeline.name.clone(),
                first: 7,
                last: 7,
                hashes: Vec::new(),
                before,
                reason: EndReason::Cancelled { note: String::new() },
            };
            told.core.end(Handle(100), cancelled);
            told.handles = 100;
            let steps = told.tell(attempt(1, completed(0)));
            let outcome = &record(&steps[0]).outcome;
            assert_eq!(
                matches!(outcome, EmissionOutcome::Proved(_)),
                is_proved,
                "{outcome:?}"
            );
        }
    }
}

/// A block without results is known only by its fact, which names the message of BLOCKS before the announcement.
/// The end by a deadline holds the announcement itself.
#[test]
fn a_block_without_results_is_ended_by_an_end_behind_its_announcement() {
    let cancelled = || EndReason::Cancelled { note: String::new() };
    let is_recorded = |announced_after: u64, ends: &[(u64, EndReason)]| {
        let mut told = Session::new(single(1, 1));
        let block = BlockRef {
            number: 7,
            hash: BlockHash([7; 32]),
        };
        for (at, (before, reason)) in ends.iter().enumerate() {
            let ended = BlockEnded {
                pipeline: told.pipeline.name.clone(),
                first: 7,
                last: 7,
                hashes: vec![block.hash],
                before: Announcement(*before),
                reason: reason.clone(),
            };
            told.core.end(Handle(at as u64 + 1), ended);
        }
        let known = KnownBlock {
            block,
            parent_hash: BlockHash([6; 32]),
            revision: 1,
            observed_at: Timestamp(1),
            announced_after: Announcement(announced_after),
            input: None,
            facts: BlockFacts::default(),
        };
        told.core.known(&known, Timestamp(1));
        let pipeline = told.pipeline.clone();
        let steps = told.core.advance(NOW, |_| Some(pipeline.clone()));
        steps.iter().any(|step| matches!(step, Step::Emit(..)))
    };
    assert!(is_recorded(3, &[(5, cancelled())]));
    assert!(
        !is_recorded(5, &[(5, cancelled())]),
        "announced behind the cancellation"
    );
    let replaced = (2, EndReason::Reorged);
    assert!(
        is_recorded(2, &[replaced.clone(), (5, cancelled())]),
        "announced again"
    );
    assert!(
        !is_recorded(1, &[replaced.clone(), (5, cancelled())]),
        "the chain replaced it"
    );
    // The fact was written again for a second announcement, which the broker dropped as a duplicate of the late one.
    assert!(is_recorded(9, &[replaced, (5, EndReason::DeadlinePassed)]));
}

/// A prover's word that no attempt can succeed may be a lie: another prover has to agree.
#[test]
fn one_provers_word_does_not_kill_a_block() {
    let mut told = Session::new(single(1, 1));
    let fatal = attempt(1, failed(FailureClass::Fatal));
    let steps = told.tell(fatal.clone());
    let next = opening(&steps[0]);
    assert_eq!(
        (next.ready.attempt, next.ready.failed),
        (2, 0),
        "another prover tries at once"
    );
    let steps = told.tell(Ended { attempt: 2, ..fatal });
    assert!(matches!(steps[..], [Step::Bury(..), ..]), "{steps:?}");
}
