use super::{ALONE_FOR, Evidence};
use push0_domain::{AttemptId, BlockHash, BlockRef, ProverId, StageKey, TaskId, Timestamp};
use std::time::Duration;

fn task(number: u64) -> TaskId {
    task_of("prove", number)
}

fn task_of(stage: &str, number: u64) -> TaskId {
    let block = BlockRef {
        number,
        hash: BlockHash([number as u8; 32]),
    };
    let stage = StageKey {
        pipeline: "p".parse().expect("valid"),
        block,
        first: None,
        proof_type: "main".parse().expect("valid"),
        stage: stage.parse().expect("valid"),
    };
    stage.task(0)
}

/// Reports a failed attempt. Each attempt has its time as number.
fn failed(evidence: &mut Evidence, task: &TaskId, prover: &ProverId, at: Timestamp) -> u32 {
    let attempt: AttemptId = task.attempt(u32::try_from(at.0).expect("small"));
    evidence.failed(&attempt, prover, at)
}

fn prover(name: &str) -> ProverId {
    name.parse().expect("valid")
}

fn at(ms: u64) -> Timestamp {
    Timestamp(1_000_000 + ms)
}

#[test]
fn an_outage_charges_no_task_however_often_the_tasks_are_tried() {
    let mut evidence = Evidence::default();
    let (one, two) = (prover("one"), prover("two"));
    for second in 0..40 {
        for number in [1, 2, 3] {
            let failed_by = if (second + number) % 2 == 0 { &one } else { &two };
            let charges = failed(
                &mut evidence,
                &task(number),
                failed_by,
                at(1000 * second + number),
            );
            assert_eq!(charges, 0, "task {number} after {second} s");
        }
    }
    evidence.completed(&task(4), &one, at(41_000), at(41_200));
    evidence.completed(&task(5), &two, at(41_000), at(41_200));
    assert_eq!(failed(&mut evidence, &task(1), &one, at(42_000)), 0);
}

#[test]
fn a_task_that_fails_where_others_succeed_is_charged_for_each_failure() {
    let mut evidence = Evidence::default();
    let one = prover("one");
    for round in 0..3 {
        let charges = failed(&mut evidence, &task(1), &one, at(1000 * round));
        assert_eq!(u64::from(charges), round);
        evidence.completed(
            &task(10 + round),
            &one,
            at(1000 * round + 100),
            at(1000 * round + 300),
        );
    }
    assert_eq!(failed(&mut evidence, &task(1), &one, at(3000)), 3);
}

#[test]
fn a_prover_that_completes_nothing_charges_no_task() {
    let mut evidence = Evidence::default();
    let (sick, well) = (prover("sick"), prover("well"));
    for round in 0..10 {
        assert_eq!(failed(&mut evidence, &task(1), &sick, at(1000 * round)), 0);
        evidence.completed(
            &task(10 + round),
            &well,
            at(1000 * round + 100),
            at(1000 * round + 300),
        );
    }
}

#[test]
fn one_outage_charges_a_task_once_on_however_many_provers_it_failed() {
    let mut evidence = Evidence::default();
    let provers = [prover("one"), prover("two"), prover("three")];
    for (index, prover) in provers.iter().enumerate() {
        failed(&mut evidence, &task(1), prover, at(100 * index as u64));
    }
    for (index, prover) in provers.iter().enumerate() {
        evidence.completed(&task(10 + index as u64), prover, at(1000), at(2000));
    }
    assert_eq!(failed(&mut evidence, &task(1), &provers[0], at(3000)), 1);
}

#[test]
fn an_attempt_that_began_before_the_failure_is_no_evidence() {
    let mut evidence = Evidence::default();
    let one = prover("one");
    failed(&mut evidence, &task(1), &one, at(1000));
    evidence.completed(&task(2), &one, at(500), at(60_000));
    assert_eq!(failed(&mut evidence, &task(1), &one, at(61_000)), 0);
}

