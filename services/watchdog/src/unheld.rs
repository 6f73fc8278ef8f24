//! Finds deliveries in no lease.
//!
//! A prover may take a task and die before its next heartbeat, a connection may break under a delivery, or a
//! process may leave at the wrong moment: the broker believes the task delivered, and no lease shows the
//! task. By itself, such a task would come back only after the broker's ack wait. So TASKS and CHECKS are
//! compared with the leases: an attempt in the stream and in no lease, in two looks more than a heartbeat
//! apart, is unheld, if it was delivered at all.
//!
//! | processes serving the zkVM | consequence |
//! |---|---|
//! | one is late, and may be silent | none yet: its silence decides first |
//! | a prover fell silent while the attempt was unheld, or just before | the prover is in doubt: it may run the attempt, so a second copy is asked for |
//! | the prover in doubt died | the attempt died with the prover |
//! | the prover in doubt is back, and does not hold the attempt | as if it had just been seen unheld |
//! | a process stands still, and the attempt was delivered later than that | the attempt is suspect at once, and lost sooner than otherwise: no prover began it |
//! | none of these, or the attempt is a check, for as long as a silence takes to be noticed | the attempt is suspect: the shell checks its delivery |
//! | again none, for as long after the delivery was confirmed | given to another process: the delivery never arrived |
//! | a living prover stopped holding the attempt before its start | none: it was handed back, and waits for a free prover |

use crate::silence::{EXTEND_EVERY, End, HEARTBEAT, SUSPECT_AFTER};
use push0_domain::{Participant, Timestamp, ZkvmId, message::Role, subject::AttemptKey};
use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

/// A process: the name of a prover or verifier, and its incarnation.
pub type Seat = (Participant, u64);

/// How long an attempt may be in its stream and in no lease: one heartbeat, in case the extra heartbeat at
/// the taking was lost, and 50 ms for the way.
pub const UNHELD_AFTER: Duration = HEARTBEAT.saturating_add(Duration::from_millis(50));
/// Silence after which a process is late: half a heartbeat more than one.
pub const LATE_AFTER: Duration = HEARTBEAT.saturating_add(Duration::from_millis(125));
/// How long an attempt is unheld before it is suspect, and as long again before it counts as lost. A process
/// that took the attempt and died is late by then.
pub const LOST_AFTER: Duration = LATE_AFTER.saturating_add(Duration::from_millis(125));
/// How long a suspect is unheld before it counts as lost, beside a process that stands still. A live process that took
/// the attempt has shown it by then, and one that died is late, with 50 ms for the way of its last heartbeat.
const PASSED_ON_AFTER: Duration = LATE_AFTER.saturating_add(Duration::from_millis(50));
/// Intervals between looks: while a process is late or silent or an attempt is suspect, and otherwise.
const URGENT: Duration = Duration::from_millis(100);
const CALM: Duration = Duration::from_secs(1);
/// How long a death is remembered. Attempts lost with the prover are seen within this time.
const FALLEN_FOR: Duration = Duration::from_secs(1);
/// Most second copies of a task that are in flight because provers are in doubt. Each may cost a prover.
pub const COPIES_MAX: usize = 2;
const _: () = assert!(
    LATE_AFTER.as_millis() + UNHELD_AFTER.as_millis() <= SUSPECT_AFTER.as_millis(),
    "when a prover is suspected, its last deliveries are known to be unheld"
);

/// A delivery in no lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unheld {
    /// The attempt in the delivery.
    pub key: AttemptKey,
    /// `Prover` if the attempt is in TASKS, `Verifier` if in CHECKS.
    pub role: Role,
    /// The fate of the delivery, as far as known.
    pub fate: Fate,
}

/// The fate of a delivery in no lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// The prover that took the delivery fell silent. It may run the attempt, and may be back.
    Doubted(Participant),
    /// The prover in doubt may still run the attempt, so the broker must wait longer.
    Extended,
    /// The prover that took the delivery died in this way.
    Fell(Participant, End),
    /// The delivery may never have arrived. The shell must check whether there was one.
    Suspect,
    /// The attempt was delivered and never arrived.
    Lost,
}

