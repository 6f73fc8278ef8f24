//! Bodies of the streams LEASES (heartbeats of provers and verifiers) and CONTROL (orders to them).

use super::TaskHeader;
use crate::{ProverId, ZkvmId, task::AttemptId, trace::TraceContext};
use serde::{Deserialize, Serialize};

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
    /// Number of this heartbeat since the process started, from 1.
    pub beat: u64,
    /// How many attempts the process runs at once.
    pub slots: u32,
    /// How many tasks the process takes ahead of free slots, to hide the time of delivery. Independent of
    /// the attempts in `held`, whose `ends_soon` adds to this number.
    pub ahead: u32,
    /// Whether the process takes work.
    pub state: ProverState,
    /// All unacknowledged deliveries of the process, running or waiting for a slot.
    pub held: Vec<Held>,
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
    /// The acknowledgement subject of the delivery. Any client with permission to publish on the subject
    /// can end the delivery; the watchdog does so for a dead prover.
    pub ack_subject: String,
    /// How long the attempt has been running, in milliseconds; `None` while it waits for a slot.
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
