//! The collector's decisions, for results in any order and any number of times.
#![expect(clippy::panic, reason = "a failing test panics, in its helpers as well")]

use proptest::{collection::vec, prelude::*, sample::Index};
use push0_collector::{
    decide::{Collector, Opening, Step, Told},
    state::Handle,
};
use push0_domain::{
    Announcement, BlockHash, BlockRef, Payload, Payloads, ProverId, Timestamp,
    message::{
        BlockContext, BlockEnded, BlockFacts, Emission, EmissionOutcome, EndReason, Failure, FailureClass,
        KnownBlock, Outcome, TaskHeader, TaskResult,
    },
    pipeline::Pipeline,
    task::StageKey,
    trace::TraceContext,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

const ATTEMPTS: u32 = 3;
const NOW: Timestamp = Timestamp(1_000_000);

fn stage(name: &str, kind: &str, more: &str) -> String {
    format!(
        "[[proof.stage]]\nname = \"{name}\"\nkind = \"{kind}\"\ntimeout = \"10s\"\nattempts = {ATTEMPTS}\n{more}\n"
    )
}

/// A pipeline of `proofs` proof types `type-0`, `type-1` and so on with these stages, of which
/// `quorum` are wanted.
fn pipeline(proofs: usize, quorum: usize, stages: &[String]) -> Arc<Pipeline> {
    let proof = |at| {
        format!(
            "[[proof]]\ntype = \"type-{at}\"\nzkvm = \"mock\"\nverify = \"off\"\n{}",
            stages.concat()
        )
    };
    let proofs: String = (0..proofs).map(proof).collect();
    let head = format!("name = \"demo\"\n[source]\nkind = \"external\"\n[quorum]\nvalid = {quorum}\n");
    Arc::new(Pipeline::from_toml("test.toml", &(head + &proofs)).expect("valid"))
}

fn single(proofs: usize, quorum: usize) -> Arc<Pipeline> {
    pipeline(proofs, quorum, &[stage("prove", "map", "")])
}

fn number(index: u32) -> Payload {
    Payload::Inline(index.to_le_bytes().to_vec())
}

fn completed(index: u32) -> Outcome {
    let outputs = Payloads::one(number(index));
    Outcome::Completed { outputs }
}

fn failed(class: FailureClass) -> Outcome {
    Outcome::Failed(Failure::new(class, "as drawn"))
}

/// A collector whose next block is 7, and the messages it has acknowledged.
struct Session {
    core: Collector,
    pipeline: Arc<Pipeline>,
    handles: u64,
    acknowledged: BTreeSet<Handle>,
    /// Further changes to the headers of attempts.
    adapt: fn(&mut TaskHeader),
    stored_at: Timestamp,
}

/// The end of one attempt.
struct Ended {
    proof: usize,
    stage: &'static str,
    index: u32,
    of: u32,
    attempt: u32,
    outcome: Outcome,
}

impl Session {
    fn new(pipeline: Arc<Pipeline>) -> Self {
        Self {
            core: Collector::new(pipeline.name.clone(), 7, BTreeMap::new()),
            pipeline,
            handles: 0,
            acknowledged: BTreeSet::new(),
            adapt: |_| {},
            stored_at: Timestamp::default(),
        }
    }

    /// Handles a result. Returns the steps that follow, except acknowledgements.
    fn tell(&mut self, ended: Ended) -> Vec<Step> {
        self.handles += 1;
        self.deliver(Handle(self.handles), ended)
    }

    fn deliver(&mut self, handle: Handle, ended: Ended) -> Vec<Step> {
        let spec = &self.pipeline.proofs[ended.proof];
        let (_, stage) = spec.stage(&ended.stage.parse().expect("valid")).expect("a stage");
        let block = BlockRef {
            number: 7,
            hash: BlockHash([7; 32]),
        };
        let key = StageKey {
            pipeline: self.pipeline.name.clone(),
            block,
            first: None,
            proof_type: spec.proof_type.clone(),
            stage: stage.name.clone(),
        };
        let mut header = TaskHeader {
            id: key.task(ended.index),
            attempt: ended.attempt,
            hedge_of: None,
            zkvm: stage.zkvm.clone(),
            context: BlockContext {
                revision: 1,
                parent_hash: BlockHash::default(),
                announcement: Announcement(1),
                stored_at: Timestamp(1),
                first_announcement: None,
                deadline_at: None,
                amends: false,
                facts: BlockFacts::default(),
            },
            kind: stage.kind,
            of: ended.of,
            timeout_ms: 10_000,
            hedge_after_ms: None,
            attempts_max: stage.attempts,
            give_up_at: None,
            check: false,
            program_id: None,
            busy_us: 0,
        };
        (self.adapt)(&mut header);
        let result = TaskResult {
            header,
            prover: ProverId::new(&format!("p-{}", ended.attempt)).expect("valid"),
            outcome: ended.outcome,
            inputs: Some(Payloads::one(number(ended.index))),
            prove_us: 1,
            verdict: None,
        };
        let pipeline = self.pipeline.clone();
        let trace = TraceContext::default();
        let told = Told {
            stored_at: self.stored_at,
            ..Told::default()
        };
        let mut steps = self.core.result(handle, result, told, &trace, &pipeline);
        steps.extend(self.core.advance(NOW, |_| Some(pipeline.clone())));
        self.acknowledge(&steps);
        steps.retain(|step| !matches!(step, Step::Ack(_)));
        steps
    }

    /// Checks that each message is acknowledged once.
    fn acknowledge(&mut self, steps: &[Step]) {
        for step in steps {
            let (Step::Ack(handles) | Step::Open(_, handles) | Step::Emit(_, _, handles)) = step else {
                continue;
            };
            for handle in handles {
                assert!(self.acknowledged.insert(*handle), "{handle:?} twice");
            }
        }
    }
}

fn opening(step: &Step) -> &Opening {
    match step {
        Step::Open(opening, _) => opening,
        other => panic!("{other:?}"),
    }
}

fn record(step: &Step) -> &Emission {
    match step {
        Step::Emit(record, ..) => record,
        other => panic!("{other:?}"),
    }
}

/// All of `0..count` in any order, with some of them again anywhere behind.
fn arrivals(count: std::ops::Range<u32>) -> impl Strategy<Value = (u32, Vec<u32>)> {
    let again = vec((any::<Index>(), any::<Index>()), 0..20);
    count
        .prop_flat_map(move |of| (Just((0..of).collect::<Vec<u32>>()).prop_shuffle(), again.clone()))
        .prop_map(|(mut order, again)| {
            let of = order.len() as u32;
            for (which, to) in again {
                let from = which.index(order.len());
                let to = from + 1 + to.index(order.len() - from);
                order.insert(to, order[from]);
            }
            (of, order)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    /// A join reads its inputs in the order of their indices, and is opened once, not before the last input.
    /// A redelivered message, or a result reported again, changes nothing.
    #[test]
    fn a_join_reads_its_inputs_in_order_whatever_came_first(
        (of, order) in arrivals(1..40),
        arity in proptest::option::of(2..5_u32),
        redelivered in any::<Index>(),
    ) {
        let arity = arity.map_or_else(String::new, |arity| format!("arity = {arity}"));
        let stages = [stage("split", "split", ""), stage("segment", "map", ""), stage("join", "join", &arity)];
        let mut told = Session::new(pipeline(1, 1, &stages));
        let mut seen = BTreeSet::new();
        let segment = |index| Ended { proof: 0, stage: "segment", index, of, attempt: 1, outcome: completed(index) };
        let redelivered = redelivered.index(order.len());
        for (at, index) in order.iter().enumerate() {
            let steps = told.tell(segment(*index));
            if !seen.insert(*index) || seen.len() < of as usize {
                prop_assert_eq!(steps, []);
            } else {
                prop_assert_eq!(steps.len(), 1);
                let ready = &opening(&steps[0]).ready;
                prop_assert_eq!(ready.stage.stage.as_str(), "join");
                prop_assert_eq!(&ready.inputs, &Payloads::List((0..of).map(number).collect()));
            }
            if at == redelivered {
                let acknowledged = told.acknowledged.clone();
                prop_assert_eq!(told.deliver(Handle(told.handles), segment(*index)), []);
                prop_assert_eq!(&told.acknowledged, &acknowledged, "what is held is not let go of");
            }
        }
        // All results of the stage, repeated ones included, are settled by the opened join.
        prop_assert_eq!(told.acknowledged.len(), order.len());
    }

    /// P6: attempts follow one another. Each is asked for once, and only when the newest one has failed; a
    /// failure of an older attempt, or a repeated failure, asks for nothing. When the task dies, as many
    /// failures count as its budget allows, and nothing follows a completion.
    #[test]
    fn attempts_follow_one_another_until_the_budget_is_used_up(
        ends in vec((any::<Index>(), 0..10_u32), 1..20),
    ) {
        let mut told = Session::new(single(1, 1));
        let (mut asked, mut failures, mut is_over) = (1, BTreeMap::new(), false);
        for (which, kind) in ends {
            let attempt = 1 + which.index(asked as usize) as u32;
            let outcome = match kind {
                0 => completed(0),
                1 => failed(FailureClass::Stopped),
                _ => failed(FailureClass::Retryable),
            };
            let is_completed = kind == 0;
            let is_dead = |failures: &BTreeMap<u32, u32>| failures.values().filter(|kind| **kind != 1).count() >= ATTEMPTS as usize;
            let steps = told.tell(Ended { proof: 0, stage: "prove", index: 0, of: 1, attempt, outcome });
            if is_over {
                prop_assert_eq!(steps, []);
            } else if is_completed {
                prop_assert!(matches!(record(&steps[0]).outcome, EmissionOutcome::Proved(_)));
                is_over = true;
            } else {
                let is_news = !failures.contains_key(&attempt);
                failures.entry(attempt).or_insert(kind);
                if is_dead(&failures) {
                    prop_assert!(matches!(steps[0], Step::Bury(..)));
                    let outcome = &record(&steps[1]).outcome;
                    prop_assert!(matches!(outcome, EmissionOutcome::Dead { .. }), "{:?}", outcome);
                    is_over = true;
                } else if is_news && attempt == asked {
                    prop_assert_eq!(steps.len(), 1);
                    asked += 1;
                    let ready = &opening(&steps[0]).ready;
                    prop_assert_eq!((ready.attempt, ready.tasks.count), (asked, 1));
                    prop_assert_eq!(&ready.inputs, &Payloads::one(number(0)));
                } else {
                    prop_assert_eq!(steps, []);
                }
            }
        }
    }

    /// A block is proved as soon as its quorum is, by those proofs; dead as soon as the quorum is out of
    /// reach; and has one record.
    #[test]
    fn a_quorum_of_k_of_n_decides_as_soon_as_it_can(
        (ends, quorum) in (1..6_usize).prop_flat_map(|n| (vec(any::<bool>(), n), 1..=n)),
        order in any::<u64>(),
    ) {
        let count = ends.len();
        let mut told = Session::new(single(count, quorum));
        let mut proofs: Vec<usize> = (0..count).collect();
        proofs.sort_by_key(|at| order.rotate_left(8 * *at as u32).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let (mut done, mut dead, mut records) = (BTreeSet::new(), 0, 0);
        for proof in proofs {
            let outcome = if ends[proof] { completed(0) } else { failed(FailureClass::Fatal) };
            let steps = told.tell(Ended { proof, stage: "prove", index: 0, of: 1, attempt: 1, outcome });
            if ends[proof] {
                done.insert(format!("type-{proof}"));
            } else {
                dead += 1;
            }
            let record = steps.last().filter(|step| matches!(step, Step::Emit(..))).map(record);
            let is_proved = records == 0 && done.len() == quorum;
            let is_dead = records == 0 && count - dead < quorum;
            match record.map(|record| &record.outcome) {
                Some(EmissionOutcome::Proved(proofs)) => {
                    prop_assert!(is_proved);
                    let types: BTreeSet<String> = proofs.iter().map(|proof| proof.proof_type.to_string()).collect();
                    prop_assert_eq!(&types, &done);
                }
                Some(EmissionOutcome::Dead { .. }) => prop_assert!(is_dead),
                Some(other) => prop_assert!(false, "{other:?}"),
                None => prop_assert!(!is_proved && !is_dead),
            }
            records += u32::from(record.is_some());
        }
        prop_assert_eq!(records, 1);
    }
}

/// How an attempt at the only task of the only proof ended.
fn attempt(attempt: u32, outcome: Outcome) -> Ended {
    let (proof, stage, index, of) = (0, "prove", 0, 1);
    Ended {
        proof,
        stage,
        index,
        of,
        attempt,
        outcome,
    }
}

/// P6: a task that ran out of memory goes to provers with more memory, and stays there.
#[test]
fn after_an_attempt_without_memory_the_next_ones_go_to_provers_with_more() {
    let stages = [stage("prove", "map", "more_memory = \"mock-large\"")];
    let mut told = Session::new(pipeline(1, 1, &stages));
    let mut asked = Vec::new();
    for (number, class) in [(1, FailureClass::OutOfMemory), (2, FailureClass::Retryable)] {
        let steps = told.tell(attempt(number, failed(class)));
        asked.push((number, opening(&steps[0]).ready.zkvm.to_string()));
    }
    assert_eq!(
        asked,
        [(1, "mock-large".to_owned()), (2, "mock-large".to_owned())]
    );
}

/// The hedge of an attempt has the next number. The attempt with more memory must not collide with the hedge,
/// and the task lives while that attempt runs.
#[test]
fn an_attempt_with_more_memory_is_another_one_than_a_hedge() {
    let stages = [stage(
        "prove",
        "map",
        "hedge_after = \"1s\"\nmore_memory = \"mock-large\"",
    )];
    let mut told = Session::new(pipeline(1, 1, &stages));
    told.adapt = |header| {
        header.hedge_after_ms = Some(1000);
        header.attempts_max = 2;
        header.hedge_of = (header.attempt == 2).then_some(1);
    };
    let steps = told.tell(attempt(1, failed(FailureClass::OutOfMemory)));
    let ready = &opening(&steps[0]).ready;
    assert_eq!((ready.attempt, ready.zkvm.as_str()), (3, "mock-large"));
    assert_eq!(told.tell(attempt(2, failed(FailureClass::OutOfMemory))), []);
    let steps = told.tell(attempt(3, completed(0)));
    assert!(matches!(record(&steps[0]).outcome, EmissionOutcome::Proved(_)));
}

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
