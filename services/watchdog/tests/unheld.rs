//! Deliveries a dead prover took last, and deliveries that never arrived, are passed on in time. Deliveries
//! held by a living prover are not.

mod leases;

use leases::{START, TICK, held, lease};
use proptest::prelude::*;
use push0_domain::{
    Timestamp,
    message::{Held, Role},
    subject::AttemptKey,
};
use push0_watchdog::{
    decide::{GONE_FOR, HEARTBEAT, SUSPECT_AFTER, Watchdog},
    unheld::{Fate, LOST_AFTER, UNHELD_AFTER, Unheld},
};
use std::time::Duration;

fn attempt(index: u32) -> Held {
    held(index, Some(Duration::ZERO), Duration::from_secs(60))
}

fn key(index: u32) -> AttemptKey {
    let header = attempt(index).header;
    AttemptKey::of(&header.zkvm, &header.attempt_id())
}

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Advances the time, looks at `present` if a look is due, and returns the findings.
fn tick(watchdog: &mut Watchdog, role: Role, present: Vec<AttemptKey>, now: Timestamp) -> Vec<Unheld> {
    watchdog.tick(now);
    if watchdog.is_look_due(now) {
        watchdog.look(role, present, now)
    } else {
        Vec::new()
    }
}

/// Returns whether an event with the period of a heartbeat, shifted by `phase`, happens now.
fn beats(now: Timestamp, phase: u64) -> bool {
    let at = now.since(START).as_millis();
    (at + u128::from(phase)).is_multiple_of(HEARTBEAT.as_millis())
}

proptest! {
    /// An attempt in its prover's leases is never passed on, although it appears there late and
    /// other provers die.
    #[test]
    fn what_a_living_prover_holds_is_never_passed_on(
        taken in vec_of_delays(),
        dies_at in 0..4000_u64,
    ) {
        let mut watchdog = Watchdog::default();
        let mut now = START;
        let mut shown = Vec::new();
        while now.since(START) < ms(6000) {
            let at = u64::try_from(now.since(START).as_millis()).expect("small");
            if at < dies_at && beats(now, 100) {
                watchdog.heard(lease(2, Role::Prover, Vec::new()), now);
            }
            let there = |shown_after: u64| {
                let indices = (0_u32..).zip(&taken);
                let of = indices.filter(move |(index, (delay, lasts))| {
                    let taken_at = u64::from(*index) * 300 + shown_after * delay;
                    (taken_at..u64::from(*index) * 300 + lasts).contains(&at)
                });
                of.map(|(index, _)| index)
            };
            let shows: Vec<u32> = there(1).collect();
            if beats(now, 0) || shows != shown {
                watchdog.heard(lease(1, Role::Prover, shows.iter().copied().map(attempt).collect()), now);
                shown = shows;
            }
            let mut found = tick(&mut watchdog, Role::Prover, there(0).map(key).collect(), now);
            // A suspect is only looked at.
            found.retain(|unheld| unheld.fate != Fate::Suspect);
            prop_assert_eq!(found, []);
            now = now.plus(TICK);
        }
    }

    /// P5: an attempt taken after a prover's last heartbeat is known when the prover is suspected: a copy is asked
    /// for. The attempt dies with that prover, and starts over as unheld if the prover is back without it.
    #[test]
    fn what_a_silent_prover_took_last_is_copied_and_shares_its_fate(
        taken_after in 0..250_u64,
        calm_for in 0..3000_u64,
        is_back in any::<bool>(),
    ) {
        let mut watchdog = Watchdog::default();
        let mut now = START;
        let mut last_heard = START;
        let mut fates = Vec::new();
        let seat = (lease(1, Role::Prover, Vec::new()).sender(), 1);
        while now.since(START) < ms(calm_for + 6000) && !matches!(fates.last(), Some((_, Fate::Fell(..) | Fate::Lost))) {
            if beats(now, 100) {
                watchdog.heard(lease(2, Role::Prover, Vec::new()), now);
            }
            let returns = is_back && now.since(last_heard) > ms(2000);
            if beats(now, 0) && (now.since(START) <= ms(calm_for) || returns) {
                watchdog.heard(lease(1, Role::Prover, Vec::new()), now);
                last_heard = if now.since(START) <= ms(calm_for) { now } else { last_heard };
            }
            let taken = now.since(START) > ms(calm_for) && now.since(last_heard) >= ms(taken_after);
            let present = if taken { vec![key(7)] } else { Vec::new() };
            for unheld in tick(&mut watchdog, Role::Prover, present, now) {
                prop_assert_eq!((&unheld.key, unheld.role), (&key(7), Role::Prover));
                fates.push((now.since(last_heard), unheld.fate));
            }
            watchdog.presence(&seat, !is_back, now);
            now = now.plus(TICK);
        }
        fates.retain(|(_, fate)| !matches!(fate, Fate::Extended | Fate::Suspect));
        let [(copied_at, Fate::Doubted(doubted)), (ended_at, end)] = &fates[..] else {
            return Err(TestCaseError::fail(format!("{fates:?}")));
        };
        prop_assert_eq!(doubted.name.as_str(), "p-1");
        let known_after = SUSPECT_AFTER.max(ms(taken_after) + UNHELD_AFTER + ms(100));
        prop_assert!(*copied_at <= known_after + TICK * 3, "{fates:?}");
        let as_expected = match end {
            Fate::Fell(prover, _) => !is_back && prover.name.as_str() == "p-1" && *ended_at >= GONE_FOR,
            end => is_back && *end == Fate::Lost,
        };
        prop_assert!(as_expected, "{fates:?}");
    }

    /// P5: an attempt handed by the broker to a process that stands still goes to another process within a second,
    /// also later than the process was suspected, and no prover is in doubt.
    #[test]
    fn what_is_delivered_to_a_process_that_stands_still_goes_on_within_a_second(delivered_after in 1000..9000_u64) {
        let mut watchdog = Watchdog::default();
        let mut now = START;
        watchdog.heard(lease(1, Role::Prover, Vec::new()), now);
        let mut fates = Vec::new();
        while now.since(START) < ms(delivered_after) + ms(800) {
            if beats(now, 100) {
                watchdog.heard(lease(2, Role::Prover, Vec::new()), now);
            }
            let present = if now.since(START) >= ms(delivered_after) { vec![key(7)] } else { Vec::new() };
            let found = tick(&mut watchdog, Role::Prover, present, now);
            fates.extend(found.into_iter().map(|unheld| unheld.fate));
            now = now.plus(TICK);
        }
        prop_assert_eq!(&fates[..2], [Fate::Suspect, Fate::Lost]);
    }

    /// An attempt that waited in its stream and kills its prover at once is in doubt with that prover too, and is
    /// not handed to the next one in the meantime.
    #[test]
    fn what_waited_and_kills_at_once_is_not_handed_on(waited in 0..3000_u64, beat in 0..250_u64) {
        let mut watchdog = Watchdog::default();
        let mut now = START;
        let mut fates = Vec::new();
        while now.since(START) < ms(waited + 1500) && fates.is_empty() {
            let at = u64::try_from(now.since(START).as_millis()).expect("small");
            if beats(now, 100) {
                watchdog.heard(lease(2, Role::Prover, Vec::new()), now);
            }
            if now == START || (beats(now, beat / 50 * 50) && at <= waited) {
                watchdog.heard(lease(1, Role::Prover, Vec::new()), now);
            }
            for unheld in tick(&mut watchdog, Role::Prover, vec![key(7)], now) {
                match unheld.fate {
                    Fate::Suspect if at <= waited => watchdog.waits(Role::Prover, &unheld.key),
                    Fate::Suspect => {}
                    fate => fates.push(fate),
                }
            }
            now = now.plus(TICK);
        }
        let doubted = matches!(&fates[..], [Fate::Doubted(prover)] if prover.name.as_str() == "p-1");
        prop_assert!(doubted, "{fates:?}");
    }

    /// A delivery lost on the way goes to another process soon, and no prover is blamed.
    #[test]
    fn what_never_arrived_is_given_to_another(from in 0..3000_u64, proves in any::<bool>()) {
        let role = if proves { Role::Prover } else { Role::Verifier };
        let mut watchdog = Watchdog::default();
        let mut now = START;
        let mut times = Vec::new();
        while now.since(START) < ms(from + 5000) {
            if beats(now, 0) {
                watchdog.heard(lease(1, role, vec![attempt(1)]), now);
            }
            let mut present = vec![key(1)];
            if now.since(START) >= ms(from) {
                present.push(key(7));
            }
            for unheld in tick(&mut watchdog, role, present, now) {
                let fate = if times.len() % 2 == 0 { Fate::Suspect } else { Fate::Lost };
                prop_assert_eq!(unheld, Unheld { key: key(7), role, fate });
                times.push(now.since(START.plus(ms(from))));
            }
            now = now.plus(TICK);
        }
        prop_assert!(times.get(1).is_some_and(|lost| *lost < ms(2700)), "{times:?}");
        prop_assert!(times.windows(2).all(|pair| pair[1] - pair[0] >= LOST_AFTER), "not at every look: {times:?}");
    }
}

