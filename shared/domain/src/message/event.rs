//! Body of the stream EVENTS: events and notices, for dashboards and people. No decision depends on an event, and
//! events may be lost.

use super::{Origin, Role};
use crate::{PipelineId, ProverId, Timestamp, ZkvmId, subject::AttemptKey};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

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
    /// A prover or verifier died or was restarted: its attempts are reported as died.
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
    /// A prover or verifier fell silent. Second copies of its attempts start elsewhere, and nothing is reported
    /// as failed yet.
    ProverSuspected {
        /// The id of the prover or verifier.
        prover: ProverId,
        /// The zkVM of the prover or verifier.
        zkvm: ZkvmId,
        /// Whether it proves or verifies.
        role: Role,
        /// How many deliveries it held.
        held: u32,
    },
    /// A suspected prover or verifier was heard again, and its attempts go on.
    ProverBack {
        /// The id of the prover or verifier.
        prover: ProverId,
        /// The zkVM of the prover or verifier.
        zkvm: ZkvmId,
        /// Whether it proves or verifies.
        role: Role,
        /// How long it was silent, in milliseconds.
        silent_ms: u64,
    },
    /// Two living processes have the same name. Both go on; give one another name.
    NameTakenTwice {
        /// The id that both have.
        prover: ProverId,
        /// Where both run, as far as they say so.
        origins: Vec<Origin>,
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
    /// The queue of a zkVM is held: its attempts fail without a success between them.
    QueueHeld {
        /// The zkVM of the queue.
        zkvm: ZkvmId,
        /// Why the queue is held.
        held: HeldQueue,
    },
    /// The held queue of a zkVM is open again.
    QueueOpened {
        /// The zkVM of the queue.
        zkvm: ZkvmId,
        /// Why the dispatcher opened the queue.
        why: Opened,
    },
    /// A verifier tried a check and came to no verdict. The proof waits in CHECKS and is tried again.
    CheckUnverified {
        /// The subject of the check in CHECKS.
        check: String,
        /// The prover of the attempt, which is not at fault.
        prover: ProverId,
        /// The verifier without a verdict.
        verifier: ProverId,
        /// The zkVM of the attempt.
        zkvm: ZkvmId,
        /// How often the check was delivered so far.
        deliveries: u32,
        /// The kind of obstacle.
        obstacle: Obstacle,
        /// The obstacle in words.
        reason: String,
        /// When the check is delivered again.
        again_at: Timestamp,
    },
    /// A check was not tried but made to wait, because it was delivered often without a verdict. If no
    /// [`Self::CheckUnverified`] came with the delivery before, its verifier ended without a word.
    CheckPaused {
        /// The subject of the check in CHECKS.
        check: String,
        /// The prover of the attempt, which is not at fault.
        prover: ProverId,
        /// The verifier that makes the check wait.
        verifier: ProverId,
        /// The zkVM of the attempt.
        zkvm: ZkvmId,
        /// How often the check was delivered so far.
        deliveries: u32,
        /// When the check is delivered again.
        again_at: Timestamp,
    },
    /// A participant stored orphaned messages, or more blobs than its share of a nearly full stream. The watchdog has
    /// removed it.
    ParticipantFlooding {
        /// The id of the prover or verifier.
        prover: ProverId,
        /// The zkVM of the prover or verifier.
        zkvm: ZkvmId,
        /// The name of the stream.
        stream: String,
        /// How many messages were removed.
        removed: u64,
    },
    /// A message or task was given up and stored as a dead letter.
    DeadLetter {
        /// The id of the dead letter.
        id: String,
        /// The reason in the dead letter.
        reason: String,
    },
}

/// Why the queue of a zkVM is held: a fact under [`crate::subject::facts::hold`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldQueue {
    /// When the first failure was noticed.
    pub since: Timestamp,
    /// The number of failures since then.
    pub failures: u32,
    /// The last error.
    pub error: String,
    /// The newest failed attempt as subjects name it, while every failure was of this one task: other tasks go on.
    /// `None` once attempts of several tasks failed: then the whole queue waits, and one task at a time is tried.
    pub task: Option<AttemptKey>,
}

impl HeldQueue {
    /// Returns whether tasks of these blocks wait because of the hold: every task of the zkVM does, unless a single task
    /// fails.
    pub fn concerns(&self, pipeline: &PipelineId, blocks: &RangeInclusive<u64>) -> bool {
        self.task.as_ref().is_none_or(|key| {
            let is_among = key.block.first() <= *blocks.end() && *blocks.start() <= key.block.number;
            key.pipeline == *pipeline && is_among
        })
    }
}

/// Why a held queue is open again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Opened {
    /// An attempt succeeded.
    Succeeded,
    /// A probe runs for much longer than every failed attempt did.
    Outlived,
    /// No work of the zkVM is left: its blocks were cancelled or given up, or their pipeline was removed.
    NoWork,
}

/// The kind of obstacle that kept a verifier from a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Obstacle {
    /// The verifier reported an error, panicked, or its program ended without a verdict.
    Verifier,
    /// The verification took longer than the stage's timeout.
    Timeout,
    /// Verifiers took the check and ended without a word: the proof may kill them.
    Killed,
    /// The facts of the block, or its revision of the pipeline, are not in the store.
    Facts,
    /// The output is not in the blob store.
    Output,
    /// The broker or the blob store did not answer.
    Store,
    /// The verifier has the prover's name.
    OwnProof,
}

impl Obstacle {
    /// Returns the name of the kind in metrics and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Verifier => "verifier",
            Self::Timeout => "timeout",
            Self::Killed => "killed",
            Self::Facts => "facts",
            Self::Output => "output",
            Self::Store => "store",
            Self::OwnProof => "own-proof",
        }
    }
}

impl Happening {
    /// Returns the event's kind as subjects name it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::ProverLost { .. } => "prover-lost",
            Self::ProverFound { .. } => "prover-found",
            Self::ProverSuspected { .. } => "prover-suspected",
            Self::ProverBack { .. } => "prover-back",
            Self::NameTakenTwice { .. } => "name-taken-twice",
            Self::QuarantineBegun { .. } => "quarantine-begun",
            Self::QuarantineEnded { .. } => "quarantine-ended",
            Self::QueueHeld { .. } => "queue-held",
            Self::QueueOpened { .. } => "queue-opened",
            Self::CheckUnverified { .. } => "check-unverified",
            Self::CheckPaused { .. } => "check-paused",
            Self::ParticipantFlooding { .. } => "participant-flooding",
            Self::DeadLetter { .. } => "dead-letter",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_held_for_one_task_concerns_the_blocks_of_that_task_only() {
        let concerns = |task: Option<&str>| {
            let held = HeldQueue {
                since: Timestamp(7),
                failures: 5,
                error: "no key".into(),
                task: task.map(|task| task.to_owned().try_into().unwrap()),
            };
            held.concerns(&"demo".parse().unwrap(), &(7..=7))
        };
        assert!(concerns(None));
        assert!(concerns(Some("mock.demo.7-0a1b2c3d.main.prove.0.5")));
        assert!(concerns(Some("mock.demo.9-0a1b2c3d-3.main.prove.0.5")), "a range");
        assert!(!concerns(Some("mock.demo.8-0a1b2c3d.main.prove.0.5")));
        assert!(!concerns(Some("mock.other.7-0a1b2c3d.main.prove.0.5")));
    }
}
