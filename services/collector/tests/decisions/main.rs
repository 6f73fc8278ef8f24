//! The collector's decisions, for results in any order and any number of times.
#![expect(clippy::panic, reason = "a failing test panics, in its helpers as well")]

mod blamed;
mod ends;
mod rig;
mod session;

use crate::rig::{
    ATTEMPTS, Ended, NOW, Session, arrivals, attempt, completed, failed, number, opening, pipeline, record,
    single, stage,
};
use proptest::{collection::vec, prelude::*, sample::Index};
use push0_collector::{
    decide::{Collector, Step},
    state::Handle,
};
use push0_domain::{
    BlockHash, CriticalPath, Payloads, Timestamp,
    message::{EmissionOutcome, FailureClass, Outcome},
    task::first_attempt,
};
use std::collections::{BTreeMap, BTreeSet};

#[test]
fn a_stage_is_ready_behind_the_result_that_came_last() {
    let stages = [
        stage("split", "split", ""),
        stage("segment", "map", ""),
        stage("join", "join", ""),
    ];
    let mut told = Session::new(pipeline(1, 1, &stages));
    told.adapt = |header| {
        let split = CriticalPath::behind(Vec::new(), Timestamp(100)).failed_at(Timestamp(250));
        header.path = match header.id.stage.stage.as_str() {
            "split" => split,
            _ => CriticalPath::behind(Vec::new(), Timestamp(400)).held(50),
        };
    };
    let outputs = Payloads::List(vec![number(0), number(1)]);
    let split = Ended {
        stage: "split",
        ..attempt(2, Outcome::Completed { outputs })
    };
    told.stored_at = Timestamp(300);
    let steps = told.tell(split);
    let path = &opening(&steps[0]).ready.path;
    assert_eq!(
        (path.ready_at, path.failed, path.failed_until, path.held_us),
        (Timestamp(300), 0, Timestamp(300), 0)
    );
    let leg = &path.legs[0];
    assert_eq!((leg.stage.as_str(), leg.prover.as_str()), ("split", "p-2"));
    assert_eq!(
        (leg.ready_at, leg.ended_at, leg.failed),
        (Timestamp(100), Timestamp(300), 1)
    );
    assert_eq!(
        (leg.parts.failed_us, leg.parts.prove_us, leg.own_us()),
        (150, 1, 49)
    );
    let segment = |index, number| Ended {
        stage: "segment",
        index,
        of: 2,
        ..attempt(number, completed(index))
    };
    told.stored_at = Timestamp(500);
    assert_eq!(told.tell(segment(1, 1)), []);
    told.stored_at = Timestamp(700);
    let steps = told.tell(segment(0, 2));
    let path = &opening(&steps[0]).ready.path;
    assert_eq!((path.ready_at, path.legs.len()), (Timestamp(700), 1));
    assert_eq!(path.legs[0].prover.as_str(), "p-2");
    assert_eq!((path.legs[0].parts.waited_us, path.legs[0].own_us()), (50, 249));
}

#[test]
fn the_next_attempt_is_ready_when_its_task_was_and_tells_of_the_failures() {
    let mut told = Session::new(single(1, 1));
    told.adapt = |header| {
        let begun = CriticalPath::behind(Vec::new(), Timestamp(100)).held(7);
        header.path = if header.attempt == 1 {
            begun
        } else {
            begun.failed_at(Timestamp(300)).held(9)
        };
    };
    for (number, stored_at) in [(1, 300), (2, 800)] {
        told.stored_at = Timestamp(stored_at);
        let steps = told.tell(attempt(number, failed(FailureClass::Died)));
        let path = &opening(&steps[0]).ready.path;
        assert_eq!(
            (path.ready_at, path.failed, path.held_us),
            (Timestamp(100), number, 0)
        );
        assert_eq!(path.failed_until, Timestamp(stored_at));
    }
}

