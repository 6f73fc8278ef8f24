//! Bodies of the streams LEASES (heartbeats of provers and verifiers) and CONTROL (orders to them).

use super::TaskHeader;
use crate::{Participant, ProverId, ZkvmId, task::AttemptId, trace::TraceContext};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Body of LEASES: a heartbeat. Dispatcher and watchdog know a prover only from its leases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The id of the prover or verifier.
    pub prover: ProverId,
    /// The zkVM of the prover or verifier.
    pub zkvm: ZkvmId,
    /// Whether it proves or verifies.
    pub role: Role,
    /// Random number drawn at the start of the process. A new value means that the process was restarted.
    pub incarnation: u64,
    /// Where the process runs. `None` if the process does not listen on its presence subjects, so that the
    /// broker cannot tell whether it is still connected.
    #[serde(default)]
    pub origin: Option<Origin>,
    /// Number of this heartbeat since the process started, from 1.
    pub beat: u64,
    /// How many attempts the process runs at once; at most [`SLOTS_MAX`].
    pub slots: u32,
    /// How many tasks the process takes ahead of free slots, to hide the time of delivery. Independent of
    /// the attempts in `held`, whose `ends_soon` adds to this number.
    pub ahead: u32,
    /// Whether the process takes work.
    pub state: ProverState,
    /// All unacknowledged deliveries of the process, running or waiting for a slot.
    pub held: Vec<Held>,
}

/// Maximum of the slots of one process. Readers count no more, because a lease may claim any number.
pub const SLOTS_MAX: u32 = 1024;

impl Lease {
    /// Returns how many attempts the process may hold at once, as far as its lease is believed.
    pub fn places(&self) -> usize {
        (self.slots.min(SLOTS_MAX) + self.ahead.min(SLOTS_MAX)) as usize
    }

    /// Returns the prover or verifier that sent the lease.
    pub fn sender(&self) -> Participant {
        Participant {
            zkvm: self.zkvm.clone(),
            name: self.prover.clone(),
        }
    }
}

/// Where a process runs, for operators.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The name of the machine or container.
    pub host: String,
    /// The process id on that machine.
    pub pid: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "process {} on {}", self.pid, self.host)
    }
}

/// A process speaking to others of its own name, on [`crate::subject::presence`]. No stream stores it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// Whether the speaker proves or verifies. A prover and a verifier may have one name.
    pub role: Role,
    /// The incarnation of the speaker.
    pub incarnation: u64,
    /// Where the speaker runs.
    pub origin: Origin,
    /// Whether the speaker is starting and asks if its name is taken. Otherwise it has the name.
    pub is_starting: bool,
}

/// The kind of work a process does for its zkVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// The process proves tasks.
    Prover,
    /// The process verifies completed attempts.
    Verifier,
}

/// Whether a prover takes work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProverState {
    /// The prover takes work.
    Active,
    /// The prover takes no more work, finishes its running attempts and then leaves.
    Draining,
    /// The prover failed too often and takes no work for a while.
    Quarantined,
}

/// A delivery held by a prover or verifier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The header of the attempt, as the task carried it.
    pub header: TaskHeader,
    /// The sequence of the message in its stream. The watchdog ends a delivery only while its attempt has this message.
    pub sequence: u64,
    /// How long the attempt has been running, in milliseconds; `None` while it waits for a slot, and while its
    /// inputs or outputs are in transfer.
    #[serde(default)]
    pub running_ms: Option<u64>,
    /// Whether the attempt is about to end, in which case the prover takes one more task for its slot.
    #[serde(default)]
    pub ends_soon: bool,
    /// Progress that the adapter reported, from 0 to 1,000; `None` without a report.
    #[serde(default)]
    pub progress_permille: Option<u16>,
    /// The trace context of the task's message.
    #[serde(default)]
    pub trace: TraceContext,
}

/// The reason of an order to stop an attempt whose end the watchdog has reported.
pub const OVERDUE: &str = "over its timeout";

/// Body of CONTROL: an order to one prover. The watchdog repeats an order until it is obeyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// Ends this attempt, because its result is not wanted any more.
    Stop {
        /// The attempt to end.
        attempt: AttemptId,
        /// Why the attempt is ended, for the log and the trace.
        reason: String,
    },
    /// Takes no more work, finishes running attempts and hands back waiting ones.
    Drain,
    /// Takes no work for a while.
    Quarantine {
        /// Duration in milliseconds from the receipt of the order; 0 ends a quarantine.
        for_ms: u64,
        /// Why the prover is quarantined.
        reason: String,
    },
}
