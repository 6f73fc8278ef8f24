//! Tests of the model: messages in, views out.

mod bounds;
mod going_back;
mod verdict;

use super::*;
use crate::fixture::{block, demo};
use proptest::prelude::*;
use push0_domain::{
    Announcement, BlockHash, Payload, Payloads, StageKey,
    message::{
        BlockContext, BlockEnded, BlockFacts, Emission, EmissionOutcome, EndReason, Failure, FailureClass,
        Held, Lease, ObservedBlock, Outcome, Proof, ProverState, Role, StageKind, TaskHeader, TaskResult,
        Verdict,
    },
    path::{Leg, Parts},
    subject::AttemptKey,
};
use serde_json::json;

fn at(ms: u64) -> Timestamp {
    Timestamp(1_000_000_000_000 + ms * 1_000)
}

fn definition() -> Arc<Pipeline> {
    let text = "name = \"demo\"\nsource = { kind = \"external\" }\n[[proof]]\ntype = \"main\"\nzkvm = \"mock\"\n\
                [[proof.stage]]\nname = \"prove\"\nkind = \"map\"\ntimeout = \"1s\"\n";
    Arc::new(Pipeline::from_toml("demo.toml", text).unwrap())
}

fn observed(number: u64) -> ObservedBlock {
    ObservedBlock {
        pipeline: demo(),
        revision: 1,
        block: block(number),
        parent_hash: block(number - 1).hash,
        input: Payload::Inline(Vec::new()),
        observed_at: at(0),
        deadline_at: None,
        facts: BlockFacts {
            transactions: 12,
            ..BlockFacts::default()
        },
    }
}

/// Returns a header in its JSON form, which leaves out whatever has a default.
fn header(number: u64, attempt: u32) -> TaskHeader {
    let stage = StageKey {
        pipeline: demo(),
        block: block(number),
        first: None,
        proof_type: "main".parse().unwrap(),
        stage: "prove".parse().unwrap(),
    };
    let context = BlockContext {
        revision: 1,
        parent_hash: block(number - 1).hash,
        announcement: Announcement(number),
        stored_at: at(0),
        first_announcement: None,
        deadline_at: None,
        amends: false,
        facts: BlockFacts::default(),
    };
    let header = json!({
        "id": stage.task(0), "attempt": attempt, "zkvm": "mock", "context": context, "kind": StageKind::Map,
        "of": 1, "timeout_ms": 1000, "attempts_max": 3, "seal": format!("0x{}", "0".repeat(64)),
    });
    serde_json::from_value(header).unwrap()
}

fn key(number: u64, attempt: u32) -> AttemptKey {
    let header = header(number, attempt);
    AttemptKey::of(&header.zkvm, &header.attempt_id())
}

fn lease(prover: &str, held: Vec<(u64, Option<u64>)>) -> Lease {
    let held = held.into_iter().map(|(number, running_ms)| {
        let held = json!({ "header": header(number, 1), "sequence": 7, "running_ms": running_ms });
        serde_json::from_value::<Held>(held).unwrap()
    });
    Lease {
        prover: prover.parse().unwrap(),
        zkvm: "mock".parse().unwrap(),
        role: Role::Prover,
        incarnation: 1,
        origin: None,
        beat: 1,
        slots: 2,
        ahead: 0,
        state: ProverState::Active,
        held: held.collect(),
    }
}

fn result(number: u64, attempt: u32, outcome: Outcome, verdict: Option<Verdict>) -> TaskResult {
    TaskResult {
        header: header(number, attempt),
        prover: "p1".parse().unwrap(),
        outcome,
        inputs: None,
        prove_us: 300_000,
        transfer_us: 20_000,
        waited_us: 0,
        signature: None,
        verdict,
    }
}

fn completed() -> Outcome {
    Outcome::Completed {
        outputs: Payloads::one(Payload::Inline(vec![1])),
    }
}

fn failed(class: FailureClass) -> Outcome {
    Outcome::Failed(Failure::new(class, "guest panicked\nat line 7"))
}

