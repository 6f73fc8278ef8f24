//! The watchdog's decisions about silent provers: suspected fast, condemned slowly, and no dead one forgotten.
#![expect(clippy::panic, reason = "a failing test panics, in its helpers as well")]

mod leases;

use leases::{START, TICK, held, lease};
use proptest::{collection::vec, prelude::*};
use push0_domain::{
    Participant, ProverId, Timestamp,
    message::{Happening, Held, Lease, Origin, Role},
};
use push0_watchdog::{
    decide::{Because, CONDEMN_AFTER, Effect, End, GONE_FOR, HEARTBEAT, SUSPECT_AFTER, Watchdog},
    unheld::COPIES_MAX,
};
use std::{collections::BTreeSet, time::Duration};

const TIMEOUT: Duration = Duration::from_secs(3600);

fn running(index: u32) -> Held {
    held(index, Some(Duration::from_secs(1)), TIMEOUT)
}

/// Another attempt at the task of [`running`].
fn copy(index: u32, attempt: u32) -> Held {
    let mut held = running(index);
    held.header.attempt = attempt;
    held.header.hedge_of = Some(attempt - 1);
    held.sequence = u64::from(1000 * index + attempt);
    held
}

fn located(mut lease: Lease, incarnation: u64) -> Lease {
    lease.incarnation = incarnation;
    lease.origin = Some(Origin {
        host: format!("host-{incarnation}"),
        pid: 7,
    });
    lease
}

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

type Acks = BTreeSet<u64>;

/// Returns the deliveries of silent processes: those begun by provers, and the others. An attempt waiting beside a
/// free slot has begun meanwhile.
fn begun_and_others(leases: &[Lease]) -> (Acks, Acks) {
    let (mut all_begun, mut all_others) = (Acks::new(), Acks::new());
    for lease in leases {
        let (running, waiting): (Vec<&Held>, Vec<&Held>) =
            lease.held.iter().partition(|held| held.running_ms.is_some());
        let free = (lease.slots as usize).saturating_sub(running.len());
        let (begins, waits) = waiting.split_at(free.min(waiting.len()));
        let begun = running.iter().chain(begins).map(|held| held.sequence);
        let waits = waits.iter().map(|held| held.sequence);
        match lease.role {
            Role::Prover => {
                all_begun.extend(begun);
                all_others.extend(waits);
            }
            Role::Verifier => all_others.extend(begun.chain(waits)),
        }
    }
    (all_begun, all_others)
}

/// Decisions by kind, each with the sequences of its deliveries.
#[derive(Debug, Default, PartialEq, Eq)]
struct Decided {
    copied: Acks,
    given_back: Acks,
    died: Acks,
    suspected: usize,
    back: usize,
    lost: usize,
    twins: usize,
    ends: Vec<End>,
}

fn decided(effects: &[Effect]) -> Decided {
    let mut decided = Decided::default();
    let once = |acks: &mut Acks, held: &Held| assert!(acks.insert(held.sequence), "once: {effects:?}");
    for effect in effects {
        match effect {
            Effect::Hedge {
                held,
                because: Because::Silent,
                ..
            } => once(&mut decided.copied, held),
            Effect::GiveBack(_, _, held) => once(&mut decided.given_back, held),
            Effect::Report { held, end, .. } => {
                decided.ends.push(*end);
                once(&mut decided.died, held);
            }
            Effect::Extend(..) | Effect::Announce(Happening::ProverFound { .. }) => {}
            Effect::Announce(Happening::ProverSuspected { .. }) => decided.suspected += 1,
            Effect::Announce(Happening::ProverBack { .. }) => decided.back += 1,
            Effect::Announce(Happening::ProverLost { .. }) => decided.lost += 1,
            Effect::Announce(Happening::NameTakenTwice { .. }) => decided.twins += 1,
            other => panic!("{other:?}"),
        }
    }
    decided
}

/// A watchdog with a clock. Provers named in `beating` are heard every heartbeat.
struct Rig {
    watchdog: Watchdog,
    now: Timestamp,
    beating: Vec<Lease>,
    /// Processes without a connection, as the broker says when asked.
    gone: Vec<(Participant, u64)>,
    effects: Vec<Effect>,
}

impl Rig {
    fn new(beating: Vec<Lease>) -> Self {
        let mut rig = Self {
            watchdog: Watchdog::default(),
            now: START,
            beating,
            gone: Vec::new(),
            effects: Vec::new(),
        };
        rig.beat();
        rig.effects.clear();
        rig
    }

    fn beat(&mut self) {
        for lease in &self.beating {
            self.effects.extend(self.watchdog.heard(lease.clone(), self.now));
        }
    }

