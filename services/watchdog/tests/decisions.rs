//! The watchdog's decisions about provers that are heard: overdue, superseded and late attempts.

mod leases;

use leases::{START, TICK, held, lease};
use proptest::{collection::vec, prelude::*};
use push0_domain::{
    Announcement, Timestamp,
    message::{BlockEnded, EndReason, Lease, Role, TaskHeader},
};
use push0_watchdog::decide::{Effect, End, HEARTBEAT, TIMEOUT_GRACE, Watchdog};
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(3600);

proptest! {
    /// P5: a prover whose heartbeats come in time is never given up, however irregular they are, and however
    /// long the watchdog itself is held up.
    #[test]
    fn a_prover_that_is_heard_of_in_time_is_never_given_up(
        gaps in vec(1..700_u64, 1..60),
        hold_ups in vec(prop_oneof![9 => Just(50_u64), 1 => 50..5000_u64], 1..300),
    ) {
        let mut beats = gaps.iter().scan(START.0, |at, gap| { *at += gap * 1000; Some(*at) }).collect::<Vec<_>>();
        let last = beats.pop().expect("valid");
        let mut beats = beats.into_iter().peekable();
        let mut watchdog = Watchdog::default();
        let running = |at: u64| lease(1, Role::Prover, vec![held(1, Some(Duration::from_micros(at - START.0)), TIMEOUT)]);
        watchdog.heard(running(START.0), START);
        let mut now = START;
        for hold_up in hold_ups {
            now = Timestamp(now.0 + hold_up * 1000);
            if now.0 >= last {
                break;
            }
            while let Some(at) = beats.next_if(|at| *at <= now.0) {
                prop_assert_eq!(watchdog.heard(running(at), now), []);
            }
            prop_assert_eq!(watchdog.tick(now), []);
        }
    }

    /// An order or a report without effect is repeated every second, not at every heartbeat, and no more once
    /// the attempt is gone from the heartbeats.
    #[test]
    fn a_hung_attempt_is_reported_until_its_prover_lets_go_of_it(obeys_after in 1..10_u64) {
        let timeout = Duration::from_secs(2);
        let (over, obeys_after) = (timeout + TIMEOUT_GRACE, Duration::from_secs(2 + obeys_after));
        let mut watchdog = Watchdog::default();
        let mut reports = Vec::new();
        let mut now = START;
        watchdog.heard(lease(1, Role::Prover, Vec::new()), START);
        while now.since(START) < obeys_after + Duration::from_secs(5) {
            let ran = now.since(START);
            let holds = if ran < obeys_after { vec![held(1, Some(ran), timeout)] } else { Vec::new() };
            if ran.as_millis().is_multiple_of(HEARTBEAT.as_millis()) {
                prop_assert_eq!(watchdog.heard(lease(1, Role::Prover, holds), now), []);
            }
            let effects = watchdog.tick(now);
            let reported = matches!(&effects[..], [Effect::Report { end: End::Hung, .. }, Effect::Stop { .. }]);
            prop_assert!(reported || effects.is_empty(), "{effects:?}");
            if reported {
                reports.push(ran);
            }
            now = now.plus(TICK);
        }
        let expected: Vec<Duration> = (0..).map(|nth| over + Duration::from_secs(nth)).take_while(|at| *at < obeys_after).collect();
        prop_assert_eq!(reports, expected);
    }
}

#[test]
fn what_was_completed_is_not_stopped_although_an_older_heartbeat_names_it() {
    let ran = Duration::from_millis(100);
    let attempt = held(1, Some(ran), TIMEOUT);
    let mut other = attempt.header.clone();
    other.attempt += 1;
    let mut earlier = other.clone();
    earlier.context.announcement = earlier.context.announcement.previous();
    let decide = |completed: bool, accepted: &TaskHeader| {
        let mut watchdog = Watchdog::default();
        let lease = lease(1, Role::Prover, vec![attempt.clone()]);
        let prover = lease.sender();
        watchdog.heard(lease, START);
        if completed {
            watchdog.over(&prover, attempt.header.attempt_id(), START);
        }
        watchdog.accepted(accepted, START.plus(ran))
    };
    assert_eq!(decide(true, &other), []);
    let stopped = decide(false, &other);
    assert!(matches!(stopped[..], [Effect::Stop { .. }]), "{stopped:?}");
    // A prover may repeat its result for an earlier announcement of the block.
    assert_eq!(decide(false, &earlier), []);
}

