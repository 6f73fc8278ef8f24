//! Deliveries that nobody holds.
//!
//! A prover that takes a task and dies before its next heartbeat, a connection that breaks under a
//! delivery, a process that leaves in that moment: the broker believes the task to be with somebody,
//! and no lease shows it. Left alone it would come back after the broker's ack wait. So TASKS and
//! CHECKS are compared with the leases: what lies there and is in no lease in two looks that are
//! farther apart than two heartbeats is unheld, if it was delivered at all.
//!
//! | who serves the zkVM | what follows |
//! |---|---|
//! | somebody is late, and may be dead | nothing yet: silence decides first |
//! | a prover died while the attempt was unheld, or just before | the attempt died with it |
//! | nobody did, or it is a check | the delivery is given to another: it never arrived |

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
/// How often is looked: when somebody is late, and when nobody is.
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
    /// Who died with it, and how.
    pub fell: Option<(ProverId, End)>,
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
    since: [BTreeMap<AttemptKey, Timestamp>; 2],
    fallen: Vec<Fallen>,
    looked_at: Timestamp,
}

impl Looks {
    /// Whether it is time to look.
    pub(crate) fn is_due(&mut self, late: bool, now: Timestamp) -> bool {
        self.fallen.retain(|fallen| now.since(fallen.at) < FALLEN_FOR);
        let every = if late || !self.fallen.is_empty() {
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
        for key in present.into_iter().filter(|key| !held.contains(key)) {
            let seen = before.get(&key).copied().unwrap_or(now);
            if now.since(seen) < UNHELD_AFTER || late.contains(&key.zkvm) {
                since.insert(key, seen);
                continue;
            }
            let with = |f: &&Fallen| role == Role::Prover && f.zkvm == key.zkvm && seen <= f.at.plus(URGENT);
            let fell = self.fallen.iter().rev().find(with);
            found.push(Unheld {
                role,
                fell: fell.map(|f| (f.prover.clone(), f.end)),
                key: key.clone(),
            });
            // Looked at anew, should it have had no effect.
            since.insert(key, now);
        }
        self.since[usize::from(role == Role::Verifier)] = since;
        found
    }
}
