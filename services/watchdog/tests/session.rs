//! The order in which the watchdog settles a delivery in place of its prover.

mod leases;

use leases::{START, TICK, held, lease};
use push0_domain::{
    Participant,
    message::{ProverState, Role, Task},
    payload::Payloads,
    subject::AttemptKey,
    trace::TraceContext,
};
use push0_watchdog::{
    decide::{CONDEMN_AFTER, End},
    reputation::{Quarantine, Terms},
    session::{
        Session,
        op::{Delivery, Errand, Found, Op, Stored},
    },
    unheld::Fate,
};
use std::time::Duration;

fn session() -> Session<u64> {
    Session::new(CONDEMN_AFTER, Terms::default())
}

/// Returns the attempt with this index, its prover, and its task in a message with this sequence.
fn stored(index: u32, sequence: u64) -> (AttemptKey, Participant, Stored) {
    let header = held(index, None, Duration::from_secs(60)).header;
    let task = Task {
        header,
        inputs: Payloads::List(Vec::new()),
        avoid: Vec::new(),
    };
    let key = task.header.key();
    let prover = lease(1, Role::Prover, Vec::new()).sender();
    (key, prover, (task, sequence, START, TraceContext::default()))
}

/// Lets the session look at a delivery of message 5, whose prover died, and read the task.
fn die(key: &AttemptKey, prover: Participant, stored: Stored) -> Vec<String> {
    let mut session = session();
    let errand = Errand::Unheld(Fate::Fell(prover, End::Gone));
    let found = Found {
        sequence: 5,
        state: Delivery::Delivered,
        place: 5,
    };
    session.located(Role::Prover, key.clone(), errand, Some(found));
    let Some(Op::ReadTask(key, writing)) = session.next(START) else {
        return vec!["read no task".into()];
    };
    session.task_read(key, writing, Some(stored), START);
    let rest = std::iter::from_fn(|| session.next(START));
    rest.map(|op| match op {
        Op::StoreEnd(result, ..) => format!("store the end of {}", result.header.attempt),
        Op::Acknowledge(place) => format!("acknowledge {place}"),
        op => format!("{op:?}"),
    })
    .collect()
}

/// P1: a crash in between costs a second run, and never the task.
#[test]
fn an_end_is_stored_before_its_delivery_is_acknowledged() {
    let (key, prover, stored) = stored(1, 5);
    assert_eq!(die(&key, prover, stored), ["store the end of 1", "acknowledge 5"]);
}

/// The newer message was not delivered to the dead prover, and its attempt goes on.
#[test]
fn a_message_that_replaced_the_delivered_one_has_no_end() {
    let (key, prover, stored) = stored(1, 6);
    assert_eq!(die(&key, prover, stored), [""; 0]);
}

/// A prover that leaves takes no work anyway.
#[test]
fn a_prover_that_leaves_is_not_reminded_of_its_quarantine() {
    let rests = |state| {
        let mut session = session();
        let mut lease = lease(1, Role::Prover, Vec::new());
        lease.state = state;
        let quarantine = Quarantine {
            until: START.plus(Duration::from_secs(60)),
            times: 1,
            reason: "a false proof".into(),
        };
        session.recall_quarantine(lease.sender(), quarantine, START);
        session.heard(lease, START.plus(TICK));
        matches!(session.next(START.plus(TICK)), Some(Op::Quarantine(..)))
    };
    assert!(rests(ProverState::Active));
    assert!(!rests(ProverState::Draining));
    assert!(!rests(ProverState::Quarantined));
}
