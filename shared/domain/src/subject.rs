//! Every subject of the bus: the only module that formats or parses one.
//!
//! A subject routes, filters and de-duplicates; what a message says stands in its body.

use crate::{
    BlockKey, BlockRef, PipelineId, ProofType, ProverId, StageName, ZkvmId, id::InvalidId, task::AttemptId,
};
use std::fmt;

/// The root of all subjects; a change of the protocol that old services cannot read changes it.
pub const ROOT: &str = "push0.v1";

/// Why a subject was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{subject}` is not a subject of {kind}: {reason}")]
pub struct InvalidSubject {
    subject: String,
    kind: &'static str,
    reason: String,
}

/// What a subject is about: its first token after the root.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Blocks to prove.
    Block,
    /// Blocks that are no longer wanted.
    Cancel,
    /// Stages and attempts that are ready.
    Stage,
    /// Released attempts.
    Task,
    /// Completed attempts that wait for a verifier.
    Check,
    /// Ends of attempts, as provers and the watchdog report them.
    Result,
    /// Ends of attempts, as verifiers report them.
    Verdict,
    /// Blocks that need no proof any more.
    Ended,
    /// Heartbeats.
    Lease,
    /// Orders.
    Control,
    /// The ordered output.
    Proof,
    /// Dead letters.
    Dead,
    /// What happened.
    Event,
}

impl Kind {
    /// All of them.
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

    /// The token.
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

    /// What a subject is about; none if it is not one of push0's.
    pub fn of(subject: &str) -> Option<Self> {
        let token = subject.strip_prefix(ROOT)?.strip_prefix('.')?.split('.').next()?;
        Self::ALL.into_iter().find(|kind| kind.as_str() == token)
    }
}

/// An attempt as subjects name it: by block key instead of the full hash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptKey {
    /// The proof system.
    pub zkvm: ZkvmId,
    /// The pipeline.
    pub pipeline: PipelineId,
    /// The block.
    pub block: BlockKey,
    /// Which of the pipeline's proofs.
    pub proof_type: ProofType,
    /// The stage.
    pub stage: StageName,
    /// The task's index in it.
    pub index: u32,
    /// The attempt's number.
    pub attempt: u32,
}

impl AttemptKey {
    /// The key of an attempt on `zkvm`.
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

