use super::*;
use push0_domain::{BlockHash, BlockRef, task::StageKey};

const BAD: FailureClass = FailureClass::Retryable;

fn at(seconds: u64) -> Timestamp {
    Timestamp(seconds * 1_000_000)
}

fn prover(n: u32) -> Participant {
    Participant {
        zkvm: "mock".parse().unwrap(),
        name: format!("p-{n}").parse().unwrap(),
    }
}

fn fleet(count: u32) -> BTreeSet<Participant> {
    (0..count).map(prover).collect()
}

fn task(number: u64) -> TaskId {
    let hash = BlockHash::default();
    let stage = StageKey {
        pipeline: "demo".parse().unwrap(),
        block: BlockRef { number, hash },
        first: None,
        proof_type: "main".parse().unwrap(),
        stage: "prove".parse().unwrap(),
    };
    stage.task(0)
}

/// Prover 0 of `count` fails these tasks, one a second.
fn fail(reputation: &mut Reputation, count: u32, tasks: std::ops::Range<u64>) -> Vec<Change> {
    let failed = |n| reputation.failed(&task(n), &prover(0), BAD, &fleet(count), at(n));
    tasks.flat_map(failed).collect()
}

fn begun(changes: &[Change]) -> &Quarantine {
    match changes {
        [Change::Begun(_, quarantine)] => quarantine,
        other => unreachable!("{other:?}"),
    }
}

