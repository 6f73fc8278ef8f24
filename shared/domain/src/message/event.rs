//! Body of the stream EVENTS: notices for dashboards and people. No decision depends on an event, and
//! events may be lost.

use super::Role;
use crate::{ProverId, Timestamp, ZkvmId};
use serde::{Deserialize, Serialize};

/// Body of EVENTS: one event and its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When the event was noticed.
    pub at: Timestamp,
    /// The event itself.
    pub what: Happening,
}

/// An event of interest to operators.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happening {
    /// A prover or verifier fell silent or was restarted; its deliveries go to others.
    ProverLost {
        /// The id of the prover or verifier.
        prover: ProverId,
        /// The zkVM of the prover or verifier.
        zkvm: ZkvmId,
        /// Whether it proved or verified.
        role: Role,
        /// How many deliveries it held.
        held: u32,
    },
    /// A prover or verifier sent its first heartbeat, or its first one after it was lost.
    ProverFound {
        /// The id of the prover or verifier.
        prover: ProverId,
        /// The zkVM of the prover or verifier.
        zkvm: ZkvmId,
        /// Whether it proves or verifies.
        role: Role,
    },
    /// A prover was quarantined: it gets no work for a while.
    QuarantineBegun {
        /// The id of the prover.
        prover: ProverId,
        /// When the quarantine ends.
        until: Timestamp,
        /// Number of quarantines in a row, this one included.
        times: u32,
        /// Why the prover was quarantined.
        reason: String,
    },
    /// A prover's quarantine ended: it gets work again.
    QuarantineEnded {
        /// The id of the prover.
        prover: ProverId,
        /// Why the quarantine ended.
        reason: String,
    },
    /// A message or task was given up and stored as a dead letter.
    DeadLetter {
        /// The id of the dead letter.
        id: String,
        /// The reason in the dead letter.
        reason: String,
    },
}

impl Happening {
    /// Returns the event's kind as subjects name it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ProverLost { .. } => "prover-lost",
            Self::ProverFound { .. } => "prover-found",
            Self::QuarantineBegun { .. } => "quarantine-begun",
            Self::QuarantineEnded { .. } => "quarantine-ended",
            Self::DeadLetter { .. } => "dead-letter",
        }
    }
}