    /// Lets time pass, and returns the decisions since the last call.
    fn wait(&mut self, during: Duration) -> Decided {
        let until = self.now.plus(during);
        while self.now < until {
            self.now = self.now.plus(TICK);
            if self
                .now
                .since(START)
                .as_millis()
                .is_multiple_of(HEARTBEAT.as_millis())
            {
                self.beat();
            }
            self.effects.extend(self.watchdog.tick(self.now));
            for seat in self.watchdog.to_ask(self.now) {
                let is_gone = self.gone.contains(&seat);
                self.watchdog.presence(&seat, is_gone, self.now);
            }
        }
        decided(&std::mem::take(&mut self.effects))
    }

    /// Silences a prover, and returns its last lease.
    fn silence(&mut self, prover: &ProverId) -> Lease {
        let at = self.beating.iter().position(|lease| lease.prover == *prover);
        self.beating.remove(at.expect("it beats"))
    }
}

fn name(prover: u32) -> ProverId {
    lease(prover, Role::Prover, Vec::new()).prover
}

/// A fleet that is restarted leaves one name behind for each replica, and every new leader read all of them.
#[test]
fn a_successor_tells_no_death_that_was_told_long_ago() {
    let told = |held: Vec<Held>, age: Duration| {
        let mut successor = Rig::new(Vec::new());
        let lease = lease(1, Role::Prover, held);
        successor.watchdog.recall(lease, START.minus(age), START);
        let after = successor.wait(CONDEMN_AFTER * 2);
        after.suspected
    };
    let hour = Duration::from_secs(3600);
    assert_eq!(told(Vec::new(), hour), 0);
    assert_eq!(
        told(Vec::new(), Duration::from_secs(5)),
        1,
        "it may have died while no watchdog led"
    );
    assert_eq!(told(vec![running(1)], hour), 1, "its attempt may be undecided");
}

proptest! {
    /// P5: second copies of all attempts of silent provers are asked for, and their other deliveries are given to
    /// others, once, and between three heartbeats and a tick more. No prover is reported. Provers still heard of keep
    /// theirs.
    #[test]
    fn what_silent_provers_hold_starts_elsewhere_once_and_in_time(fleet in fleet(), living in any::<u8>()) {
        let lives = |at: usize| living & (1 << at) != 0;
        let mut watchdog = Watchdog::default();
        for lease in &fleet {
            watchdog.heard(lease.clone(), START);
        }
        let mut effects = Vec::new();
        let mut now = START;
        while now.since(START) < SUSPECT_AFTER * 4 {
            now = now.plus(TICK);
            for (at, lease) in fleet.iter().enumerate() {
                if lives(at) && now.since(START).as_millis().is_multiple_of(HEARTBEAT.as_millis()) {
                    effects.extend(watchdog.heard(lease.clone(), now));
                }
            }
            effects.extend(watchdog.tick(now));
            prop_assert!(effects.is_empty() || now.since(START) >= SUSPECT_AFTER);
            prop_assert!(now.since(START) < SUSPECT_AFTER + TICK || watchdog.alive() == (0..fleet.len()).filter(|at| lives(*at)).count());
        }
        let (heard, silent): (Vec<_>, Vec<_>) = fleet.into_iter().enumerate().partition(|(at, _)| lives(*at));
        let silent: Vec<Lease> = silent.into_iter().map(|(_, lease)| lease).collect();
        let (begun, others) = begun_and_others(&silent);
        let has_others = heard.iter().any(|(_, lease)| lease.role == Role::Prover);
        let expected = Decided {
            copied: if has_others { begun } else { Acks::new() },
            given_back: others,
            suspected: silent.len(),
            ..Decided::default()
        };
        prop_assert_eq!(decided(&effects), expected);
    }

    /// A suspected prover is reported when the broker has known no connection for two seconds, or else when it was
    /// silent for ten, and not at all if it is back before.
    #[test]
    fn a_suspected_prover_is_condemned_slowly(fleet in fleet(), is_gone in any::<bool>(), back_after in 1000..13_000_u64) {
        let fleet: Vec<Lease> = fleet.into_iter().map(|lease| located(lease, 1)).collect();
        let mut rig = Rig::new(fleet.clone());
        rig.beating.clear();
        if is_gone {
            rig.gone = fleet.iter().map(|lease| (lease.sender(), 1)).collect();
        }
        let condemned_after = if is_gone { SUSPECT_AFTER + GONE_FOR } else { CONDEMN_AFTER };
        let back_after = Duration::from_millis(back_after / 50 * 50);
        let is_alive = back_after <= condemned_after;
        let before = rig.wait(back_after.min(condemned_after) - TICK);
        prop_assert_eq!((before.died, before.lost), (Acks::new(), 0));
        if is_alive {
            rig.beating = fleet;
            rig.gone.clear();
            let after = rig.wait(CONDEMN_AFTER * 2);
            prop_assert_eq!((after.died, after.lost, after.back), (Acks::new(), 0, rig.beating.len()));
            return Ok(());
        }
        let after = rig.wait(GONE_FOR);
        let (begun, _) = begun_and_others(&fleet);
        prop_assert_eq!((after.died, after.lost), (begun, fleet.len()));
        let end = |end: &End| if is_gone { *end == End::Gone } else { matches!(end, End::Silent(_)) };
        prop_assert!(after.ends.iter().all(end), "{:?}", after.ends);
    }

    /// A successor reaches the same decisions from the stored heartbeats as its predecessor. They are repeated if
    /// their outcome is not known.
    #[test]
    fn a_successor_decides_the_same_from_the_stored_heartbeats(fleet in fleet(), killed_after in 0..30_000_u64) {
        let (begun, others) = begun_and_others(&fleet);
        let mut first = Rig::new(fleet.clone());
        first.beating.clear();
        let before = first.wait(Duration::from_millis(killed_after));
        prop_assert!(before.died.is_empty() || (&before.died, &before.given_back) == (&begun, &others));
        let mut successor = Rig::new(Vec::new());
        successor.now = first.now;
        for lease in &fleet {
            successor.watchdog.recall(lease.clone(), first.now, first.now);
        }
        let after = successor.wait(CONDEMN_AFTER * 2);
        prop_assert_eq!((after.died, after.given_back), (begun, others));
    }

    /// Stalls of every kind, each shorter than ten seconds: no failure is reported, and copies of a task are bounded.
    #[test]
    fn short_stalls_are_never_reported(stalls in vec((0..4_usize, 1..9000_u64), 1..12)) {
        let mut provers: Vec<Lease> = (0..4).map(|at| located(lease(at, Role::Prover, Vec::new()), 1)).collect();
        provers[0].held = vec![running(1)];
        let mut rig = Rig::new(provers);
        let mut copies = 0;
        for (at, stall) in stalls {
            let at = at % rig.beating.len();
            let stalled = rig.silence(&name(u32::try_from(at).expect("small")));
            let during = rig.wait(Duration::from_millis(stall));
            prop_assert_eq!((during.died, during.lost), (Acks::new(), 0));
            // Each requested copy runs on a prover with heartbeats.
            for _ in 0..during.copied.len() {
                copies += 1;
                let next = copy(1, 1 + copies);
                rig.beating.last_mut().expect("three").held.push(next);
            }
            rig.beating.insert(at, stalled);
            let after = rig.wait(HEARTBEAT * 2);
            prop_assert_eq!((after.died, after.lost), (Acks::new(), 0));
        }
        prop_assert!(copies as usize <= COPIES_MAX, "{copies} copies");
    }
}

