//! Failures that provers call their surroundings'.

use crate::rig::{ATTEMPTS, Session, attempt, failed, opening, record, single};
use push0_collector::decide::Step;
use push0_domain::message::{EmissionOutcome, FailureClass};
use std::time::Duration;

/// A block that fills a disk, or whose program prints "no space left", fails so at every prover.
#[test]
fn a_task_that_fails_everywhere_for_its_surroundings_dies_once_its_provers_were_shown_to_work() {
    let mut told = Session::new(single(1, 1));
    // 24 more than the budget, and a minute. An attempt takes 2 s here.
    let last = 1 + (ATTEMPTS + 24).max(30);
    for number in 1..last {
        let steps = told.tell_own(attempt(number, failed(FailureClass::Surroundings)));
        assert_eq!(opening(&steps[0]).ready.attempt, number + 1);
    }
    let steps = told.tell_own(attempt(last, failed(FailureClass::Surroundings)));
    let [Step::Bury(..), emit] = &steps[..] else {
        panic!("{steps:?}");
    };
    assert!(matches!(record(emit).outcome, EmissionOutcome::Dead { .. }));
}

#[test]
fn a_task_whose_provers_complete_nothing_meanwhile_lives_for_ever() {
    let mut told = Session::new(single(1, 1));
    for number in 1..=500 {
        told.stored_at = told.stored_at.plus(Duration::from_secs(10));
        let steps = told.tell(attempt(number, failed(FailureClass::Surroundings)));
        assert_eq!(opening(&steps[0]).ready.attempt, number + 1);
    }
}

/// The others may be busy, and could prove it.
#[test]
fn a_task_that_one_prover_alone_fails_lives_ten_minutes() {
    let mut told = Session::new(single(1, 1));
    told.prover = Some("p");
    for number in 1..=300 {
        let steps = told.tell_own(attempt(number, failed(FailureClass::Surroundings)));
        assert_eq!(opening(&steps[0]).ready.attempt, number + 1);
    }
    let steps = told.tell_own(attempt(301, failed(FailureClass::Surroundings)));
    assert!(matches!(steps[..], [Step::Bury(..), _]), "{steps:?}");
}
