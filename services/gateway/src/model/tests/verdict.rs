//! The judgement at the top of the page.

use super::*;
use push0_bus::{Lead, Led};
use push0_domain::message::{Event, Happening};
use std::time::Duration;

const MINUTE: u64 = 60_000;

fn verdict(model: &Model, ms: u64) -> view::Verdict {
    let verdict = model.snapshot("x".into(), at(ms)).verdict;
    assert_eq!(verdict.ok, verdict.problems.is_empty());
    verdict
}

fn texts(model: &Model, ms: u64) -> Vec<String> {
    let problems = verdict(model, ms).problems.into_iter();
    problems.map(|problem| problem.text).collect()
}

/// Returns a heartbeat of a verifier.
fn verifier() -> Lease {
    Lease {
        role: Role::Verifier,
        ..lease("v1", vec![])
    }
}

#[test]
fn blocks_wait_for_provers_and_for_verifiers() {
    let mut model = model();
    let told = texts(&model, 10);
    assert!(told[0].starts_with(
        "No prover of zkVM mock is heard, and pipeline demo, which needs one, lags by 1 block: start one"
    ));
    model.heard(&lease("p1", vec![]), at(10));
    let told = texts(&model, 20);
    assert_eq!(told.len(), 1);
    assert!(
        told[0].starts_with(
            "No verifier of zkVM mock is heard, and pipeline demo, which needs one, lags by 1 block"
        ),
        "{told:?}"
    );
    model.heard(&verifier(), at(15));
    assert_eq!(texts(&model, 20), [""; 0]);
    // Both end.
    model.changes(at(MINUTE));
    let problems = verdict(&model, MINUTE).problems;
    let since: Vec<_> = problems.iter().map(|problem| problem.since).collect();
    assert_eq!(since, [Some(millis(at(10))), Some(millis(at(15)))]);
}

#[test]
fn no_verifier_is_missed_where_nothing_is_checked() {
    let mut model = model();
    model.heard(&lease("p1", vec![]), at(10));
    let mut unchecked = reading(5, 5, 1);
    let mut definition = Pipeline::clone(&unchecked.pipelines[0].0);
    definition.proofs[0].verify = push0_domain::pipeline::Verify::Off;
    unchecked.pipelines[0].0 = Arc::new(definition);
    model.read(unchecked, at(10));
    assert_eq!(texts(&model, 20), [""; 0]);
}

#[test]
fn a_pipeline_stands_after_five_minutes_with_its_next_block() {
    let mut model = model();
    model.heard(&lease("p1", vec![]), at(10));
    model.heard(&verifier(), at(10));
    assert_eq!(texts(&model, 5 * MINUTE - 1), [""; 0]);
    let told = texts(&model, 5 * MINUTE);
    assert!(
        told[0].starts_with("Pipeline demo stands at block 5, and 1 block waits"),
        "{told:?}"
    );
    model.is_away("no answer.".into(), at(0));
    assert_eq!(
        texts(&model, 0),
        ["The broker cannot be read, so this page is old: no answer."]
    );
    // After a long pause of the chain, the next block has not waited long, whatever the last record says.
    let mut restarted = Model::default();
    restarted.recorded_before(&record(4, proved()), at(0), None);
    restarted.read(reading(5, 5, 1), at(20 * MINUTE));
    restarted.recalled(&observed(5), at(20 * MINUTE));
    assert_eq!(
        restarted.snapshot("x".into(), at(21 * MINUTE)).pipelines[0].stalled_since,
        None
    );
}

#[test]
fn a_role_is_vacant_when_two_readings_find_no_leader() {
    let mut model = Model::default();
    let read = |model: &mut Model, is_led: bool, renewed: u64, now: u64| {
        let led = is_led.then(|| Led {
            instance: "x".into(),
            lasts: Duration::ZERO,
        });
        let renewed_at = Some(at(renewed));
        let leads = vec![(
            "ingester.demo".to_owned(),
            Lead {
                led,
                began_at: None,
                renewed_at,
            },
        )];
        let reading = Reading {
            leads,
            ..reading(5, 6, 2)
        };
        model.read(reading, at(now));
        let told = texts(model, now);
        told.iter()
            .any(|text| text.starts_with("No process leads as ingester.demo, and 2 blocks wait"))
    };
    // The clock of the broker is far behind, and renewals go on.
    assert!(!read(&mut model, true, 0, 60_000));
    assert!(!read(&mut model, true, 1, 62_000));
    // The leader is silent, then another one leads, which resigns.
    assert!(!read(&mut model, true, 1, 64_000));
    assert!(read(&mut model, true, 1, 66_000));
    assert!(!read(&mut model, true, 5, 68_000));
    assert!(!read(&mut model, false, 6, 70_000));
    assert!(read(&mut model, false, 6, 72_000));
}

#[test]
fn held_queues_and_streams_are_trouble_and_letters_are_not() {
    let mut model = Model::default();
    let held = HeldQueue {
        since: at(7),
        failures: 3,
        error: "no key\nmore".into(),
        task: None,
    };
    let reading = Reading {
        holds: BTreeMap::from([("mock".parse().unwrap(), held)]),
        troubles: vec!["PUSH0_TASKS: no copy leads".into()],
        letters: 2,
        ..Reading::default()
    };
    model.read(reading, at(0));
    let verdict = verdict(&model, 10);
    assert_eq!(verdict.problems[0].text, "PUSH0_TASKS: no copy leads.");
    assert!(
        verdict.problems[1].text.ends_with("Last error: no key."),
        "{verdict:?}"
    );
    assert_eq!(verdict.remarks[0].text, "2 dead letters wait for a person.");
}

#[test]
fn a_silent_prover_is_a_remark() {
    let mut model = model();
    model.heard(&lease("p1", vec![]), at(10));
    let what = Happening::ProverSuspected {
        prover: "p1".parse().unwrap(),
        zkvm: "mock".parse().unwrap(),
        role: Role::Prover,
        held: 0,
    };
    model.happened(Event { at: at(20), what }, at(20));
    let verdict = verdict(&model, 30);
    assert!(
        verdict.remarks[0].text.starts_with("Prover p1 is silent"),
        "{verdict:?}"
    );
    assert!(
        verdict
            .problems
            .iter()
            .all(|problem| problem.text.starts_with("No verifier"))
    );
}
