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
//! | one is late, and may be dead | none yet: its silence decides first |
//! | a prover died while the attempt was unheld, or just before | the attempt died with the prover |
//! | none died, or the attempt is a check, for as long as a silence takes to be noticed | the attempt is suspect: the shell checks its delivery |
//! | again none, for as long after the delivery was confirmed | given to another process: the delivery never arrived |
//! | a living prover stopped holding the attempt before it began | none: it was handed back, and waits for a free prover |

use crate::silence::{DEAD_AFTER, End, HEARTBEAT};
use push0_domain::{ProverId, Timestamp, ZkvmId, message::Role, subject::AttemptKey};
use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

/// How long an attempt may be in its stream and in no lease: one heartbeat, in case the extra heartbeat at
/// the taking was lost, and 50 ms for the way.
pub const UNHELD_AFTER: Duration = HEARTBEAT.saturating_add(Duration::from_millis(50));
/// Silence after which a process is late: half a heartbeat more than one.
pub const LATE_AFTER: Duration = HEARTBEAT.saturating_add(Duration::from_millis(125));
/// How long an attempt is unheld before it is suspect, and as long again before it counts as lost. A process
/// that took the attempt and died is late by then.
pub const LOST_AFTER: Duration = LATE_AFTER.saturating_add(Duration::from_millis(125));
/// Intervals between looks: while a process is late or an attempt is suspect, and otherwise.
const URGENT: Duration = Duration::from_millis(100);
const CALM: Duration = Duration::from_secs(1);
/// How long a death is remembered. Attempts lost with the prover are seen within this time.
const FALLEN_FOR: Duration = Duration::from_secs(1);
const _: () = assert!(
    LATE_AFTER.as_millis() + UNHELD_AFTER.as_millis() <= DEAD_AFTER.as_millis(),
    "when a prover is declared dead, its last deliveries are known to be unheld"
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
    /// The prover that took the delivery died in this way.
    Fell(ProverId, End),
    /// The delivery may never have arrived. The shell must check whether there was one.
    Suspect,
    /// The attempt was delivered and never arrived.
    Lost,
}

/// An attempt in a stream and in no lease.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// When the attempt was first seen unheld, or found suspect.
    at: Timestamp,
    suspect: bool,
}

/// A dead prover.
#[derive(Debug)]
struct Fallen {
    prover: ProverId,
    zkvm: ZkvmId,
    end: End,
    at: Timestamp,
}

/// Attempts seen in the streams and in no lease.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    /// Unheld attempts by role: index 0 for provers, 1 for verifiers.
    since: [BTreeMap<AttemptKey, Seen>; 2],
    /// Attempts handed back and in no lease since, by role.
    handed_back: [HashSet<AttemptKey>; 2],
    fallen: Vec<Fallen>,
    looked_at: Timestamp,
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
        let every = if late || suspects || !self.fallen.is_empty() {
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

    /// Handles the death of a prover.
    pub(crate) fn fell(&mut self, prover: ProverId, zkvm: ZkvmId, end: End, at: Timestamp) {
        // Look at once: by now its last deliveries are known to be unheld.
        self.looked_at = Timestamp::default();
        self.fallen.push(Fallen {
            prover,
            zkvm,
            end,
            at,
        });
    }

    /// Handles an attempt that its prover no longer holds and, as far as heard, has not begun.
    pub(crate) fn handed_back(&mut self, role: Role, key: AttemptKey) {
        self.handed_back[usize::from(role == Role::Verifier)].insert(key);
    }

    /// Handles a suspect found not delivered yet, which waits for a free prover.
    pub(crate) fn waits(&mut self, role: Role, key: &AttemptKey) {
        self.since[usize::from(role == Role::Verifier)].remove(key);
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
        let before = std::mem::take(&mut self.since[usize::from(role == Role::Verifier)]);
        let mut since = BTreeMap::new();
        let mut found = Vec::new();
        let unheld: Vec<AttemptKey> = present.into_iter().filter(|key| !held.contains(key)).collect();
        // Attempts no longer unheld were taken again or are done, and are forgotten.
        let handed_back = &mut self.handed_back[usize::from(role == Role::Verifier)];
        let before_that = std::mem::take(handed_back);
        handed_back.extend(unheld.iter().filter(|key| before_that.contains(key)).cloned());
        for key in unheld.into_iter().filter(|key| !before_that.contains(key)) {
            let new = Seen {
                at: now,
                suspect: false,
            };
            let seen = before.get(&key).copied().unwrap_or(new);
            if late.contains(&key.zkvm) {
                since.insert(key, seen);
                continue;
            }
            let unheld_for = now.since(seen.at);
            let with =
                |f: &&Fallen| role == Role::Prover && f.zkvm == key.zkvm && seen.at <= f.at.plus(URGENT);
            let fell = self.fallen.iter().rev().find(with);
            let (fate, next) = match fell.filter(|_| unheld_for >= UNHELD_AFTER) {
                // Start over, in case the report has no effect.
                Some(f) => (Fate::Fell(f.prover.clone(), f.end), new),
                None if unheld_for < LOST_AFTER => {
                    since.insert(key, seen);
                    continue;
                }
                None if seen.suspect => (Fate::Lost, new),
                None => (Fate::Suspect, Seen { suspect: true, ..new }),
            };
            since.insert(key.clone(), next);
            found.push(Unheld { key, role, fate });
        }
        self.since[usize::from(role == Role::Verifier)] = since;
        found
    }
}