/// Block 8 was ready before its turn, which came with the record of block 7. Block 9 was ready after it.
#[test]
fn a_record_tells_how_long_its_block_waited_for_earlier_records() {
    let mut told = Session::new(single(1, 1));
    told.adapt = |header| {
        let number = header.id.stage.block.number as u8;
        header.context.parent_hash = BlockHash([number - 1; 32]);
        header.path = CriticalPath::behind(Vec::new(), Timestamp(5));
    };
    let mut waited = Vec::new();
    for (block, stored_at) in [(8, 10), (7, 20), (9, NOW.0 + 30)] {
        told.stored_at = Timestamp(stored_at);
        told.handles += 1;
        let steps = told.deliver_of(Handle(told.handles), block, attempt(1, completed(0)));
        let of = |step: &Step| (record(step).last.number, record(step).order_us);
        waited.extend(steps.iter().map(of));
        if let [first, ..] = &steps[..] {
            let ended_at = record(first).critical_path()[0].ended_at;
            assert_eq!(ended_at, Timestamp(stored_at));
        }
    }
    assert_eq!(waited, [(7, 0), (8, NOW.0 - 10), (9, 0)]);
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

    /// A proof that is begun anew forgets the results of its earlier start, whichever there were, and is joined of the
    /// results of its new start alone. Late results of the earlier start change nothing.
    #[test]
    fn a_proof_that_is_begun_anew_is_made_of_its_new_start_alone(
        of in 2..8_u32,
        earlier in vec((any::<Index>(), any::<bool>()), 0..8),
        late in vec((any::<Index>(), any::<bool>()), 0..8),
    ) {
        let stages = [stage("split", "split", ""), stage("segment", "map", ""), stage("join", "join", "")];
        let mut told = Session::new(pipeline(1, 1, &stages));
        let segment = |index, start, outcome| {
            Ended { proof: 0, stage: "segment", index, of, attempt: first_attempt(start), outcome }
        };
        // One segment is missing.
        let any_but_one = |which: Index| which.index(of as usize - 1) as u32;
        let of_first_start = |(which, is_completed): (Index, bool)| {
            let outcome = if is_completed { completed(0) } else { failed(FailureClass::Died) };
            segment(any_but_one(which), 1, outcome)
        };
        for earlier in earlier {
            told.tell(of_first_start(earlier));
        }
        let outputs = Payloads::List((0..of).map(number).collect());
        let split = Ended { stage: "split", of: 1, ..segment(0, 2, Outcome::Completed { outputs }) };
        let steps = told.tell(split);
        let ready = &opening(&steps[0]).ready;
        prop_assert_eq!((ready.stage.stage.as_str(), ready.attempt), ("segment", first_attempt(2)));
        prop_assert_eq!(told.acknowledged.len(), told.handles as usize, "everything is settled");
        for late in late {
            prop_assert_eq!(told.tell(of_first_start(late)), []);
        }
        for index in 0..of {
            let steps = told.tell(segment(index, 2, completed(index + 100)));
            if index + 1 < of {
                prop_assert_eq!(steps, []);
            } else {
                let ready = &opening(&steps[0]).ready;
                prop_assert_eq!((ready.stage.stage.as_str(), ready.attempt), ("join", first_attempt(2)));
                prop_assert_eq!(&ready.inputs, &Payloads::List((100..of + 100).map(number).collect()));
            }
        }
        prop_assert_eq!(told.acknowledged.len(), told.handles as usize);
    }

    /// P6: attempts follow one another. Each is asked for once, and only when the newest one has failed; a
    /// failure of an older attempt, or a repeated failure, asks for nothing. When the task dies, as many
    /// failures of its own were shown before as its budget allows, and nothing follows a completion.
    #[test]
    fn attempts_follow_one_another_until_the_budget_is_used_up(
        ends in vec((any::<Index>(), 0..10_u32), 1..20),
    ) {
        let mut told = Session::new(single(1, 1));
        let (mut asked, mut failures, mut is_over) = (1, BTreeMap::new(), false);
        // Failures shown to be the task's own, and how many of them the last failure that tells of the task saw.
        let (mut shown, mut charged) = (0, 0);
        for (which, kind) in ends {
            let attempt = 1 + which.index(asked as usize) as u32;
            let outcome = match kind {
                0 => completed(0),
                1 => failed(FailureClass::Stopped),
                _ => failed(FailureClass::Retryable),
            };
            let is_completed = kind == 0;
            let is_news = !failures.contains_key(&attempt);
            let tells_of_task = kind > 1 && failures.get(&attempt).is_none_or(|told| *told == 1);
            let ended = Ended { proof: 0, stage: "prove", index: 0, of: 1, attempt, outcome };
            if tells_of_task {
                charged = shown;
            }
            let steps = if is_news && !is_over && kind > 1 {
                shown += 1;
                told.tell_own(ended)
            } else {
                told.tell(ended)
            };
            if is_over {
                prop_assert_eq!(steps, []);
            } else if is_completed {
                prop_assert!(matches!(record(&steps[0]).outcome, EmissionOutcome::Proved(_)));
                is_over = true;
            } else {
                let recorded = failures.entry(attempt).or_insert(kind);
                *recorded = kind.max(*recorded);
                if is_news && charged >= ATTEMPTS {
                    prop_assert!(matches!(steps[0], Step::Bury(..)), "{steps:?}");
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
            let ended = Ended { proof, stage: "prove", index: 0, of: 1, attempt: 1, outcome: completed(0) };
            let steps = if ends[proof] { told.tell(ended) } else { told.tell_fatal(ended) };
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

/// P6: a task that ran out of memory goes to provers with more memory, and stays there.
#[test]
fn after_an_attempt_without_memory_the_next_ones_go_to_provers_with_more() {
    let stages = [stage("prove", "map", "more_memory = \"mock-large\"")];
    let mut told = Session::new(pipeline(1, 1, &stages));
    let mut asked = Vec::new();
    let mut number = 1;
    for class in [FailureClass::OutOfMemory, FailureClass::Retryable] {
        let steps = told.tell(attempt(number, failed(class)));
        let ready = &opening(&steps[0]).ready;
        asked.push(ready.zkvm.to_string());
        number = ready.attempt;
    }
    assert_eq!(asked, ["mock-large", "mock-large"]);
}

/// A hedge, or the copies of attempts whose provers fell silent, have the next numbers. The attempt with more memory
/// must not collide with them, and the task lives while that attempt runs.
#[test]
fn an_attempt_with_more_memory_is_another_one_than_a_copy() {
    let stages = [stage("prove", "map", "more_memory = \"mock-large\"")];
    let mut told = Session::new(pipeline(1, 1, &stages));
    told.adapt = |header| {
        header.attempts_max = 2;
        header.hedge_of = (2..4).contains(&header.attempt).then(|| header.attempt - 1);
    };
    let steps = told.tell(attempt(1, failed(FailureClass::OutOfMemory)));
    let ready = &opening(&steps[0]).ready;
    assert_eq!((ready.attempt, ready.zkvm.as_str()), (4, "mock-large"));
    assert_eq!(told.tell(attempt(2, failed(FailureClass::OutOfMemory))), []);
    assert_eq!(told.tell(attempt(3, failed(FailureClass::Died))), []);
    let steps = told.tell(attempt(4, completed(0)));
    assert!(matches!(record(&steps[0]).outcome, EmissionOutcome::Proved(_)));
}

/// Some tasks of a retry may end after the retry died. The next retry begins anew, and is not taken for older work
/// because these tasks are of a later stage.
#[test]
fn a_retry_of_a_block_that_died_again_begins_anew() {
    let stages = [
        stage("split", "split", ""),
        stage("segment", "map", ""),
        stage("join", "join", ""),
    ];
    let mut told = Session::new(pipeline(1, 1, &stages));
    told.core = Collector::new(told.pipeline.name.clone(), 8, BTreeMap::new());
    told.amends = true;
    let result = |stage, index, of, outcome| Ended {
        proof: 0,
        stage,
        index,
        of,
        attempt: 1,
        outcome,
    };
    told.adapt = |header| {
        header.context.amends = true;
        header.context.stored_at = Timestamp(10);
    };
    let died = told.tell_fatal(result("segment", 0, 2, completed(0)));
    assert!(matches!(died[..], [Step::Bury(..)]), "{died:?}");
    assert_eq!(told.tell(result("segment", 1, 2, completed(1))), []);
    told.adapt = |header| {
        header.context.amends = true;
        header.context.stored_at = Timestamp(20);
    };
    let steps = told.tell(result("split", 0, 1, completed(0)));
    assert_eq!(opening(&steps[0]).ready.stage.stage.as_str(), "segment");
    let late = told.acknowledged.len();
    told.adapt = |header| {
        header.context.amends = true;
        header.context.stored_at = Timestamp(10);
    };
    assert_eq!(told.tell(result("segment", 1, 2, completed(1))), []);
    assert_eq!(told.acknowledged.len(), late + 1, "the older retry is over");
}

/// An attempt whose prover was condemned has a copy already, under the next number. The retry has that number too, so
/// it is the same message, and there is no third copy while the second runs. No hedge was set for the stage.
#[test]
fn a_condemned_attempt_whose_copy_runs_gets_no_third_copy() {
    let session = || {
        let mut told = Session::new(pipeline(1, 1, &[stage("prove", "map", "")]));
        told.adapt = |header| header.hedge_of = (header.attempt == 2).then_some(1);
        told
    };
    let numbers = |steps: &[Step]| {
        steps
            .iter()
            .map(|step| opening(step).ready.attempt)
            .collect::<Vec<_>>()
    };
    let died = || failed(FailureClass::Died);
    // The original is condemned while the copy runs. A third attempt follows only the end of the copy.
    let mut told = session();
    assert_eq!(numbers(&told.tell(attempt(1, died()))), [2]);
    assert_eq!(numbers(&told.tell(attempt(1, died()))), [0_u32; 0]);
    assert_eq!(
        numbers(&told.tell(attempt(2, failed(FailureClass::Retryable)))),
        [3]
    );
    // The copy fails while its original still runs, which may be back.
    let mut told = session();
    assert_eq!(
        numbers(&told.tell(attempt(2, failed(FailureClass::Retryable)))),
        [0_u32; 0]
    );
    assert_eq!(numbers(&told.tell(attempt(1, died()))), [3]);
}

/// The prover of an attempt of an earlier stage died after its result was stored. The collector has started over, and
/// takes the late failure for the newest. A death in the stage that follows has a letter of its own all the same.
#[test]
fn the_death_of_a_later_stage_has_its_own_letter() {
    let stages = [
        stage("first", "map", "deaths = 1"),
        stage("second", "map", "deaths = 1"),
    ];
    let mut told = Session::new(pipeline(1, 1, &stages));
    // The block waits for its turn, so its first death has no record yet.
    told.core = Collector::new(told.pipeline.name.clone(), 6, BTreeMap::new());
    let mut died = |stage: &'static str| {
        let ended = Ended {
            stage,
            ..attempt(1, failed(FailureClass::Died))
        };
        told.tell(ended)
    };
    for stage in ["first", "second"] {
        let steps = died(stage);
        assert!(matches!(&steps[..], [Step::Bury(..), ..]), "{stage}: {steps:?}");
    }
}

/// The failures kept of a task are fewer than its budget may be.
#[test]
fn a_task_with_a_large_budget_of_deaths_ends_when_the_budget_is_used_up() {
    let mut told = Session::new(pipeline(1, 1, &[stage("prove", "map", "deaths = 20")]));
    for number in 1..=20 {
        let steps = told.tell(attempt(number, failed(FailureClass::Died)));
        let is_buried = matches!(&steps[..], [Step::Bury(..), ..]);
        assert_eq!(is_buried, number == 20, "after attempt {number}: {steps:?}");
    }
}

/// Otherwise one prover could fill the memory of a collector, and RESULTS, with copies of one failure.
#[test]
fn a_repeated_failure_is_acknowledged_at_once() {
    let mut told = Session::new(single(1, 1));
    told.tell(attempt(1, failed(FailureClass::Retryable)));
    let held = told.acknowledged.len();
    for copies in 1..=10 {
        assert_eq!(told.tell(attempt(1, failed(FailureClass::Retryable))), []);
        assert_eq!(told.acknowledged.len(), held + copies);
    }
}

/// An attempt was called stopped, or its prover dead, and the prover tells later why the attempt failed.
#[test]
fn a_failure_that_tells_of_the_task_replaces_one_that_does_not() {
    let mut told = Session::new(single(1, 1));
    let steps = told.tell(attempt(1, failed(FailureClass::Stopped)));
    assert_eq!(opening(&steps[0]).ready.attempt, 2);
    let held = told.acknowledged.len();
    assert_eq!(told.tell(attempt(1, failed(FailureClass::Retryable))), []);
    assert_eq!(
        told.acknowledged.len(),
        held + 1,
        "one failure of an attempt is kept"
    );
    assert_eq!(told.tell(attempt(1, failed(FailureClass::Retryable))), []);
    assert_eq!(told.acknowledged.len(), held + 2);
}

/// The evidence against a dead task must not kill its retry, which failed for other reasons.
#[test]
fn no_task_dies_of_its_surroundings_after_failures_of_its_own() {
    let mut told = Session::new(single(1, 1));
    for number in 1..=ATTEMPTS {
        told.tell_own(attempt(number, failed(FailureClass::Retryable)));
    }
    // By now the evidence counts as many failures as the budget.
    for number in ATTEMPTS + 1..ATTEMPTS + 5 {
        let steps = told.tell(attempt(number, failed(FailureClass::Surroundings)));
        assert_eq!(opening(&steps[0]).ready.attempt, number + 1);
    }
}

/// Proofs that are ready before their turn wait for the chain's order, and the record says since when.
#[test]
fn a_finished_proof_is_held_until_its_record_which_says_since_when() {
    let mut told = Session::new(single(2, 2));
    let done = |proof| Ended {
        proof,
        ..attempt(1, completed(0))
    };
    let old = Timestamp(2);
    told.handles += 1;
    told.stored_at = Timestamp(30);
    assert_eq!(told.deliver_of(Handle(1), 8, done(0)), []);
    let proof_type = told.pipeline.proofs[0].proof_type.clone();
    assert_eq!(told.core.held_proofs(old), BTreeMap::from([(proof_type, 1)]));
    assert_eq!(
        told.core.held_proofs(Timestamp(1)),
        BTreeMap::new(),
        "the block is not old"
    );
    told.stored_at = Timestamp(50);
    assert_eq!(told.tell(done(1)), []);
    told.stored_at = Timestamp(40);
    let steps = told.tell(done(0));
    assert!(
        matches!(steps[..], [Step::Emit(_, _, _, Some(Timestamp(50)))]),
        "{steps:?}"
    );
}