fn valid() -> Option<Verdict> {
    Some(Verdict {
        verifier: "v1".parse().unwrap(),
        verify_us: 10_000,
        waited_us: 0,
        invalid: None,
    })
}

fn record(number: u64, outcome: EmissionOutcome) -> Emission {
    Emission {
        pipeline: demo(),
        first: block(number),
        last: block(number),
        hashes: Vec::new(),
        standing: Vec::new(),
        parent_hash: block(number - 1).hash,
        outcome,
        next: number + 1,
        announcement: Announcement(number),
        stored_at: at(0),
        order_us: 0,
        facts: BlockFacts::default(),
    }
}

fn proved() -> EmissionOutcome {
    EmissionOutcome::Proved(vec![Proof {
        proof_type: "main".parse().unwrap(),
        zkvm: "mock".parse().unwrap(),
        program_id: None,
        prover: "p1".parse().unwrap(),
        verifier: Some("v1".parse().unwrap()),
        payload: Payload::Inline(vec![0xab; 100]),
        bytes: 100,
        prove_us: 300_000,
        transfer_us: 20_000,
        verify_us: 10_000,
        attempt: 1,
        path: vec![Leg {
            stage: "prove".parse().unwrap(),
            ready_at: at(0),
            ended_at: at(440),
            prover: "p1".parse().unwrap(),
            verifier: Some("v1".parse().unwrap()),
            failed: 0,
            parts: Parts {
                prove_us: 300_000,
                transfer_us: 20_000,
                verify_us: 10_000,
                ..Parts::default()
            },
        }],
        signed: None,
    }])
}

/// Returns a model that knows the definition and block 5, which is the next one.
fn model() -> Model {
    let mut model = Model::default();
    let output = Output {
        next: Some(5),
        head: Some(4),
        ..Output::default()
    };
    let reading = Reading {
        pipelines: vec![(definition(), output)],
        ..Reading::default()
    };
    model.read(reading, at(0));
    model.observed(&observed(5), Some("0af7"), at(0));
    model
}

/// Returns a reading of the one pipeline.
fn reading(next: u64, head: u64, waiting: u64) -> Reading {
    let output = Output {
        next: Some(next),
        head: Some(head),
        waiting,
        ..Output::default()
    };
    Reading {
        pipelines: vec![(definition(), output)],
        ..Reading::default()
    }
}

fn view(model: &Model, number: u64, ms: u64) -> view::Block {
    let snapshot = model.snapshot("x".into(), at(ms));
    let mut found = snapshot.blocks.into_iter().filter(|block| block.number == number);
    found.next().unwrap()
}

#[test]
fn a_block_is_shown_in_each_of_its_states() {
    let mut model = model();
    let state = |model: &Model| view(model, 5, 700).state;
    assert_eq!(state(&model), "waiting");
    model.released(&key(5, 1), at(10));
    assert_eq!(
        view(&model, 5, 20).waits_for,
        "Attempt 1 of stage main.prove waits for a free prover of zkVM mock."
    );
    model.heard(&lease("p1", vec![(5, Some(100))]), at(200));
    assert_eq!(state(&model), "proving");
    assert_eq!(
        view(&model, 5, 1300).waits_for,
        "Attempt 1 of stage main.prove runs on p1 for 1.2 s."
    );
    model.checking(&key(5, 1), &result(5, 1, completed(), None), at(420));
    assert_eq!(state(&model), "verifying");
    model.result(&key(5, 1), &result(5, 1, completed(), valid()), at(440));
    assert_eq!(state(&model), "joining");
    model.record(&record(5, proved()), at(450), None);
    let view = view(&model, 5, 700);
    assert_eq!(
        (view.state, view.prover.as_deref(), view.proof_bytes),
        ("proved", Some("p1"), Some(100))
    );
    assert_eq!(
        (view.overhead_us, view.stages[0].done, view.stages[0].of),
        (Some(120_000), 1, 1)
    );
    assert_eq!(
        view.waits_for,
        "Block 5 was proved 450 ms after its announcement."
    );
}

