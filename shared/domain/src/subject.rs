//! All subjects of the bus. No other module formats or parses a subject.
//!
//! Subjects serve routing, filtering and deduplication. The content of a message is in its body.

use crate::{
    BlockKey, BlockRef, PipelineId, ProofType, ProverId, StageName, ZkvmId, id::InvalidId, task::AttemptId,
};
use std::fmt;

/// Root of all subjects. A protocol change that old services cannot read changes the root.
pub const ROOT: &str = "push0.v1";

/// Error for an invalid subject.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{subject}` is not a {kind} subject: {reason}")]
pub struct InvalidSubject {
    subject: String,
    kind: &'static str,
    reason: String,
}

/// Kind of a subject: its first token after the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Blocks to prove (stream BLOCKS).
    Block,
    /// Cancellations of blocks (stream BLOCKS).
    Cancel,
    /// Stages and attempts ready for release (stream STAGES).
    Stage,
    /// Attempts released to provers (stream TASKS).
    Task,
    /// Completed attempts waiting for a verifier (stream CHECKS).
    Check,
    /// Ends of attempts, reported by provers and the watchdog (stream RESULTS).
    Result,
    /// Ends of attempts, reported by verifiers (stream RESULTS).
    Verdict,
    /// Blocks that end without a proof (stream RESULTS).
    Ended,
    /// Heartbeats of provers and verifiers (stream LEASES).
    Lease,
    /// Orders to provers and verifiers (stream CONTROL).
    Control,
    /// Records, the ordered output (stream PROOFS).
    Proof,
    /// Dead letters (stream DEAD).
    Dead,
    /// Notices for dashboards and people (stream EVENTS).
    Event,
}

impl Kind {
    /// All kinds, in the order of declaration.
    pub const ALL: [Self; 13] = [
        Self::Block,
        Self::Cancel,
        Self::Stage,
        Self::Task,
        Self::Check,
        Self::Result,
        Self::Verdict,
        Self::Ended,
        Self::Lease,
        Self::Control,
        Self::Proof,
        Self::Dead,
        Self::Event,
    ];

    /// Returns the token for the kind in subjects.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::Cancel => "cancel",
            Self::Stage => "stage",
            Self::Task => "task",
            Self::Check => "check",
            Self::Result => "result",
            Self::Verdict => "verdict",
            Self::Ended => "ended",
            Self::Lease => "lease",
            Self::Control => "control",
            Self::Proof => "proof",
            Self::Dead => "dead",
            Self::Event => "event",
        }
    }

    /// Returns the kind of a subject; `None` if the subject is not one of push0's.
    pub fn of(subject: &str) -> Option<Self> {
        let token = subject.strip_prefix(ROOT)?.strip_prefix('.')?.split('.').next()?;
        Self::ALL.into_iter().find(|kind| kind.as_str() == token)
    }
}

/// An attempt as subjects name it: with a block key instead of the full hash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptKey {
    /// The zkVM whose provers take the attempt.
    pub zkvm: ZkvmId,
    /// The pipeline of the block.
    pub pipeline: PipelineId,
    /// The key of the block or range.
    pub block: BlockKey,
    /// The type of the proof to which the stage belongs.
    pub proof_type: ProofType,
    /// The name of the stage.
    pub stage: StageName,
    /// The task's index in the stage, from 0.
    pub index: u32,
    /// The attempt's number, from 1.
    pub attempt: u32,
}

impl AttemptKey {
    /// Returns the key of an attempt on `zkvm`.
    pub fn of(zkvm: &ZkvmId, id: &AttemptId) -> Self {
        let stage = &id.task.stage;
        Self {
            zkvm: zkvm.clone(),
            pipeline: stage.pipeline.clone(),
            block: stage.block_key(),
            proof_type: stage.proof_type.clone(),
            stage: stage.stage.clone(),
            index: id.task.index,
            attempt: id.number,
        }
    }

