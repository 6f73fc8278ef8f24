//! CHECKS and RESULTS: how attempts ended.

use super::{BlockEnded, TaskHeader, clip};
use crate::{Payloads, ProverId};
use serde::{Deserialize, Serialize};

/// RESULTS: what became of an attempt, or of a whole block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultEvent {
    /// An attempt ended.
    Attempt(TaskResult),
    /// A block is no longer wanted.
    Ended(BlockEnded),
}

/// How one attempt ended. Also the body of CHECKS: a completed attempt before it was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskResult {
    /// The attempt.
    pub header: TaskHeader,
    /// Who held it.
    pub prover: ProverId,
    /// What came of it.
    pub outcome: Outcome,
    /// What it read, as long as another attempt may be needed: with a failure, and until a verifier
    /// has agreed. The next attempt can be made from this message alone.
    #[serde(default)]
    pub inputs: Option<Payloads>,
    /// How long the prover worked on it, in microseconds, by its monotonic clock.
    pub prove_us: u64,
    /// What the verifier said, once it did.
    #[serde(default)]
    pub verdict: Option<Verdict>,
}

/// What came of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It wrote its outputs.
    Completed {
        /// One, or for a split many.
        outputs: Payloads,
    },
    /// It did not, and why.
    Failed(Failure),
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The class decides what happens next.
    pub class: FailureClass,
    /// For people: what happened, with the end of stderr; at most [`super::TEXT_LEN_MAX`] bytes.
    pub message: String,
}

impl Failure {
    /// A failure with its message cut to size.
    pub fn new(class: FailureClass, message: impl AsRef<str>) -> Self {
        Self {
            class,
            message: clip(message.as_ref()),
        }
    }
}

/// Classes of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The prover said no; another attempt may do better.
    Retryable,
    /// The prover said that no attempt can succeed.
    Fatal,
    /// The prover ran out of memory.
    OutOfMemory,
    /// The attempt used up its stage's timeout.
    TimedOut,
    /// The prover died or fell silent.
    Died,
    /// A verifier refused the proof.
    InvalidProof,
    /// The attempt was told to stop: its work is superseded.
    Stopped,
}

impl FailureClass {
    /// Whether another attempt can help.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Fatal | Self::Stopped)
    }

    /// The class as metrics and tables name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Retryable => "retryable",
            Self::Fatal => "fatal",
            Self::OutOfMemory => "out-of-memory",
            Self::TimedOut => "timed-out",
            Self::Died => "died",
            Self::InvalidProof => "invalid-proof",
            Self::Stopped => "stopped",
        }
    }
}

/// What a verifier says of a completed attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Who verified; never the prover itself unless the pipeline allows it.
    pub verifier: ProverId,
    /// How long it took, in microseconds.
    pub verify_us: u64,
    /// Why the proof is false; none if it is valid.
    #[serde(default)]
    pub invalid: Option<String>,
}
