//! Where the time of a block goes: the stages on its critical path. [`crate::account`] sums it up.
//!
//! A stage waits for the last of the results before it, and the chain of these results is the critical path. Messages
//! carry the path so far, because the results of earlier stages are gone by the time of the record. Levels of a tree are
//! one leg, so a path is no longer than the list of a proof's stages.
//!
//! Instants are those of the broker. Durations are told by the process that measured them, cut to the time between
//! the instants: a leg is never longer than the time from its start to its end.

use crate::{ProverId, StageName, Timestamp};
use serde::{Deserialize, Serialize};

/// One stage on the critical path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leg {
    /// The name of the stage.
    pub stage: StageName,
    /// When the stage was ready.
    pub ready_at: Timestamp,
    /// When the last result of the stage was stored.
    pub ended_at: Timestamp,
    /// The prover of that result.
    pub prover: ProverId,
    /// The verifier of that result; `None` if the pipeline asks for no verification.
    #[serde(default)]
    pub verifier: Option<ProverId>,
    /// How many attempts failed before.
    #[serde(default)]
    pub failed: u32,
    /// The parts of the time that are not push0's own.
    pub parts: Parts,
}

/// The time of a leg that provers, verifiers and waiting took, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parts {
    /// From the readiness to the end of the last failed attempt, or to the request for a second copy or a retry.
    #[serde(default)]
    pub failed_us: u64,
    /// Waiting for a free prover, for the pause after a failure, or for the output to come near.
    #[serde(default)]
    pub waited_us: u64,
    /// Reading of inputs and storing of outputs.
    #[serde(default)]
    pub transfer_us: u64,
    /// Proving.
    #[serde(default)]
    pub prove_us: u64,
    /// Waiting for a free verifier that can tell.
    #[serde(default)]
    pub check_waited_us: u64,
    /// Verification.
    #[serde(default)]
    pub verify_us: u64,
}

/// The critical path up to an attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CriticalPath {
    /// The stages before, oldest first.
    #[serde(default)]
    pub legs: Vec<Leg>,
    /// When the task was ready, by the broker's clock; of an operator's retry, when it was asked for.
    #[serde(default)]
    pub ready_at: Timestamp,
    /// How many attempts at the task failed before this one.
    #[serde(default)]
    pub failed: u32,
    /// When the last of them ended, or when a copy or a retry was asked for; `ready_at` without either.
    #[serde(default)]
    pub failed_until: Timestamp,
    /// How long the attempt waited for the dispatcher to release it, in microseconds: for a free prover, for its pause, or
    /// for the output to come near.
    #[serde(default)]
    pub held_us: u64,
}

impl Parts {
    /// Returns all parts, in the order in which they follow each other.
    fn all(&mut self) -> [&mut u64; 6] {
        [
            &mut self.failed_us,
            &mut self.waited_us,
            &mut self.transfer_us,
            &mut self.prove_us,
            &mut self.check_waited_us,
            &mut self.verify_us,
        ]
    }

    /// Returns the sum of all parts, in microseconds.
    pub fn sum_us(mut self) -> u64 {
        self.all()
            .into_iter()
            .fold(0, |sum, part| sum.saturating_add(*part))
    }

    /// Cuts the parts so that their sum is at most `whole_us`. The first ones count in full.
    pub(crate) fn within(mut self, mut whole_us: u64) -> Self {
        for part in self.all() {
            *part = (*part).min(whole_us);
            whole_us -= *part;
        }
        self
    }

    pub(crate) fn plus(mut self, mut other: Self) -> Self {
        for (part, more) in self.all().into_iter().zip(other.all()) {
            *part = part.saturating_add(*more);
        }
        self
    }
}

impl Leg {
    /// Returns push0's own time in this leg, in microseconds.
    pub fn own_us(&self) -> u64 {
        let whole = self.ended_at.0.saturating_sub(self.ready_at.0);
        whole.saturating_sub(self.parts.sum_us())
    }
}

impl CriticalPath {
    /// Returns the path to a task that is ready since `ready_at`, behind these legs.
    pub fn behind(legs: Vec<Leg>, ready_at: Timestamp) -> Self {
        Self {
            legs,
            ready_at,
            failed: 0,
            failed_until: ready_at,
            held_us: 0,
        }
    }

    /// Returns the path to the next attempt, after one whose failure was stored at `ended_at`.
    #[must_use]
    pub fn failed_at(&self, ended_at: Timestamp) -> Self {
        Self {
            failed: self.failed.saturating_add(1),
            ..self.asked_at(ended_at)
        }
    }

    /// Returns the path to a second copy of the attempt, or to an operator's retry of its task, asked for at `asked_at`.
    #[must_use]
    pub fn asked_at(&self, asked_at: Timestamp) -> Self {
        Self {
            failed_until: self.failed_until.max(asked_at),
            held_us: 0,
            ..self.clone()
        }
    }

    /// Returns the path to an attempt that the dispatcher held for so long.
    #[must_use]
    pub fn held(self, held_us: u64) -> Self {
        Self { held_us, ..self }
    }
}