fn ended(changes: &[Change]) -> &Participant {
    match changes {
        [Change::Ended(prover, _)] => prover,
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn one_false_proof_is_enough() {
    let mut reputation = Reputation::default();
    let lie = FailureClass::InvalidProof;
    let changes = reputation.failed(&task(1), &prover(0), lie, &fleet(2), at(1));
    assert_eq!(begun(&changes).until, at(31));
}

#[test]
fn three_tasks_within_a_minute_and_none_completed_between_are_enough() {
    let mut reputation = Reputation::default();
    assert_eq!(fail(&mut reputation, 2, 1..3), []);
    assert_eq!(
        fail(&mut reputation, 2, 100..101),
        [],
        "the first two were too long ago"
    );
    assert_eq!(fail(&mut reputation, 2, 101..102), []);
    reputation.completed(&task(200), &prover(0), &fleet(2), at(102));
    assert_eq!(
        fail(&mut reputation, 2, 103..105),
        [],
        "a success in between clears"
    );
    assert_eq!(begun(&fail(&mut reputation, 2, 105..106)).until, at(135));
}

#[test]
fn one_task_that_fails_again_and_again_is_charged_once() {
    let mut reputation = Reputation::default();
    for second in 1..10 {
        let changes = reputation.failed(&task(1), &prover(0), BAD, &fleet(2), at(second));
        assert_eq!(changes, []);
    }
}

#[test]
fn tasks_that_die_together_are_one_death() {
    let mut reputation = Reputation::default();
    let mut die = |tasks: std::ops::Range<u64>, second| {
        let died = |n| reputation.failed(&task(n), &prover(0), FailureClass::Died, &fleet(2), at(second));
        tasks.flat_map(died).collect::<Vec<_>>()
    };
    assert_eq!(die(0..8, 1), []);
    assert_eq!(die(8..16, 5), []);
    begun(&die(16..17, 9));
    // One of the tasks that died first has killed another prover as well.
    let changes = reputation.failed(&task(3), &prover(1), FailureClass::Died, &fleet(2), at(10));
    assert_eq!(ended(&changes), &prover(0));
}

#[test]
fn a_task_that_says_itself_that_it_cannot_succeed_is_charged_to_nobody() {
    let mut reputation = Reputation::default();
    for class in [FailureClass::Fatal, FailureClass::Stopped] {
        for n in 0..10 {
            let changes = reputation.failed(&task(n), &prover(0), class, &fleet(2), at(n));
            assert_eq!(changes, []);
        }
    }
}

#[test]
fn tasks_that_everybody_fails_are_charged_to_nobody() {
    let mut reputation = Reputation::default();
    for n in 0..100 {
        for who in [n % 4, (n + 1) % 4, (n + 2) % 4] {
            let who = prover(u32::try_from(who).unwrap());
            let changes = reputation.failed(&task(n), &who, BAD, &fleet(4), at(n));
            assert_eq!(changes, [], "task {n} by {who}");
        }
    }
}

#[test]
fn who_fails_what_another_completes_is_charged_although_a_third_failed_it_too() {
    let mut reputation = Reputation::default();
    for n in 1..4 {
        for who in [0, 1] {
            reputation.failed(&task(n), &prover(who), BAD, &fleet(4), at(n));
        }
        assert_eq!(reputation.resting(at(n)), 0, "both failed task {n}");
        reputation.completed(&task(n), &prover(2), &fleet(4), at(n));
    }
    assert_eq!(reputation.resting(at(4)), 2);
}

#[test]
fn a_quarantine_ends_when_others_fail_the_same_tasks() {
    let mut reputation = Reputation::default();
    begun(&fail(&mut reputation, 2, 1..4));
    let changes = reputation.failed(&task(2), &prover(1), BAD, &fleet(2), at(5));
    assert_eq!(ended(&changes), &prover(0));
    assert_eq!(reputation.resting(at(5)), 0);
    // The ended quarantine does not count against the next one. Two of its charges are left.
    assert_eq!(begun(&fail(&mut reputation, 2, 10..11)).times, 1);
}

#[test]
fn at_most_half_of_a_fleet_rests_and_the_last_one_never() {
    for count in 1..6 {
        let mut reputation = Reputation::default();
        for who in 0..count {
            let lie = FailureClass::InvalidProof;
            reputation.failed(&task(u64::from(who)), &prover(who), lie, &fleet(count), at(1));
        }
        assert_eq!(reputation.resting(at(1)), count as usize / 2, "of {count}");
    }
}

#[test]
fn when_all_that_are_left_rest_the_first_to_be_back_is_back_now() {
    let mut reputation = Reputation::default();
    for who in [0, 1] {
        let now = at(10 - u64::from(who));
        reputation.failed(
            &task(now.0),
            &prover(who),
            FailureClass::InvalidProof,
            &fleet(4),
            now,
        );
    }
    assert_eq!(reputation.relieve(&fleet(3), at(11)), None, "prover 2 is there");
    let change = reputation.relieve(&fleet(2), at(11)).unwrap();
    assert_eq!(ended(&[change]), &prover(1));
    assert_eq!(reputation.relieve(&fleet(2), at(11)), None);
    assert_eq!(reputation.relieve(&fleet(0), at(11)), None);
}

#[test]
fn a_quarantine_that_follows_soon_is_longer_up_to_a_limit() {
    let mut reputation = Reputation::default();
    let mut now = at(1);
    let mut lengths = Vec::new();
    for n in 0..7 {
        let lie = FailureClass::InvalidProof;
        let changes = reputation.failed(&task(n), &prover(0), lie, &fleet(2), now);
        let quarantine = begun(&changes);
        lengths.push(quarantine.until.since(now).as_secs());
        now = quarantine.until.plus(Duration::from_secs(1));
    }
    assert_eq!(lengths, [30, 60, 120, 240, 480, 600, 600]);
}

#[test]
fn its_end_is_told_once() {
    let mut reputation = Reputation::default();
    fail(&mut reputation, 2, 1..4);
    assert_eq!(reputation.over(at(32)), []);
    assert_eq!(reputation.over(at(33)), [prover(0)]);
    assert_eq!(reputation.over(at(34)), []);
}

#[test]
fn a_prover_that_does_not_obey_is_reminded_once_a_second() {
    let mut reputation = Reputation::default();
    let lie = FailureClass::InvalidProof;
    reputation.failed(&task(1), &prover(0), lie, &fleet(2), at(1));
    let mut remind = |rests, micros| {
        let said = reputation.remind(&prover(0), rests, Timestamp(micros));
        said.map(|(left, _)| left.as_secs())
    };
    assert_eq!(remind(false, 1_500_000), None, "it was told a moment ago");
    assert_eq!(remind(true, 2_000_000), None, "it obeys");
    assert_eq!(remind(false, 2_000_000), Some(29));
    assert_eq!(remind(false, 2_500_000), None);
    assert_eq!(remind(false, 30_000_000), Some(1));
    assert_eq!(remind(false, 31_000_000), None, "it is over");
    assert_eq!(remind(true, 31_500_000), None, "its clock may be behind");
    assert_eq!(remind(true, 32_000_000), Some(0));
}

#[test]
fn a_stored_quarantine_is_kept_after_a_restart() {
    let mut before = Reputation::default();
    let changes = before.failed(&task(1), &prover(0), FailureClass::InvalidProof, &fleet(2), at(1));
    let mut after = Reputation::default();
    after.recall(prover(0), begun(&changes).clone(), at(2));
    assert_eq!(after.resting(at(2)), 1);
    assert_eq!(after.over(at(31)), [prover(0)]);
    let changes = after.failed(
        &task(2),
        &prover(0),
        FailureClass::InvalidProof,
        &fleet(2),
        at(40),
    );
    assert_eq!(begun(&changes).times, 2);
}

#[test]
fn who_ran_out_of_memory_is_not_charged_for_what_larger_provers_can_do() {
    let mut reputation = Reputation::default();
    let larger = prover(9);
    let theirs = BTreeSet::from([larger.clone()]);
    for n in 1..10 {
        let class = FailureClass::OutOfMemory;
        assert_eq!(
            reputation.failed(&task(n), &prover(0), class, &fleet(2), at(n)),
            []
        );
        assert_eq!(reputation.completed(&task(n), &larger, &theirs, at(n)), []);
    }
    // A prover of the same size can do these tasks, so the failure is the prover's fault.
    for n in 11..14 {
        reputation.failed(&task(n), &prover(0), FailureClass::OutOfMemory, &fleet(2), at(n));
        reputation.completed(&task(n), &prover(1), &fleet(2), at(n));
    }
    assert_eq!(reputation.resting(at(14)), 1);
}

#[test]
fn provers_of_which_nothing_counts_any_more_are_forgotten() {
    let mut reputation = Reputation::default();
    let fleet: BTreeSet<Participant> = (0..1000).map(prover).collect();
    for n in 0..1000 {
        reputation.failed(&task(u64::from(n)), &prover(n), BAD, &fleet, at(1));
    }
    let quarantine = Quarantine {
        until: at(100),
        times: 3,
        reason: "three times".into(),
    };
    reputation.recall(prover(2000), quarantine.clone(), at(1));
    let known = |reputation: &mut Reputation, now| {
        reputation.forget(now);
        reputation.provers.len()
    };
    assert_eq!(known(&mut reputation, at(30)), 1001);
    assert_eq!(known(&mut reputation, at(90)), 1, "it rests");
    assert_eq!(reputation.over(at(101)), [prover(2000)]);
    assert_eq!(
        known(&mut reputation, at(600)),
        1,
        "another one would be its fourth"
    );
    assert_eq!(known(&mut reputation, at(701)), 0);
    reputation.recall(prover(2000), quarantine, at(701));
    assert_eq!(known(&mut reputation, at(701)), 0);
}
