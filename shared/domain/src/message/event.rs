//! EVENTS: what happened, for dashboards and people. No decision rests on them, and one may be lost.

use super::Role;
use crate::{ProverId, Timestamp, ZkvmId};
use serde::{Deserialize, Serialize};

/// EVENTS: something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When it was noticed.
    pub at: Timestamp,
    /// What.
    pub what: Happening,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Happening {
    /// A prover or verifier fell silent or was started anew; what it held goes elsewhere.
    ProverLost {
        /// Who.
        prover: ProverId,
        /// What it proves.
        zkvm: ZkvmId,
        /// Whether it proves or verifies.
        role: Role,
        /// How many deliveries it held.
        held: u32,
    },
    /// A prover or verifier is heard of that was not there a moment ago.
    ProverFound {
        /// Who.
        prover: ProverId,
        /// What it proves.
        zkvm: ZkvmId,
        /// Whether it proves or verifies.
        role: Role,
    },
    /// A prover gets no work for a while.
    QuarantineBegun {
        /// Who.
        prover: ProverId,
        /// Until when.
        until: Timestamp,
        /// How many there were in a row, this one included.
        times: u32,
        /// Why.
        reason: String,
    },
    /// A prover gets work again.
    QuarantineEnded {
        /// Who.
        prover: ProverId,
        /// Why.
        reason: String,
    },
    /// Something was given up.
    DeadLetter {
        /// The letter's id.
        id: String,
        /// Its reason.
        reason: String,
    },
}

impl Happening {
    /// The kind, as subjects name it.
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