/// Three provers stand still for a second each, one after the other, with an hour's proof on them.
#[test]
fn three_short_stalls_of_a_long_proof_cost_one_copy() {
    let mut rig = Rig::new(vec![
        lease(1, Role::Prover, vec![running(1)]),
        lease(2, Role::Prover, Vec::new()),
        lease(3, Role::Prover, Vec::new()),
    ]);
    let mut copied = Vec::new();
    for prover in [1, 2, 3] {
        let stalled = rig.silence(&name(prover));
        let during = rig.wait(Duration::from_secs(1));
        assert_eq!((during.died.len(), during.suspected), (0, 1));
        if !during.copied.is_empty() {
            copied.push(prover);
            rig.beating[0].held = vec![copy(1, 2)];
        }
        rig.beating.insert(0, stalled);
        rig.beating.sort_by_key(|lease| lease.prover.clone());
        let after = rig.wait(Duration::from_secs(4));
        assert_eq!((after.died.len(), after.back, after.copied.len()), (0, 1, 0));
    }
    assert_eq!(copied, [1], "the copy on 2 needs no copy while 1 is heard");
}

/// A copy whose prover falls silent too gets one of its own, and then there are enough.
#[test]
fn a_copy_gets_a_copy_if_no_other_is_heard_and_the_third_gets_none() {
    let mut provers: Vec<Lease> = (1..=5).map(|at| lease(at, Role::Prover, Vec::new())).collect();
    provers[0].held = vec![running(1)];
    let mut rig = Rig::new(provers);
    let mut copied = Vec::new();
    for (prover, attempt) in [(1, 2), (2, 3), (3, 4)] {
        rig.silence(&name(prover));
        copied.extend(rig.wait(Duration::from_secs(1)).copied);
        if attempt <= 3 {
            rig.beating[0].held = vec![copy(1, attempt)];
        }
        copied.extend(rig.wait(HEARTBEAT * 2).copied);
    }
    assert_eq!(copied, [1, 1002]);
}

