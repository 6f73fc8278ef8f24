//! Bodies of the streams CHECKS and RESULTS: how attempts ended.

use super::{BlockEnded, StageKind, TaskHeader};
use crate::{BlobPlace, Participant, Payloads, ProverId, payload::INLINE_MAX, signature::Signature};
use serde::{Deserialize, Deserializer, Serialize};

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
    /// The header of the attempt, as the task carried it.
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
    /// How long the inputs were read and the outputs stored, in microseconds. This time is not in `prove_us`.
    #[serde(default)]
    pub transfer_us: u64,
    /// How long the task waited for a free slot after its release, in microseconds.
    #[serde(default)]
    pub waited_us: u64,
    /// The prover's signature of [`Self::statement`]; `None` from a prover without a key, and from the watchdog.
    #[serde(default)]
    pub signature: Option<Signature>,
    /// The verifier's verdict; `None` until a verifier has seen the attempt.
    #[serde(default)]
    pub verdict: Option<Verdict>,
}

impl TaskResult {
    /// Returns why the attempt failed, if it did: by its own word, or because its stage cannot have such outputs. A
    /// read list is short, so this takes a bounded time.
    pub fn failure(&self) -> Option<Failure> {
        let outputs = match &self.outcome {
            Outcome::Failed(failure) => return Some(failure.clone()),
            Outcome::Completed { outputs } => outputs,
        };
        let (count, is_split) = (outputs.count(), self.header.kind == StageKind::Split);
        let reason = match outputs {
            _ if count == 0 => "completed without an output".to_owned(),
            _ if count > 1 && !is_split => format!("completed with {count} outputs: expected one"),
            Payloads::List(list) if list.iter().any(|output| !output.is_inline_short()) => {
                format!("an output of more than {INLINE_MAX} bytes in the message")
            }
            // A blob of another block would be removed with that block.
            _ if outputs.blobs().any(|blob| blob.place != self.place()) => {
                format!("an output outside of {}", self.place())
            }
            _ => return None,
        };
        Some(Failure::new(FailureClass::Retryable, reason))
    }

    /// Returns where the prover of the attempt stores blobs.
    fn place(&self) -> BlobPlace {
        let stage = &self.header.id.stage;
        BlobPlace {
            zkvm: Some(self.header.zkvm.clone()),
            writer: self.prover.clone(),
            pipeline: stage.pipeline.clone(),
            number: stage.block.number,
        }
    }

    /// Returns the prover of the attempt.
    pub fn participant(&self) -> Participant {
        Participant {
            zkvm: self.header.zkvm.clone(),
            name: self.prover.clone(),
        }
    }
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
    /// Description for people, with the end of stderr if there is one. Cut to [`TEXT_LEN_MAX`] bytes, also when it is
    /// read: others may write more.
    #[serde(deserialize_with = "clipped")]
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

fn clipped<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(clip(&String::deserialize(deserializer)?))
}

fn clipped_reason<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let reason = Option::<String>::deserialize(deserializer)?;
    Ok(reason.map(|reason| clip(&reason)))
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
    /// The prover's surroundings failed: disk full, program missing, a dependency away. By this word the failure says
    /// nothing about the task, and the word is believed for long ([`FailureClass::is_about_task`]).
    Surroundings,
}

impl FailureClass {
    /// Returns whether the failure by itself calls for no further attempt: no attempt can succeed, or the
    /// work is superseded.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Fatal | Self::Stopped)
    }

    /// Returns whether the failure may be charged to its task, if its prover completes other tasks. Deaths
    /// have a budget of their own.
    pub fn is_evidence(self) -> bool {
        self.is_about_task() || self == Self::Surroundings
    }

    /// Returns whether the failure may be the task's own by the word of its prover too. The word `surroundings` may be
    /// wrong: a block that fills a disk, or whose program prints "no space left", fails at every prover.
    pub fn is_about_task(self) -> bool {
        matches!(
            self,
            Self::Retryable | Self::OutOfMemory | Self::TimedOut | Self::InvalidProof
        )
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
            Self::Surroundings => "surroundings",
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
    /// How long the check waited for a free slot of a verifier, in microseconds.
    #[serde(default)]
    pub waited_us: u64,
    /// Why the proof is false; `None` for a valid one. Cut to [`TEXT_LEN_MAX`] bytes by the reader.
    #[serde(default, deserialize_with = "clipped_reason")]
    pub invalid: Option<String>,
}