/// An attempt in a stream and in no lease.
#[derive(Clone, Debug)]
struct Seen {
    /// When the attempt was first seen unheld, or found suspect.
    at: Timestamp,
    suspect: bool,
    /// The silent prover that may have the attempt. A second copy was asked for.
    with: Option<Seat>,
}

impl Seen {
    fn new(at: Timestamp) -> Self {
        Self {
            at,
            suspect: false,
            with: None,
        }
    }
}

/// A process that fell silent.
#[derive(Debug)]
struct Silent {
    seat: Seat,
    role: Role,
    zkvm: ZkvmId,
    at: Timestamp,
}

/// A dead prover.
#[derive(Debug)]
struct Fallen {
    seat: Seat,
    zkvm: ZkvmId,
    end: End,
    at: Timestamp,
    /// Whether the prover was in doubt before. The deliveries that it may have are known then.
    was_silent: bool,
}

/// Attempts seen in the streams and in no lease.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    /// Unheld attempts by role: index 0 for provers, 1 for verifiers.
    since: [BTreeMap<AttemptKey, Seen>; 2],
    /// Attempts handed back and in no lease since, by role.
    handed_back: [HashSet<AttemptKey>; 2],
    silent: Vec<Silent>,
    fallen: Vec<Fallen>,
    looked_at: Timestamp,
}

fn index(role: Role) -> usize {
    usize::from(role == Role::Verifier)
}

impl Looks {
    /// Returns whether a look is due.
    pub(crate) fn is_due(&mut self, late: bool, now: Timestamp) -> bool {
        self.fallen.retain(|fallen| now.since(fallen.at) < FALLEN_FOR);
        let suspects = self
            .since
            .iter()
            .flat_map(BTreeMap::values)
            .any(|seen| seen.suspect);
        let every = if late || suspects || !self.silent.is_empty() || !self.fallen.is_empty() {
            URGENT
        } else {
            CALM
        };
        let due = now.since(self.looked_at) >= every;
        if due {
            self.looked_at = now;
        }
        due
    }

    /// Handles the silence of a process.
    pub(crate) fn silent(&mut self, seat: Seat, role: Role, zkvm: ZkvmId, at: Timestamp) {
        // Look at once: by now its last deliveries are known to be unheld.
        self.looked_at = Timestamp::default();
        self.silent.push(Silent { seat, role, zkvm, at });
    }

    /// Handles a silent process that was heard again, or left.
    pub(crate) fn is_back(&mut self, seat: &Seat) {
        self.silent.retain(|silent| silent.seat != *seat);
    }

    /// Handles the death of a prover.
    pub(crate) fn fell(&mut self, seat: Seat, zkvm: ZkvmId, end: End, at: Timestamp) {
        self.looked_at = Timestamp::default();
        let was_silent = self.silent.iter().any(|silent| silent.seat == seat);
        self.is_back(&seat);
        self.fallen.push(Fallen {
            seat,
            zkvm,
            end,
            at,
            was_silent,
        });
    }

    /// Handles an attempt that its prover no longer holds and, as far as heard, has not begun.
    pub(crate) fn handed_back(&mut self, role: Role, key: AttemptKey) {
        self.handed_back[index(role)].insert(key);
    }

    /// Handles a suspect found not delivered yet, which waits for a free prover.
    pub(crate) fn waits(&mut self, role: Role, key: &AttemptKey) {
        self.since[index(role)].remove(key);
    }