/// On a busy machine the watchdog is held up again and again. Its delays are no silence, and the rest adds up.
#[test]
fn a_watchdog_that_is_often_held_up_condemns_a_silent_prover_all_the_same() {
    let mut watchdog = Watchdog::default();
    watchdog.heard(lease(1, Role::Prover, vec![running(1)]), START);
    let mut now = START;
    let mut effects = Vec::new();
    for _ in 0..20 {
        for step in [TICK; 19].into_iter().chain([HEARTBEAT * 2]) {
            now = now.plus(step);
            effects.extend(watchdog.tick(now));
        }
    }
    assert_eq!(decided(&effects).died, Acks::from([1]));
}

/// The copy has failed, so a second silence of the prover needs another one.
#[test]
fn a_prover_that_falls_silent_again_gets_a_copy_again() {
    let first = lease(1, Role::Prover, vec![running(1)]);
    let mut rig = Rig::new(vec![first.clone(), lease(2, Role::Prover, Vec::new())]);
    for _ in 0..2 {
        rig.silence(&first.prover);
        assert_eq!(rig.wait(Duration::from_secs(1)).copied, Acks::from([1]));
        rig.beating.push(first.clone());
        assert_eq!(rig.wait(HEARTBEAT * 2).copied, Acks::new());
    }
}

/// Behind a single prover, a copy would only wait to be done twice. A prover that joins gets one.
#[test]
fn a_single_prover_goes_on_when_it_is_back_and_another_one_that_joins_gets_a_copy() {
    let single = lease(1, Role::Prover, vec![running(1)]);
    let mut rig = Rig::new(vec![single.clone()]);
    rig.silence(&single.prover);
    assert_eq!(rig.wait(Duration::from_secs(3)).copied, Acks::new());
    rig.beating.push(single.clone());
    let back = rig.wait(Duration::from_secs(1));
    assert_eq!((back.back, back.copied), (1, Acks::new()));
    rig.silence(&single.prover);
    rig.wait(Duration::from_secs(2));
    rig.beating.push(lease(2, Role::Prover, Vec::new()));
    assert_eq!(rig.wait(HEARTBEAT * 2).copied, Acks::from([1]));
}

/// The broker would deliver a suspected prover's attempt again after its ack wait of five seconds.
#[test]
fn the_deliveries_of_a_suspected_prover_are_extended_every_second() {
    let mut watchdog = Watchdog::default();
    watchdog.heard(lease(1, Role::Prover, vec![running(1)]), START);
    let mut extended = Vec::new();
    let mut now = START;
    while now.since(START) < CONDEMN_AFTER + Duration::from_secs(3) {
        now = now.plus(TICK);
        let effects = watchdog.tick(now);
        let extends = |effect: &&Effect| matches!(effect, Effect::Extend(..));
        extended.extend(effects.iter().filter(extends).map(|_| now.since(START)));
    }
    let gaps = extended.windows(2).map(|pair| pair[1] - pair[0]);
    assert!(
        gaps.into_iter().all(|gap| gap <= Duration::from_secs(1) + TICK),
        "{extended:?}"
    );
    assert!(
        extended
            .first()
            .is_some_and(|first| *first <= SUSPECT_AFTER + TICK)
    );
    assert!(extended.last().is_some_and(|last| *last < CONDEMN_AFTER));
}

/// Two copied configurations: both processes beat under one name.
#[test]
fn two_processes_of_one_name_are_reported_once_and_both_go_on() {
    for has_origin in [true, false] {
        let twin = |incarnation: u64, index: u32| {
            let lease = located(lease(1, Role::Prover, vec![running(index)]), incarnation);
            if has_origin {
                lease
            } else {
                Lease {
                    origin: None,
                    ..lease
                }
            }
        };
        let mut rig = Rig::new(vec![twin(1, 1), twin(2, 2)]);
        let decided = rig.wait(Duration::from_secs(30));
        assert_eq!(
            (decided.died.len(), decided.twins, decided.lost),
            (0, 1, 0),
            "{has_origin}"
        );
    }
}

/// A restart is known at once if the broker has no connection of the old process, and otherwise when the old process
/// is silent.
#[test]
fn the_attempts_of_a_process_that_was_restarted_died() {
    for is_gone in [true, false] {
        let old = located(lease(1, Role::Prover, vec![running(1)]), 1);
        let mut rig = Rig::new(vec![old.clone(), lease(2, Role::Prover, Vec::new())]);
        rig.silence(&old.prover);
        rig.wait(TICK);
        if is_gone {
            rig.gone.push((old.sender(), 1));
        }
        rig.beating.push(located(lease(1, Role::Prover, Vec::new()), 2));
        rig.beat();
        let soon = rig.wait(TICK * 3);
        assert_eq!(soon.ends, if is_gone { vec![End::Restarted] } else { Vec::new() });
        let later = rig.wait(SUSPECT_AFTER);
        assert_eq!(
            later.ends,
            if is_gone { Vec::new() } else { vec![End::Restarted] }
        );
        assert_eq!((soon.twins, later.twins), (0, 0));
    }
}