#[test]
fn the_time_of_a_block_lies_under_spans_of_work_and_of_waits() {
    let mut model = model();
    model.released(&key(5, 1), at(10));
    model.heard(&lease("p1", vec![(5, Some(0))]), at(100));
    model.checking(&key(5, 1), &result(5, 1, completed(), None), at(420));
    model.result(&key(5, 1), &result(5, 1, completed(), valid()), at(440));
    model.record(&record(5, proved()), at(500), None);
    let detail = model.detail(&demo(), &block(5), at(600)).unwrap();
    let leaves: u64 = detail
        .spans
        .iter()
        .filter(|span| {
            !detail
                .spans
                .iter()
                .any(|other| other.parent.as_ref() == Some(&span.id))
        })
        .map(|span| span.end.unwrap() - span.start)
        .sum();
    let root = &detail.spans[0];
    assert_eq!(root.end.unwrap() - root.start, 500);
    assert!((450..=500).contains(&leaves), "{leaves}: {:#?}", detail.spans);
    assert_eq!(detail.trace_id.as_deref(), Some("0af7"));
    let (account, leg) = (detail.account.unwrap(), &detail.legs[0]);
    assert_eq!((account.total_us, account.parts.prove_us), (500_000, 300_000));
    assert_eq!((account.own_us, leg.own_us), (170_000, 110_000));
    assert_eq!((leg.prover.as_str(), leg.verifier.as_deref()), ("p1", Some("v1")));
    assert!(
        detail
            .story
            .iter()
            .any(|line| line == "+440 ms Attempt 1 of stage main.prove was verified by v1.")
    );
}

#[test]
fn a_failure_is_told_with_its_class_and_its_message() {
    let mut model = model();
    model.released(&key(5, 1), at(10));
    model.heard(&lease("p1", vec![(5, Some(0))]), at(100));
    model.result(
        &key(5, 1),
        &result(5, 1, failed(FailureClass::Died), None),
        at(300),
    );
    let waits_for = view(&model, 5, 350).waits_for;
    assert!(
        waits_for.starts_with(
            "Attempt 1 of stage main.prove failed (died), and the next one follows after a pause: "
        ),
        "{waits_for}"
    );
    let detail = model.detail(&demo(), &block(5), at(400)).unwrap();
    let attempt = &detail.attempts_list[0];
    assert_eq!((attempt.state, attempt.class.as_deref()), ("died", Some("died")));
    assert_eq!(attempt.message.as_deref(), Some("guest panicked\nat line 7"));
    assert_eq!((detail.block.failures, detail.block.state), (1, "waiting"));
    let prover = &model.snapshot("x".into(), at(400)).provers[0];
    assert_eq!((prover.failed, prover.recent[0].outcome), (1, "died"));
}

#[test]
fn a_dead_block_that_is_proved_later_is_shown_as_proved() {
    let mut model = model();
    let dead = EmissionOutcome::Dead {
        dead_letter: "l".into(),
        reason: "3 attempts failed".into(),
    };
    model.record(&record(5, dead), at(100), None);
    assert_eq!(view(&model, 5, 200).reason.as_deref(), Some("3 attempts failed"));
    let amended = Emission {
        next: 9,
        ..record(5, proved())
    };
    model.record(&amended, at(900), None);
    assert_eq!(view(&model, 5, 1000).state, "proved");
    // The record that is read again after an interruption is the same one.
    model.record(&amended, at(890), None);
    assert_eq!(
        model.snapshot("x".into(), at(1000)).pipelines[0]
            .latencies_ms
            .len(),
        1
    );
}

#[test]
fn another_block_of_the_number_replaces_a_block() {
    let mut model = model();
    let mut other = record(5, proved());
    other.last.hash = BlockHash([9; 32]);
    other.first = other.last;
    model.record(&other, at(100), None);
    let snapshot = model.snapshot("x".into(), at(200));
    let states: Vec<_> = snapshot.blocks.iter().map(|block| block.state).collect();
    assert_eq!(states.len(), 2);
    assert!(states.contains(&"replaced") && states.contains(&"proved"));
    assert_eq!(model.find(&demo(), Some(5), None), Some(other.last));
}