/// P8: a block ends when the rest of its work cannot be done in time, and ends once.
#[test]
fn a_block_is_given_up_when_its_attempt_runs_into_the_time_of_what_follows() {
    let give_up_at = START.plus(Duration::from_secs(2));
    let deadline_at = START.plus(Duration::from_secs(5));
    let late = |now: Timestamp| {
        let mut held = held(1, Some(Duration::from_secs(1)), TIMEOUT);
        held.header.give_up_at = Some(give_up_at);
        held.header.context.deadline_at = Some(deadline_at);
        let mut watchdog = Watchdog::default();
        watchdog.heard(lease(1, Role::Prover, vec![held]), now);
        let reasons = |effects: Vec<Effect>| {
            let reason = |effect: Effect| match effect {
                Effect::Late(_, ended) => Some(ended.reason),
                _ => None,
            };
            effects.into_iter().filter_map(reason).collect::<Vec<_>>()
        };
        (
            reasons(watchdog.tick(now)),
            reasons(watchdog.tick(now.plus(TICK))),
        )
    };
    assert_eq!(
        late(Timestamp(give_up_at.0 - 1)),
        (vec![], vec![EndReason::OutOfReach])
    );
    assert_eq!(late(give_up_at), (vec![EndReason::OutOfReach], vec![]));
    assert_eq!(late(deadline_at), (vec![EndReason::DeadlinePassed], vec![]));
}

/// A lease may be older than the end of an attempt it lists, and than the victory of the attempt's rival.
#[test]
fn an_attempt_that_is_over_or_has_lost_makes_no_block_late() {
    let mut held = held(1, Some(Duration::from_secs(1)), TIMEOUT);
    held.header.give_up_at = Some(START);
    let attempt = held.header.attempt_id();
    let mut rival = held.header.clone();
    rival.attempt = 2;
    let lease = lease(1, Role::Prover, vec![held]);
    let is_late = |watchdog: &mut Watchdog| {
        let effects = watchdog.tick(START);
        effects.iter().any(|effect| matches!(effect, Effect::Late(..)))
    };
    let watching = || {
        let mut watchdog = Watchdog::default();
        watchdog.heard(lease.clone(), START);
        watchdog
    };
    assert!(is_late(&mut watching()));
    let mut over = watching();
    over.over(&lease.sender(), attempt, START);
    assert!(!is_late(&mut over));
    let mut lost = watching();
    lost.accepted(&rival, START);
    assert!(!is_late(&mut lost));
}

/// P8: an attempt taken just before its block ended is in no lease yet, and is stopped as soon as
/// one lists it.
#[test]
fn what_shows_in_a_lease_after_its_block_ended_is_stopped_with_the_next_tick() {
    let mut watchdog = Watchdog::default();
    watchdog.heard(lease(1, Role::Prover, Vec::new()), START);
    watchdog.tick(START);
    let ended = BlockEnded {
        pipeline: "demo".parse().expect("valid"),
        first: 7,
        last: 7,
        hashes: Vec::new(),
        before: Announcement(2),
        reason: EndReason::Cancelled { note: String::new() },
    };
    assert_eq!(watchdog.ended(&ended, START.plus(TICK)), []);
    assert_eq!(watchdog.tick(START.plus(TICK * 2)), []);
    let taken = held(1, Some(Duration::from_millis(60)), TIMEOUT);
    watchdog.heard(lease(1, Role::Prover, vec![taken]), START.plus(TICK * 2));
    let effects = watchdog.tick(START.plus(TICK * 3));
    assert!(matches!(&effects[..], [Effect::Stop { .. }]), "{effects:?}");
}