    /// Parses the subject of an attempt. Fails if the subject is not of the kind `kind`.
    pub fn parse(subject: &str, kind: Kind) -> Result<Self, InvalidSubject> {
        let kind = kind.as_str();
        let invalid = |reason: String| InvalidSubject {
            subject: subject.chars().take(300).collect(),
            kind,
            reason,
        };
        let rest = subject
            .strip_prefix(ROOT)
            .and_then(|s| s.strip_prefix('.'))
            .and_then(|s| s.strip_prefix(kind))
            .and_then(|s| s.strip_prefix('.'))
            .ok_or_else(|| invalid(format!("expected it to start with {ROOT}.{kind}.")))?;
        let tokens: Vec<&str> = rest.split('.').collect();
        let [zkvm, pipeline, block, proof_type, stage, index, attempt] = tokens[..] else {
            return Err(invalid(format!(
                "expected 7 tokens after {ROOT}.{kind}, found {}",
                tokens.len()
            )));
        };
        let id = |e: InvalidId| invalid(e.to_string());
        let number = |text: &str| text.parse::<u32>().map_err(|e| invalid(format!("`{text}`: {e}")));
        let key = Self {
            zkvm: zkvm.parse().map_err(id)?,
            pipeline: pipeline.parse().map_err(id)?,
            block: block
                .parse()
                .map_err(|e: crate::block::InvalidBlock| invalid(e.to_string()))?,
            proof_type: proof_type.parse().map_err(id)?,
            stage: stage.parse().map_err(id)?,
            index: number(index)?,
            attempt: number(attempt)?,
        };
        // `+1` and `01` parse as numbers but would be second spellings of one attempt.
        if key.to_string() == rest {
            Ok(key)
        } else {
            Err(invalid("not in its one spelling".into()))
        }
    }
}

impl fmt::Display for AttemptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            zkvm,
            pipeline,
            block,
            proof_type,
            stage,
            index,
            attempt,
        } = self;
        write!(
            f,
            "{zkvm}.{pipeline}.{block}.{proof_type}.{stage}.{index}.{attempt}"
        )
    }
}

/// Returns the subject in BLOCKS for blocks of one pipeline.
pub fn block(pipeline: &PipelineId) -> String {
    format!("{ROOT}.block.{pipeline}")
}

/// Returns the subject in BLOCKS for cancellations of one pipeline. Cancellations have their own subject
/// because a backlog of blocks must not delay them.
pub fn cancel(pipeline: &PipelineId) -> String {
    format!("{ROOT}.cancel.{pipeline}")
}

/// Returns the pipeline in a subject of BLOCKS; `None` for other subjects.
pub fn pipeline_of_block(subject: &str) -> Option<PipelineId> {
    let rest = subject.strip_prefix(ROOT)?;
    let name = rest
        .strip_prefix(".block.")
        .or_else(|| rest.strip_prefix(".cancel."))?;
    name.parse().ok()
}

/// Returns the subject in STAGES for ready work. A whole stage is named by its first index.
pub fn stage(attempt: &AttemptKey) -> String {
    format!("{ROOT}.stage.{attempt}")
}

/// Returns the subject in TASKS for one attempt.
pub fn task(attempt: &AttemptKey) -> String {
    format!("{ROOT}.task.{attempt}")
}

/// Returns the filter for all attempts in TASKS on one zkVM.
pub fn tasks_of_zkvm(zkvm: &ZkvmId) -> String {
    format!("{ROOT}.task.{zkvm}.>")
}

/// Returns the filter for all attempts of one pipeline, on any zkVM, among subjects of one kind.
pub fn attempts_of_pipeline(kind: Kind, pipeline: &PipelineId) -> String {
    format!("{ROOT}.{}.*.{pipeline}.>", kind.as_str())
}

/// Returns the filter for all attempts for one block, on any zkVM, among subjects of one kind.
pub fn attempts_of_block(kind: Kind, pipeline: &PipelineId, block: BlockKey) -> String {
    format!("{ROOT}.{}.*.{pipeline}.{block}.>", kind.as_str())
}

/// Returns the subject in CHECKS for a completed attempt waiting for a verifier.
pub fn check(attempt: &AttemptKey) -> String {
    format!("{ROOT}.check.{attempt}")
}