/// An attempt handed back from behind a slow one waits for a free prover. It is not charged to any death and
/// not lost until a lease lists it again.
#[test]
fn what_was_handed_back_is_left_alone_until_somebody_takes_it() {
    let mut watchdog = Watchdog::default();
    let waits = || held(7, None, Duration::from_secs(60));
    let mut fates = Vec::new();
    let mut now = START;
    while now.since(START) < ms(9000) {
        let at = u64::try_from(now.since(START).as_millis()).expect("small");
        if beats(now, 0) {
            let behind = (at < 1000).then(waits);
            let held = [attempt(1)].into_iter().chain(behind).collect();
            watchdog.heard(lease(1, Role::Prover, held), now);
        }
        // One prover dies while the attempt waits. Another takes the attempt, and loses it.
        if beats(now, 100) && at < 3000 {
            watchdog.heard(lease(2, Role::Prover, Vec::new()), now);
        }
        if beats(now, 100) && at >= 5000 {
            let held = if at < 6000 { vec![attempt(7)] } else { Vec::new() };
            watchdog.heard(lease(3, Role::Prover, held), now);
        }
        for unheld in tick(&mut watchdog, Role::Prover, vec![key(1), key(7)], now) {
            fates.push((at, unheld.fate));
        }
        now = now.plus(TICK);
    }
    assert!(
        matches!(&fates[..], [(6000.., Fate::Suspect), (_, Fate::Lost), ..]),
        "{fates:?}"
    );
}

/// For each attempt: the time until its prover's lease, and its length, in milliseconds.
fn vec_of_delays() -> impl Strategy<Value = Vec<(u64, u64)>> {
    proptest::collection::vec((0..150_u64, 150..900_u64), 1..12)
}