/// One sender of a new incarnation with each heartbeat made an entry, and events, for each.
#[test]
fn of_each_name_two_processes_are_remembered_and_a_flood_of_them_is_not_announced() {
    let mut watchdog = Watchdog::default();
    let restarted = |incarnation, held| Lease {
        incarnation,
        ..lease(1, Role::Prover, held)
    };
    let first = watchdog.heard(restarted(9, vec![held(1, Some(HEARTBEAT), TIMEOUT)]), START);
    assert_eq!(first.len(), 1, "{first:?}");
    assert_eq!(
        watchdog.heard(restarted(3, Vec::new()), START.plus(TICK)).len(),
        1
    );
    let third = watchdog.heard(restarted(7, Vec::new()), START.plus(2 * TICK));
    assert!(
        matches!(&third[..], [Effect::Report { held, end: End::Restarted, .. }] if held.sequence == 1),
        "the oldest is dead: {third:?}"
    );
    for incarnation in 100..1100 {
        let effects = watchdog.heard(restarted(incarnation, Vec::new()), START.plus(3 * TICK));
        assert_eq!(effects, []);
    }
    assert_eq!(watchdog.alive(), 2);
}

/// Compared in pairs, these took minutes, in which the watchdog heard no process.
#[test]
fn leases_of_thousands_of_overdue_attempts_hold_nobody_up() {
    let mut watchdog = Watchdog::default();
    let timeout = Duration::from_secs(1);
    let overdue = |index| held(index, Some(timeout + 2 * TIMEOUT_GRACE), timeout);
    for prover in 0..4 {
        watchdog.heard(
            lease(prover, Role::Prover, (0..4096).map(overdue).collect()),
            START,
        );
    }
    let began = std::time::Instant::now();
    let effects = watchdog.tick(START.plus(TICK));
    assert_eq!(effects.len(), 2 * 4 * 4096);
    for prover in 0..4 {
        let waiting = (0..4096).map(|index| held(index, None, timeout)).collect();
        watchdog.heard(lease(prover, Role::Prover, waiting), START.plus(TICK));
    }
    let mut now = START.plus(TICK);
    while watchdog.suspected() < 4 {
        now = now.plus(TICK);
        watchdog.tick(now);
    }
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn leases_of_thousands_of_running_attempts_hold_nobody_up_when_their_provers_fall_silent() {
    let mut watchdog = Watchdog::default();
    let running = || (0..4096).map(|index| held(index, Some(TICK), TIMEOUT));
    for prover in 0..4 {
        watchdog.heard(lease(prover, Role::Prover, running().collect()), START);
    }
    let began = std::time::Instant::now();
    let (mut now, mut copies) = (START, 0);
    while now.since(START) < Duration::from_secs(5) {
        now = now.plus(TICK);
        if now.since(START).as_millis().is_multiple_of(250) {
            watchdog.heard(lease(9, Role::Prover, Vec::new()), now);
        }
        let effects = watchdog.tick(now).into_iter();
        copies += effects
            .filter(|effect| matches!(effect, Effect::Hedge { .. }))
            .count();
    }
    // One of them is back.
    watchdog.heard(lease(1, Role::Prover, running().collect()), now);
    assert_eq!((watchdog.suspected(), copies), (3, 4096), "a copy of each task");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

/// A hostile prover may keep the watchdog busy for most of each second. A prover that dies meanwhile is found out all the
/// same.
#[test]
fn a_watchdog_that_is_delayed_in_every_second_suspects_a_dead_prover() {
    let mut watchdog = Watchdog::default();
    watchdog.heard(lease(1, Role::Prover, vec![held(1, Some(TICK), TIMEOUT)]), START);
    let mut now = START;
    for _ in 0..8 {
        for pause in [TICK, TICK, TICK, HEARTBEAT * 3] {
            now = now.plus(pause);
            watchdog.tick(now);
        }
    }
    assert_eq!(watchdog.suspected(), 1);
}