    /// Compares a stream with the leases of its role. `present` lists the attempts in the stream, `held`
    /// those in a lease, and `late` the zkVMs with a late process. Returns unheld attempts with their fate.
    pub(crate) fn look(
        &mut self,
        role: Role,
        present: Vec<AttemptKey>,
        held: &HashSet<AttemptKey>,
        late: &HashSet<ZkvmId>,
        now: Timestamp,
    ) -> Vec<Unheld> {
        let before = std::mem::take(&mut self.since[index(role)]);
        let mut since = BTreeMap::new();
        let mut found = Vec::new();
        let unheld: Vec<AttemptKey> = present.into_iter().filter(|key| !held.contains(key)).collect();
        // Attempts no longer unheld were taken again or are done, and are forgotten.
        let handed_back = &mut self.handed_back[index(role)];
        let before_that = std::mem::take(handed_back);
        handed_back.extend(unheld.iter().filter(|key| before_that.contains(key)).cloned());
        for key in unheld.into_iter().filter(|key| !before_that.contains(key)) {
            let seen = before.get(&key).cloned().unwrap_or_else(|| Seen::new(now));
            let seen = self.without_the_returned(seen, now);
            if late.contains(&key.zkvm) {
                since.insert(key, seen);
                continue;
            }
            match self.fate(role, &key, &seen, now) {
                None => drop(since.insert(key, seen)),
                Some((fate, next)) => {
                    since.insert(key.clone(), next);
                    found.push(Unheld { key, role, fate });
                }
            }
        }
        self.since[index(role)] = since;
        found
    }

    /// Starts over with an attempt whose prover was in doubt and is back without the attempt.
    fn without_the_returned(&self, seen: Seen, now: Timestamp) -> Seen {
        match &seen.with {
            Some(seat) if !self.is_silent(seat) && !self.fallen.iter().any(|f| f.seat == *seat) => {
                Seen::new(now)
            }
            _ => seen,
        }
    }

    fn is_silent(&self, seat: &Seat) -> bool {
        self.silent.iter().any(|silent| silent.seat == *seat)
    }

    /// Returns the fate of an unheld attempt and the knowledge about it from now on; `None` if nothing
    /// is to be done.
    fn fate(&self, role: Role, key: &AttemptKey, seen: &Seen, now: Timestamp) -> Option<(Fate, Seen)> {
        let unheld_for = now.since(seen.at);
        // Start over, in case a report has no effect.
        let new = Seen::new(now);
        let fell = |f: &Fallen| (Fate::Fell(f.seat.0.clone(), f.end), new.clone());
        if let Some(seat) = &seen.with {
            let fallen = self.fallen.iter().find(|f| f.seat == *seat).map(fell);
            let with = seen.with.clone();
            let extended = || (Fate::Extended, Seen { with, ..new.clone() });
            return fallen.or_else(|| (unheld_for >= EXTEND_EVERY).then(extended));
        }
        let mut silent = self
            .silent
            .iter()
            .rev()
            .filter(|s| s.role == role && s.zkvm == key.zkvm);
        let is_beside_a_silent_one = silent.clone().next().is_some();
        if role == Role::Prover {
            // A prover takes nothing after its death, and its earlier attempts were seen while it was late.
            if let Some(silent) = silent.find(|s| seen.at <= s.at) {
                let with = Some(silent.seat.clone());
                let doubted = Fate::Doubted(silent.seat.0.clone());
                return (unheld_for >= UNHELD_AFTER).then_some((doubted, Seen { with, ..new }));
            }
            let with = |f: &&Fallen| !f.was_silent && f.zkvm == key.zkvm && seen.at <= f.at.plus(URGENT);
            if let Some(fallen) = self.fallen.iter().rev().find(with)
                && unheld_for >= UNHELD_AFTER
            {
                return Some(fell(fallen));
            }
        }
        let patience = match (is_beside_a_silent_one, seen.suspect) {
            // Beside a process that stands still, the delivery probably went there, after its silence had begun.
            (true, false) => Duration::ZERO,
            (true, true) => PASSED_ON_AFTER,
            (false, _) => LOST_AFTER,
        };
        if unheld_for < patience {
            return None;
        }
        Some(match seen.suspect {
            true => (Fate::Lost, new),
            false => (Fate::Suspect, Seen { suspect: true, ..new }),
        })
    }
}
