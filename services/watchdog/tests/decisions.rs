//! The watchdog's decisions: no live prover is given up, and no dead one is forgotten.
#![expect(clippy::panic, reason = "a failing test panics, in its helpers as well")]

mod leases;

use leases::{START, TICK, held, lease};
use proptest::{collection::vec, prelude::*};
use push0_domain::{
    Announcement, Timestamp,
    message::{BlockEnded, EndReason, Happening, Held, Lease, Role},
};
use push0_watchdog::decide::{DEAD_AFTER, Effect, End, HEARTBEAT, TIMEOUT_GRACE, Watchdog};
use std::{collections::BTreeSet, time::Duration};

const TIMEOUT: Duration = Duration::from_secs(3600);

/// Provers and verifiers, each holding attempts that run (true) or wait.
fn fleet() -> impl Strategy<Value = Vec<Lease>> {
    vec((any::<bool>(), vec(any::<bool>(), 0..4)), 1..6).prop_map(|fleet| {
        let mut index = 0;
        let mut leases = Vec::new();
        for (proves, attempts) in fleet {
            let mut all = Vec::new();
            for runs in attempts {
                index += 1;
                all.push(held(index, runs.then_some(Duration::from_secs(1)), TIMEOUT));
            }
            let role = if proves { Role::Prover } else { Role::Verifier };
            let slots = 2;
            leases.push(Lease {
                slots,
                ..lease(index + 1000, role, all)
            });
            index += 1;
        }
        leases
    })
}

/// Returns the fates of the attempts of lost processes: true if reported as died, false if given to another.
/// An attempt waiting beside a free slot has begun meanwhile.
fn fates(leases: &[Lease]) -> BTreeSet<(String, bool)> {
    let mut fates = BTreeSet::new();
    for lease in leases {
        let (running, waiting): (Vec<&Held>, Vec<&Held>) =
            lease.held.iter().partition(|held| held.running_ms.is_some());
        let free = (lease.slots as usize).saturating_sub(running.len());
        let begun = running.into_iter().map(|held| (held, true));
        let waiting = waiting
            .into_iter()
            .enumerate()
            .map(|(at, held)| (held, at < free));
        for (held, begun) in begun.chain(waiting) {
            fates.insert((held.ack_subject.clone(), begun && lease.role == Role::Prover));
        }
    }
    fates
}

fn decided(effects: &[Effect]) -> BTreeSet<(String, bool)> {
    let one = |effect: &Effect| match effect {
        Effect::Report {
            held,
            end: End::Silent(_),
            ..
        } => Some((held.ack_subject.clone(), true)),
        Effect::GiveBack(held) => Some((held.ack_subject.clone(), false)),
        Effect::Announce(Happening::ProverLost { .. }) => None,
        other => panic!("{other:?}"),
    };
    let all: Vec<_> = effects.iter().filter_map(one).collect();
    let set: BTreeSet<_> = all.iter().cloned().collect();
    assert_eq!(set.len(), all.len(), "each once: {effects:?}");
    set
}

/// Ticks for a while and collects the decisions.
fn watch(watchdog: &mut Watchdog, from: Timestamp, during: Duration) -> Vec<Effect> {
    let ticks = during.as_millis() / TICK.as_millis() + 1;
    let at = |tick| from.plus(TICK * u32::try_from(tick).expect("valid"));
    (0..ticks).flat_map(|tick| watchdog.tick(at(tick))).collect()
}

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

    /// P5: all attempts of silent provers are reported or given to others, once, and between three heartbeats
    /// and a tick more. Provers still heard of keep theirs.
    #[test]
    fn what_silent_provers_held_is_passed_on_once_and_in_time(fleet in fleet(), living in any::<u8>()) {
        let lives = |at: usize| living & (1 << at) != 0;
        let mut watchdog = Watchdog::default();
        for lease in &fleet {
            watchdog.heard(lease.clone(), START);
        }
        let mut effects = Vec::new();
        let mut now = START;
        while now.since(START) < DEAD_AFTER * 4 {
            now = now.plus(TICK);
            for (at, lease) in fleet.iter().enumerate() {
                if lives(at) && now.since(START).as_millis().is_multiple_of(HEARTBEAT.as_millis()) {
                    effects.extend(watchdog.heard(lease.clone(), now));
                }
            }
            effects.extend(watchdog.tick(now));
            prop_assert!(effects.is_empty() || now.since(START) >= DEAD_AFTER);
            prop_assert!(now.since(START) < DEAD_AFTER + TICK || watchdog.alive() == (0..fleet.len()).filter(|at| lives(*at)).count());
        }
        let dead: Vec<Lease> = fleet.into_iter().enumerate().filter(|(at, _)| !lives(*at)).map(|(_, lease)| lease).collect();
        prop_assert_eq!(decided(&effects), fates(&dead));
    }

    /// A successor reaches the same decisions from the stored heartbeats as its predecessor. They are
    /// repeated if their outcome is not known.
    #[test]
    fn a_successor_decides_the_same_from_the_stored_heartbeats(fleet in fleet(), killed_after in 0..3000_u64) {
        let mut first = Watchdog::default();
        for lease in &fleet {
            first.heard(lease.clone(), START);
        }
        let killed_at = START.plus(Duration::from_millis(killed_after));
        let before = watch(&mut first, START, Duration::from_millis(killed_after));
        prop_assert!(before.is_empty() || decided(&before) == fates(&fleet));
        let mut successor = Watchdog::default();
        for lease in &fleet {
            successor.recall(lease.clone(), killed_at);
        }
        let after = watch(&mut successor, killed_at, Duration::from_secs(3));
        prop_assert_eq!(decided(&after), fates(&fleet));
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
    let (task, other) = (attempt.header.id.clone(), attempt.header.attempt + 1);
    let decide = |completed: bool| {
        let mut watchdog = Watchdog::default();
        let lease = lease(1, Role::Prover, vec![attempt.clone()]);
        let prover = lease.prover.clone();
        watchdog.heard(lease, START);
        if completed {
            watchdog.over(&prover, attempt.header.attempt_id(), START);
        }
        watchdog.accepted(&task, other, START.plus(ran))
    };
    assert_eq!(decide(true), []);
    assert!(
        matches!(decide(false)[..], [Effect::Stop { .. }]),
        "{:?}",
        decide(false)
    );
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
    let (attempt, task) = (held.header.attempt_id(), held.header.id.clone());
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
    over.over(&lease.prover, attempt, START);
    assert!(!is_late(&mut over));
    let mut lost = watching();
    lost.accepted(&task, 2, START);
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
