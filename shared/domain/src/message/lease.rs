//! LEASES and CONTROL: what provers say of themselves, and what they are told.

use super::TaskHeader;
use crate::{ProverId, ZkvmId, task::AttemptId, trace::TraceContext};
use serde::{Deserialize, Serialize};

/// LEASES: a heartbeat, all that the watchdog and the dispatcher know of a prover.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// Who.
    pub prover: ProverId,
    /// What it proves.
    pub zkvm: ZkvmId,
    /// Whether it proves or verifies.
    pub role: Role,
    /// Drawn at its start: tells a restarted process from the one before.
    pub incarnation: u64,
    /// Counts this incarnation's heartbeats, from 1.
    pub beat: u64,
    /// How many attempts it runs at once.
    pub slots: u32,
    /// How many it takes ahead of free slots, to hide the hop, whatever it holds.
    pub ahead: u32,
    /// Whether it takes work.
    pub state: ProverState,
    /// What it holds, running or waiting for a slot.
    pub held: Vec<Held>,
}

/// What a process does for its zkVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It proves.
    Prover,
    /// It verifies.
    Verifier,
}

/// Whether a prover takes work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProverState {
    /// It does.
    Active,
    /// It finishes what it holds and then leaves.
    Draining,
    /// It failed too often and cools down.
    Quarantined,
}

/// A delivery that a prover holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// The attempt.
    pub header: TaskHeader,
    /// The delivery's acknowledgement subject: with it, anyone may end the delivery.
    pub ack_subject: String,
    /// How long the attempt has been running, in milliseconds; none while it waits for a slot.
    #[serde(default)]
    pub running_ms: Option<u64>,
    /// Whether it is about to end: the prover takes one more task, for its slot.
    #[serde(default)]
    pub ends_soon: bool,
    /// How far it says it is, 0 to 1,000.
    #[serde(default)]
    pub progress_permille: Option<u16>,
    /// The block's trace.
    #[serde(default)]
    pub trace: TraceContext,
}

/// CONTROL: an order to one prover. Repeated by the watchdog while it is not obeyed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Control {
    /// End this attempt: nobody waits for it any more.
    Stop {
        /// Which.
        attempt: AttemptId,
        /// Why, for the log and the trace.
        reason: String,
    },
    /// Take no more work.
    Drain,
    /// Take no work for this long, in milliseconds; 0 ends a quarantine.
    Quarantine {
        /// How long from the receipt.
        for_ms: u64,
        /// Why.
        reason: String,
    },
}