#[test]
fn cancelled_blocks_are_abandoned_with_the_note() {
    let mut model = model();
    let ended = BlockEnded::of_one(
        demo(),
        block(5),
        Announcement(5),
        EndReason::Cancelled {
            note: "no use".into(),
        },
    );
    model.end(&ended, at(50));
    assert_eq!(view(&model, 5, 60).state, "abandoned");
    assert_eq!(
        view(&model, 5, 60).reason.as_deref(),
        Some("An operator cancelled the block: no use")
    );
}

#[test]
fn only_news_is_a_change() {
    let mut model = model();
    model.heard(&lease("p1", vec![(5, Some(100))]), at(100));
    let change = model.changes(at(110));
    assert_eq!(
        (change.blocks.len(), change.provers.len(), change.zkvms.len()),
        (1, 1, 1)
    );
    model.heard(&lease("p1", vec![(5, Some(350))]), at(350));
    assert!(model.changes(at(360)).is_empty());
    let gone = model.changes(at(360 + 11 * 60 * 1000)).gone.unwrap();
    assert_eq!(gone.provers, [("mock".into(), "p1".into(), "prover")]);
}

#[test]
fn the_oldest_recorded_blocks_make_room() {
    let mut model = model();
    for number in 6..=2 * BLOCKS_MAX as u64 {
        model.observed(&observed(number), None, at(number));
        model.record(&record(number, proved()), at(number + 1), None);
    }
    assert_eq!(model.blocks.len(), BLOCKS_MAX);
    // So much changed that clients start over.
    assert!(model.changes(at(10_000)).is_too_long);
    model.observed(&observed(2 * BLOCKS_MAX as u64 + 1), None, at(10_000));
    let gone = model.changes(at(10_000)).gone.unwrap().blocks;
    let oldest = BLOCKS_MAX as u64 + 2;
    assert_eq!(
        gone.iter().map(|(_, number, _)| *number).collect::<Vec<_>>(),
        [oldest]
    );
    // Block 5 has no record, so work on it may go on.
    assert!(model.find(&demo(), Some(5), None).is_some());
    assert_eq!(model.snapshot("x".into(), at(10_000)).blocks.len(), SHOWN_MAX);
}

fn message() -> impl Strategy<Value = (u8, u64, u32, u64)> {
    (0..8_u8, 5..9_u64, 1..4_u32, 0..5_000_u64)
}

proptest! {
    /// Messages may come late, twice and in any order: the views stay consistent and changes lead to the snapshot.
    #[test]
    fn changes_lead_to_the_snapshot(messages in proptest::collection::vec(message(), 1..60)) {
        let mut model = model();
        let mut shown = std::collections::BTreeMap::new();
        let mut now = 0;
        for (kind, number, attempt, step) in messages {
            now += step;
            let key = key(number, attempt);
            match kind {
                0 => model.observed(&observed(number), None, at(now)),
                1 => model.released(&key, at(now)),
                2 => model.heard(&lease("p1", vec![(number, Some(step))]), at(now)),
                3 => model.checking(&key, &result(number, attempt, completed(), None), at(now)),
                4 => model.result(&key, &result(number, attempt, completed(), valid()), at(now)),
                5 => model.result(&key, &result(number, attempt, failed(FailureClass::TimedOut), None), at(now)),
                6 => model.record(&record(number, proved()), at(now), None),
                _ => model.heard(&lease("p1", vec![]), at(now)),
            }
            for block in model.changes(at(now)).blocks {
                prop_assert!(block.failures <= block.attempts);
                for stage in &block.stages {
                    prop_assert!(stage.done <= stage.of, "{:?}", stage);
                }
                shown.insert((block.number, block.hash.clone()), block);
            }
        }
        for block in model.snapshot("x".into(), at(now)).blocks {
            let last = &shown[&(block.number, block.hash.clone())];
            prop_assert_eq!((last.state, &last.stages, &last.recorded_at), (block.state, &block.stages, &block.recorded_at));
        }
    }
}