    /// The attempt that a subject of STAGES, TASKS, CHECKS or RESULTS names.
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

/// BLOCKS: blocks of one pipeline.
pub fn block(pipeline: &PipelineId) -> String {
    format!("{ROOT}.block.{pipeline}")
}

/// BLOCKS: blocks of one pipeline that are no longer wanted. A subject of its own, so that no backlog of
/// blocks delays a cancel.
pub fn cancel(pipeline: &PipelineId) -> String {
    format!("{ROOT}.cancel.{pipeline}")
}

/// The pipeline that a subject of BLOCKS names.
pub fn pipeline_of_block(subject: &str) -> Option<PipelineId> {
    let rest = subject.strip_prefix(ROOT)?;
    let name = rest
        .strip_prefix(".block.")
        .or_else(|| rest.strip_prefix(".cancel."))?;
    name.parse().ok()
}

/// STAGES: work that is ready. The attempt of a whole stage names its first index.
pub fn stage(attempt: &AttemptKey) -> String {
    format!("{ROOT}.stage.{attempt}")
}

/// TASKS: one attempt.
pub fn task(attempt: &AttemptKey) -> String {
    format!("{ROOT}.task.{attempt}")
}

/// TASKS: all attempts on one zkVM.
pub fn tasks_of_zkvm(zkvm: &ZkvmId) -> String {
    format!("{ROOT}.task.{zkvm}.>")
}

/// All attempts of one pipeline, on any zkVM, as one kind of subject names them.
pub fn attempts_of_pipeline(kind: Kind, pipeline: &PipelineId) -> String {
    format!("{ROOT}.{}.*.{pipeline}.>", kind.as_str())
}

/// All attempts for one block, on any zkVM, as one kind of subject names them.
pub fn attempts_of_block(kind: Kind, pipeline: &PipelineId, block: BlockKey) -> String {
    format!("{ROOT}.{}.*.{pipeline}.{block}.>", kind.as_str())
}

/// CHECKS: a completed attempt that waits for a verifier.
pub fn check(attempt: &AttemptKey) -> String {
    format!("{ROOT}.check.{attempt}")
}

/// CHECKS: all that waits for verifiers of one zkVM.
pub fn checks_of_zkvm(zkvm: &ZkvmId) -> String {
    format!("{ROOT}.check.{zkvm}.>")
}

/// RESULTS: how an attempt ended.
pub fn result(attempt: &AttemptKey) -> String {
    format!("{ROOT}.result.{attempt}")
}

/// RESULTS: how a completed attempt fared with its verifier. Provers may not publish here, so a
/// proof that must be verified counts only if it comes this way.
pub fn verdict(attempt: &AttemptKey) -> String {
    format!("{ROOT}.verdict.{attempt}")
}

/// RESULTS: all that ends attempts and blocks of one pipeline.
pub fn results_of_pipeline(pipeline: &PipelineId) -> Vec<String> {
    vec![
        format!("{ROOT}.result.*.{pipeline}.>"),
        format!("{ROOT}.verdict.*.{pipeline}.>"),
        ended(pipeline),
    ]
}

/// RESULTS: blocks of one pipeline that need no proof any more.
pub fn ended(pipeline: &PipelineId) -> String {
    format!("{ROOT}.ended.{pipeline}")
}

/// LEASES: the heartbeats of one prover.
pub fn lease(zkvm: &ZkvmId, prover: &ProverId) -> String {
    format!("{ROOT}.lease.{zkvm}.{prover}")
}

/// CONTROL: orders to one prover.
pub fn control(prover: &ProverId) -> String {
    format!("{ROOT}.control.{prover}")
}

/// PROOFS: the record of one block.
pub fn proof(pipeline: &PipelineId, number: u64) -> String {
    format!("{ROOT}.proof.{pipeline}.{number}")
}

/// PROOFS: the output of one pipeline, in order.
pub fn proofs_of_pipeline(pipeline: &PipelineId) -> String {
    format!("{ROOT}.proof.{pipeline}.*")
}

/// The number in the subject of a record.
pub fn number_of_proof(subject: &str) -> Option<u64> {
    let rest = subject.strip_prefix(ROOT)?.strip_prefix(".proof.")?;
    rest.rsplit_once('.')?.1.parse().ok()
}

/// The key of what the ingester wrote about a block: number and hash are tokens of their own, so that
/// [`known_blocks`] finds the blocks of a number.
pub fn known_block(pipeline: &PipelineId, block: &BlockRef) -> String {
    let [a, b, c, d, ..] = block.hash.0;
    format!("{pipeline}.{}.{}", block.number, hex::encode([a, b, c, d]))
}

/// The keys of what the ingester wrote about all blocks of a number: several after a reorg.
pub fn known_blocks(pipeline: &PipelineId, number: u64) -> String {
    format!("{pipeline}.{number}.*")
}

/// DEAD: one dead letter of a pipeline, or of no pipeline if its message could not be read.
pub fn dead(pipeline: Option<&PipelineId>, id: &str) -> String {
    format!("{ROOT}.dead.{}.{id}", pipeline.map_or("_", PipelineId::as_str))
}

/// EVENTS: what happened, for whoever watches: to a pipeline, or to what serves all of them.
pub fn event(pipeline: Option<&PipelineId>, kind: &str) -> String {
    format!("{ROOT}.event.{}.{kind}", pipeline.map_or("_", PipelineId::as_str))
}

/// Where the leader of a role listens, and nothing is ever said. No stream keeps it.
pub fn leader(role: &str) -> String {
    format!("{ROOT}.leader.{role}")
}

/// Everything of one kind, as streams are declared: of tasks, `push0.v1.task.>`.
pub fn all(kind: Kind) -> String {
    format!("{ROOT}.{}.>", kind.as_str())
}
