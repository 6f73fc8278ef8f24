//! Deliveries that nobody holds.
//!
//! A prover that takes a task and dies before its next heartbeat, a connection that breaks under a
//! delivery, a process that leaves in that moment: the broker believes the task to be with somebody,
//! and no lease shows it. Left alone it would come back after the broker's ack wait. So TASKS and
//! CHECKS are compared with the leases: what lies there and is in no lease in two looks that are
//! farther apart than a heartbeat is unheld, if it was delivered at all.
//!
//! | who serves the zkVM | what follows |
//! |---|---|
//! | somebody is late, and may be dead | nothing yet: silence decides first |
//! | a prover died while the attempt was unheld, or just before | the attempt died with it |
//! | nobody did, or it is a check, for as long as a silence takes to be noticed | it is suspect: is it delivered? |
//! | the same for as long again after it was found delivered | it is given to another: it never arrived |
//! | a living prover stopped holding it before it began | nothing: it was handed back, and waits for somebody who is free |

use crate::decide::{DEAD_AFTER, End, HEARTBEAT};
use push0_domain::{ProverId, Timestamp, ZkvmId, message::Role, subject::AttemptKey};
use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

/// How long an attempt may lie in its stream and be in no lease: a heartbeat, which shows what a
/// prover took even if the one at the taking is lost, and 50 ms for the way.
pub const UNHELD_AFTER: Duration = HEARTBEAT.saturating_add(Duration::from_millis(50));
/// How long a prover may be silent until its silence is looked into: half a heartbeat more than one.
pub const LATE_AFTER: Duration = HEARTBEAT.saturating_add(Duration::from_millis(125));
/// How long nobody may be late until an attempt counts as never arrived: by then whoever took it and
/// died is late.
pub const LOST_AFTER: Duration = LATE_AFTER.saturating_add(Duration::from_millis(125));
/// How often is looked: when somebody is late or something is suspect, and when all is well.
const URGENT: Duration = Duration::from_millis(100);
const CALM: Duration = Duration::from_secs(1);
/// How long a death is remembered: attempts that died with it are seen within this.
const FALLEN_FOR: Duration = Duration::from_secs(1);
const _: () = assert!(
    LATE_AFTER.as_millis() + UNHELD_AFTER.as_millis() <= DEAD_AFTER.as_millis(),
    "when a prover is declared dead, what it took last is known to be unheld"
);

/// A delivery that nobody holds, as far as the leases show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unheld {
    /// Which attempt.
    pub key: AttemptKey,
    /// Whether it lies in TASKS or in CHECKS.
    pub role: Role,
    /// What became of it, as far as can be told.
    pub fate: Fate,
}

/// What becomes of a delivery that nobody holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its prover died, in this way.
    Fell(ProverId, End),
    /// It may never have arrived, if it was delivered at all.
    Suspect,
    /// It was delivered and never arrived.
    Lost,
}

/// An attempt in a stream and in no lease.
#[derive(Clone, Copy, Debug)]
struct Seen {
    /// Since when, or since it was found to be suspect.
    at: Timestamp,
    suspect: bool,
}

/// A process that is gone.
#[derive(Debug)]
struct Fallen {
    prover: ProverId,
    zkvm: ZkvmId,
    end: End,
    at: Timestamp,
}

/// What was seen in the streams and in no lease.
#[derive(Debug, Default)]
pub(crate) struct Looks {
    /// Since when, by role: 0 is a prover's, 1 a verifier's.
    since: [BTreeMap<AttemptKey, Seen>; 2],
    /// What was handed back and is in no lease since.
    handed_back: [HashSet<AttemptKey>; 2],
    fallen: Vec<Fallen>,
    looked_at: Timestamp,
}

impl Looks {
    /// Whether it is time to look.
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

    /// A prover died.
    pub(crate) fn fell(&mut self, prover: ProverId, zkvm: ZkvmId, end: End, at: Timestamp) {
        // What it took last is known by now.
        self.looked_at = Timestamp::default();
        self.fallen.push(Fallen {
            prover,
            zkvm,
            end,
            at,
        });
    }

    /// A prover does not hold it any more, and has not begun it as far as was heard.
    pub(crate) fn handed_back(&mut self, role: Role, key: AttemptKey) {
        self.handed_back[usize::from(role == Role::Verifier)].insert(key);
    }

    /// A suspect was not delivered yet: it waits for somebody who is free.
    pub(crate) fn waits(&mut self, role: Role, key: &AttemptKey) {
        self.since[usize::from(role == Role::Verifier)].remove(key);
    }

    /// What lies in the stream of this role; what of it is in a lease; and on which zkVMs somebody is
    /// late.
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
        // What is not there any more was done.
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
                // Looked at anew, should it have no effect.
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