#[test]
fn poisonous_tasks_that_fail_together_are_charged_from_their_second_run_on() {
    let mut evidence = Evidence::default();
    let one = prover("one");
    for round in 0..4 {
        for number in 1..6 {
            let charges = failed(&mut evidence, &task(number), &one, at(1000 * round + number));
            assert_eq!(u64::from(charges), round.saturating_sub(1), "task {number}");
        }
        evidence.completed(
            &task(10 + round),
            &one,
            at(1000 * round + 100),
            at(1000 * round + 300),
        );
    }
}

#[test]
fn a_task_that_fails_on_when_no_other_work_is_left_is_charged_after_a_while() {
    let mut evidence = Evidence::default();
    let one = prover("one");
    failed(&mut evidence, &task(1), &one, at(0));
    failed(&mut evidence, &task(2), &one, at(1));
    evidence.completed(&task(3), &one, at(100), at(300));
    for number in [1, 2] {
        assert_eq!(failed(&mut evidence, &task(number), &one, at(400 + number)), 0);
        let alone = at(300).plus(ALONE_FOR);
        assert_eq!(failed(&mut evidence, &task(number), &one, alone), 1);
    }
    // A task fails that never was shown to be at fault: the surroundings may be.
    let later = at(300).plus(ALONE_FOR).plus(ALONE_FOR / 2);
    failed(&mut evidence, &task(4), &one, later);
    assert_eq!(
        failed(&mut evidence, &task(1), &one, at(300).plus(4 * ALONE_FOR)),
        1
    );
}

/// Once a task was shown to fail where others succeed, an outage may begin while no other task is tried.
#[test]
fn an_outage_of_a_day_is_worth_few_charges_of_a_task_that_fails_alone() {
    let mut evidence = Evidence::default();
    let one = prover("one");
    failed(&mut evidence, &task(1), &one, at(0));
    evidence.completed(&task(3), &one, at(100), at(300));
    let mut charges = 0;
    for ten_seconds in 1..=8640 {
        let later = at(300).plus(Duration::from_secs(10) * ten_seconds);
        charges = evidence.failed(&task(1).attempt(ten_seconds), &one, later);
    }
    assert_eq!(charges, 13);
}

#[test]
fn a_task_that_fails_without_any_success_afterwards_is_never_charged() {
    let mut evidence = Evidence::default();
    let one = prover("one");
    for minute in 0..60 {
        assert_eq!(failed(&mut evidence, &task(1), &one, at(60_000 * minute)), 0);
    }
}

#[test]
fn a_failure_reported_twice_counts_once() {
    let mut evidence = Evidence::default();
    let one = prover("one");
    let attempt = task(1).attempt(1);
    for round in 0..5 {
        evidence.failed(&attempt, &one, at(1000 * round));
        evidence.completed(
            &task(10 + round),
            &one,
            at(1000 * round + 100),
            at(1000 * round + 300),
        );
    }
    assert_eq!(evidence.failed(&task(1).attempt(2), &one, at(9000)), 1);
}

#[test]
fn a_success_at_another_stage_charges_no_task() {
    let mut evidence = Evidence::default();
    let one = prover("one");
    for round in 0..40 {
        let charges = failed(&mut evidence, &task_of("wrap", round % 3), &one, at(1000 * round));
        assert_eq!(charges, 0, "after round {round}");
        evidence.completed(
            &task(100 + round),
            &one,
            at(1000 * round + 10),
            at(1000 * round + 20),
        );
    }
}

#[test]
fn an_outage_of_a_prover_is_of_many_tasks_although_they_are_of_different_stages() {
    let mut evidence = Evidence::default();
    let one = prover("one");
    failed(&mut evidence, &task(1), &one, at(10));
    // The prover completes a task that it began before the outage.
    evidence.completed(&task_of("join", 5), &one, at(0), at(20));
    failed(&mut evidence, &task_of("wrap", 2), &one, at(30));
    evidence.completed(&task(3), &one, at(100), at(200));
    evidence.completed(&task_of("wrap", 4), &one, at(300), at(400));
    assert_eq!(failed(&mut evidence, &task(1), &one, at(500)), 0);
    assert_eq!(failed(&mut evidence, &task_of("wrap", 2), &one, at(501)), 0);
}
