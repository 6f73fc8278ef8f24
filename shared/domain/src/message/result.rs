//! Bodies of the streams CHECKS and RESULTS: how attempts ended.

use super::{BlockEnded, TaskHeader};
use crate::{Payloads, ProverId};
use serde::{Deserialize, Serialize};

/// Maximum length of the text of a failure or a reason, in bytes.
pub const TEXT_LEN_MAX: usize = 4096;

/// Body of RESULTS: the end of an attempt, or of whole blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultEvent {
    /// An attempt ended, as a prover, a verifier or the watchdog reports.
    Attempt(TaskResult),
    /// Blocks end without a proof.
    Ended(BlockEnded),
}

/// The end of one attempt. Also the body of CHECKS, where the attempt is completed and not yet verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskResult {
    /// The header of the attempt. `busy_us` has grown by the time of the attempt; all other fields are as
    /// the task carried them.
    pub header: TaskHeader,
    /// The prover of the attempt.
    pub prover: ProverId,
    /// Outputs or failure of the attempt.
    pub outcome: Outcome,
    /// The inputs of the attempt, as long as another attempt may be needed: with a failure, and until a
    /// verifier has agreed. The next attempt can be made from this message alone.
    #[serde(default)]
    pub inputs: Option<Payloads>,
    /// How long the prover worked on the attempt, in microseconds, by its monotonic clock.
    pub prove_us: u64,
    /// The verifier's verdict; `None` until a verifier has seen the attempt.
    #[serde(default)]
    pub verdict: Option<Verdict>,
}

/// Outputs or failure of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The attempt wrote its outputs.
    Completed {
        /// One output; for a `split`, one or more.
        outputs: Payloads,
    },
    /// The attempt failed, for this reason.
    Failed(Failure),
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The class, which decides whether the task is retried.
    pub class: FailureClass,
    /// Description for people, with the end of stderr if there is one; at most [`TEXT_LEN_MAX`] bytes.
    pub message: String,
}

impl Failure {
    /// Creates a failure, cutting its message to [`TEXT_LEN_MAX`] bytes.
    pub fn new(class: FailureClass, message: impl AsRef<str>) -> Self {
        Self {
            class,
            message: clip(message.as_ref()),
        }
    }
}

/// Cuts a text to [`TEXT_LEN_MAX`] bytes and keeps its end, because the last lines of an error say most.
pub fn clip(text: &str) -> String {
    let excess = text.len().saturating_sub(TEXT_LEN_MAX);
    let start = (excess..=text.len())
        .find(|&at| text.is_char_boundary(at))
        .unwrap_or(text.len());
    text[start..].to_owned()
}

/// Class of a failure, which decides whether the task is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// The prover failed, but another attempt may succeed.
    Retryable,
    /// The prover reports that no attempt can succeed.
    Fatal,
    /// The prover ran out of memory; the next attempt goes to larger provers if the stage names them.
    OutOfMemory,
    /// The attempt used up its stage's timeout.
    TimedOut,
    /// The prover died or fell silent.
    Died,
    /// A verifier refused the proof.
    InvalidProof,
    /// The attempt was told to stop because its work is superseded.
    Stopped,
}

impl FailureClass {
    /// Returns whether the failure by itself calls for no further attempt: no attempt can succeed, or the
    /// work is superseded.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Fatal | Self::Stopped)
    }

    /// Returns the name of the class in metrics and tables.
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

/// A verifier's judgement of a completed attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The id of the verifier. It differs from the prover's id unless the verifier's `[prover]
    /// verify_own` is set.
    pub verifier: ProverId,
    /// How long the verification took, in microseconds.
    pub verify_us: u64,
    /// Why the proof is false; `None` if it is valid.
    #[serde(default)]
    pub invalid: Option<String>,
}