/// Returns the filter for all attempts in CHECKS waiting for verifiers of one zkVM.
pub fn checks_of_zkvm(zkvm: &ZkvmId) -> String {
    format!("{ROOT}.check.{zkvm}.>")
}

/// Returns the subject in RESULTS for the end of an attempt.
pub fn result(attempt: &AttemptKey) -> String {
    format!("{ROOT}.result.{attempt}")
}

/// Returns the subject in RESULTS for a verifier's verdict on a completed attempt. Provers have no
/// permission to publish on it. A proof that must be verified counts only if it arrives on this subject.
pub fn verdict(attempt: &AttemptKey) -> String {
    format!("{ROOT}.verdict.{attempt}")
}

/// Returns the filters for everything in RESULTS about one pipeline.
pub fn results_of_pipeline(pipeline: &PipelineId) -> Vec<String> {
    vec![
        format!("{ROOT}.result.*.{pipeline}.>"),
        format!("{ROOT}.verdict.*.{pipeline}.>"),
        ended(pipeline),
    ]
}

/// Returns the subject in RESULTS for blocks of one pipeline that end without a proof.
pub fn ended(pipeline: &PipelineId) -> String {
    format!("{ROOT}.ended.{pipeline}")
}

/// Returns the subject in LEASES for the heartbeats of one prover or verifier.
pub fn lease(zkvm: &ZkvmId, prover: &ProverId) -> String {
    format!("{ROOT}.lease.{zkvm}.{prover}")
}

/// Returns the subject in CONTROL for orders to one prover or verifier.
pub fn control(prover: &ProverId) -> String {
    format!("{ROOT}.control.{prover}")
}

/// Returns the subject in PROOFS for the record of one block. The record of a range has the number of
/// its last block.
pub fn proof(pipeline: &PipelineId, number: u64) -> String {
    format!("{ROOT}.proof.{pipeline}.{number}")
}

/// Returns the filter for all records of one pipeline in PROOFS.
pub fn proofs_of_pipeline(pipeline: &PipelineId) -> String {
    format!("{ROOT}.proof.{pipeline}.*")
}

/// Returns the number in the subject of a record; `None` for other subjects.
pub fn number_of_proof(subject: &str) -> Option<u64> {
    let rest = subject.strip_prefix(ROOT)?.strip_prefix(".proof.")?;
    rest.rsplit_once('.')?.1.parse().ok()
}

/// Returns the key of the ingester's facts about a block. Number and hash are separate tokens, so
/// [`known_blocks`] can select all blocks of a number.
pub fn known_block(pipeline: &PipelineId, block: &BlockRef) -> String {
    let [a, b, c, d, ..] = block.hash.0;
    format!("{pipeline}.{}.{}", block.number, hex::encode([a, b, c, d]))
}

/// Returns the filter for the keys of the ingester's facts about all blocks of one number. After a reorg
/// there are several.
pub fn known_blocks(pipeline: &PipelineId, number: u64) -> String {
    format!("{pipeline}.{number}.*")
}

/// Returns the subject of a dead letter in DEAD. `pipeline` is `None` for a message that could not be read
/// or acted on.
pub fn dead(pipeline: Option<&PipelineId>, id: &str) -> String {
    format!("{ROOT}.dead.{}.{id}", pipeline.map_or("_", PipelineId::as_str))
}

/// Returns the subject of an event in EVENTS. `pipeline` is `None` for events not about a single pipeline.
pub fn event(pipeline: Option<&PipelineId>, kind: &str) -> String {
    format!("{ROOT}.event.{}.{kind}", pipeline.map_or("_", PipelineId::as_str))
}

/// Returns the subject on which the leader of a role listens while it is connected. No stream stores this
/// subject, and no message is ever published on it: the subscription itself is the signal.
pub fn leader(role: &str) -> String {
    format!("{ROOT}.leader.{role}")
}

/// Returns the filter for all subjects of one kind, as streams are declared: for tasks, `push0.v1.task.>`.
pub fn all(kind: Kind) -> String {
    format!("{ROOT}.{}.>", kind.as_str())
}
