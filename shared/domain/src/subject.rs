//! All subjects of the bus. No other module formats or parses a subject.
//!
//! Subjects serve routing, filtering and deduplication. The content of a message is in its body.

use crate::{
    BlockKey, Participant, PipelineId, ProofType, ProverId, StageName, ZkvmId, id::InvalidId, task::AttemptId,
};
use serde::{Deserialize, Serialize};
use std::fmt;

mod attempt_text;
pub mod blobs;
pub mod facts;
pub mod participant;

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
    /// Events for dashboards and people, from services (stream EVENTS).
    Event,
    /// Events for dashboards and people, from verifiers (stream EVENTS).
    Notice,
    /// Parts of large payloads (the stream of blobs).
    Blob,
}

impl Kind {
    /// All kinds, in the order of declaration.
    pub const ALL: [Self; 15] = [
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
        Self::Notice,
        Self::Blob,
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
            Self::Notice => "notice",
            Self::Blob => "blob",
        }
    }

    /// Returns whether subjects of the kind name who speaks, right after the zkVM. The permissions of a participant fix
    /// both tokens.
    fn names_speaker(self) -> bool {
        matches!(self, Self::Check | Self::Result | Self::Verdict)
    }

    /// Returns whether subjects of the kind end with the public key of the prover that speaks, or with `_`.
    fn names_key(self) -> bool {
        matches!(self, Self::Check | Self::Result)
    }

    /// Returns the tokens that select every zkVM, and every speaker if subjects of the kind name one.
    fn anybody(self) -> &'static str {
        if self.names_speaker() { "*.*" } else { "*" }
    }

    /// Returns the kind of a subject; `None` if the subject is not one of push0's.
    pub fn of(subject: &str) -> Option<Self> {
        let token = subject.strip_prefix(ROOT)?.strip_prefix('.')?.split('.').next()?;
        Self::ALL.into_iter().find(|kind| kind.as_str() == token)
    }
}

/// An attempt as subjects name it: with a block key instead of the full hash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
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

    /// Parses the subject of an attempt. Fails if the subject is not of the kind `kind`, and for kinds whose subjects
    /// name who speaks: see [`Report::parse`].
    pub fn parse(subject: &str, kind: Kind) -> Result<Self, InvalidSubject> {
        let invalid = |reason: String| InvalidSubject::new(subject, kind, reason);
        if kind.names_speaker() {
            return Err(invalid("it names who speaks".into()));
        }
        Self::parse_tokens(rest_of(subject, kind)?).map_err(invalid)
    }

    /// Parses the tokens of an attempt.
    fn parse_tokens(text: &str) -> Result<Self, String> {
        let tokens: Vec<&str> = text.split('.').collect();
        let [zkvm, pipeline, block, proof_type, stage, index, attempt] = tokens[..] else {
            return Err(format!("expected 7 tokens of an attempt, found {}", tokens.len()));
        };
        let id = |e: InvalidId| e.to_string();
        let number = |text: &str| text.parse::<u32>().map_err(|e| format!("`{text}`: {e}"));
        let key = Self {
            zkvm: zkvm.parse().map_err(id)?,
            pipeline: pipeline.parse().map_err(id)?,
            block: block
                .parse()
                .map_err(|e: crate::block::InvalidBlock| e.to_string())?,
            proof_type: proof_type.parse().map_err(id)?,
            stage: stage.parse().map_err(id)?,
            index: number(index)?,
            attempt: number(attempt)?,
        };
        // `+1` and `01` parse as numbers but would be second spellings of one attempt.
        if key.to_string() == text {
            Ok(key)
        } else {
            Err("not in its one spelling".into())
        }
    }

    /// Returns the tokens of the attempt after its zkVM.
    fn rest(&self) -> String {
        let Self {
            zkvm: _,
            pipeline,
            block,
            proof_type,
            stage,
            index,
            attempt,
        } = self;
        format!("{pipeline}.{block}.{proof_type}.{stage}.{index}.{attempt}")
    }
}

/// The token of the watchdog in place of a prover's name. No id may be this text.
const WATCHDOG: &str = "_";
/// Most characters of a dead letter's id: the id is a stream's name and a sequence, or digits of a hash.
const DEAD_ID_LEN_MAX: usize = 64;
/// The token in place of a public key: the speaker has none, or none is asked for.
const NO_KEY: &str = "_";

/// A report on an attempt, as its subject names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Report {
    /// The prover or verifier that speaks; `None` for the watchdog, which reports in place of a prover.
    pub speaker: Option<ProverId>,
    /// The attempt that the report is about.
    pub attempt: AttemptKey,
    /// The public key of a prover, which its permissions fix. `None` on a broker without accounts, for the watchdog, and
    /// for a verdict.
    pub key: Option<String>,
}

impl Report {
    /// Parses the subject of a check, a result or a verdict. Fails if the subject is not of the kind `kind`.
    pub fn parse(subject: &str, kind: Kind) -> Result<Self, InvalidSubject> {
        let invalid = |reason: String| InvalidSubject::new(subject, kind, reason);
        let rest = rest_of(subject, kind)?;
        let (rest, key) = match rest.rsplit_once('.') {
            Some((rest, key)) if kind.names_key() => (rest, (key != NO_KEY).then(|| key.to_owned())),
            _ => (rest, None),
        };
        let mut tokens = rest.splitn(3, '.');
        let (Some(zkvm), Some(speaker), Some(rest)) = (tokens.next(), tokens.next(), tokens.next()) else {
            return Err(invalid("expected the zkVM, the speaker and an attempt".into()));
        };
        let speaker = match speaker {
            WATCHDOG if kind == Kind::Result && key.is_none() => None,
            name => Some(name.parse().map_err(|e: InvalidId| invalid(e.to_string()))?),
        };
        let attempt = AttemptKey::parse_tokens(&format!("{zkvm}.{rest}")).map_err(invalid)?;
        Ok(Self {
            speaker,
            attempt,
            key,
        })
    }
}

/// Returns the attempt that a subject of this kind is about, whether or not it names a speaker; `None` for other subjects.
pub fn attempt_of(subject: &str, kind: Kind) -> Option<AttemptKey> {
    if kind.names_speaker() {
        Report::parse(subject, kind).ok().map(|report| report.attempt)
    } else {
        AttemptKey::parse(subject, kind).ok()
    }
}

/// Returns the subject of a report.
fn report(kind: Kind, speaker: &str, attempt: &AttemptKey, key: &str) -> String {
    let (name, zkvm) = (kind.as_str(), &attempt.zkvm);
    let subject = format!("{ROOT}.{name}.{zkvm}.{speaker}.{}", attempt.rest());
    if kind.names_key() {
        format!("{subject}.{key}")
    } else {
        subject
    }
}

impl InvalidSubject {
    fn new(subject: &str, kind: Kind, reason: String) -> Self {
        Self {
            subject: subject.chars().take(300).collect(),
            kind: kind.as_str(),
            reason,
        }
    }
}

/// Returns the tokens of a subject after its kind.
fn rest_of(subject: &str, kind: Kind) -> Result<&str, InvalidSubject> {
    let name = kind.as_str();
    let rest = subject
        .strip_prefix(ROOT)
        .and_then(|s| s.strip_prefix('.'))
        .and_then(|s| s.strip_prefix(name))
        .and_then(|s| s.strip_prefix('.'));
    rest.ok_or_else(|| {
        let reason = format!("expected it to start with {ROOT}.{name}.");
        InvalidSubject::new(subject, kind, reason)
    })
}

impl fmt::Display for AttemptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.zkvm, self.rest())
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
    format!("{ROOT}.{}.{}.{pipeline}.>", kind.as_str(), kind.anybody())
}

/// Returns the filter for all attempts for one block, on any zkVM, among subjects of one kind.
pub fn attempts_of_block(kind: Kind, pipeline: &PipelineId, block: BlockKey) -> String {
    format!("{ROOT}.{}.{}.{pipeline}.{block}.>", kind.as_str(), kind.anybody())
}

/// Returns the subject in CHECKS for a completed attempt of a prover, waiting for a verifier. `key` is the public key that
/// signed the attempt.
pub fn check(prover: &ProverId, attempt: &AttemptKey, key: Option<&str>) -> String {
    report(Kind::Check, prover.as_str(), attempt, key.unwrap_or(NO_KEY))
}

/// Returns the filter for all attempts in CHECKS waiting for verifiers of one zkVM.
pub fn checks_of_zkvm(zkvm: &ZkvmId) -> String {
    format!("{ROOT}.check.{zkvm}.>")
}

/// Returns the subject in RESULTS for the end of an attempt, as its prover reports it. `key` is the public key that signed
/// the attempt.
pub fn result(prover: &ProverId, attempt: &AttemptKey, key: Option<&str>) -> String {
    report(Kind::Result, prover.as_str(), attempt, key.unwrap_or(NO_KEY))
}

/// Returns the subject in RESULTS for the end of an attempt that the watchdog reports in place of a prover.
pub fn result_by_watchdog(attempt: &AttemptKey) -> String {
    report(Kind::Result, WATCHDOG, attempt, NO_KEY)
}

/// Returns the subject in RESULTS for a verifier's verdict on a completed attempt. Provers have no
/// permission to publish on the subject. A proof to be verified counts only on this subject.
pub fn verdict(verifier: &ProverId, attempt: &AttemptKey) -> String {
    report(Kind::Verdict, verifier.as_str(), attempt, NO_KEY)
}

/// Returns the filter for the reports of one kind on an attempt, from any participant.
pub fn reports_of_attempt(kind: Kind, attempt: &AttemptKey) -> String {
    report(kind, "*", attempt, "*")
}

/// Returns the filters for everything in RESULTS about one pipeline.
pub fn results_of_pipeline(pipeline: &PipelineId) -> Vec<String> {
    vec![
        attempts_of_pipeline(Kind::Result, pipeline),
        attempts_of_pipeline(Kind::Verdict, pipeline),
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

/// Returns who sent a lease, by its subject; `None` for other subjects.
pub fn sender_of_lease(subject: &str) -> Option<Participant> {
    let (zkvm, prover) = rest_of(subject, Kind::Lease).ok()?.split_once('.')?;
    let (zkvm, name) = (zkvm.parse().ok()?, prover.parse().ok()?);
    Some(Participant { zkvm, name })
}

/// Returns the subject in CONTROL for orders to one prover or verifier.
pub fn control(to: &Participant) -> String {
    format!("{ROOT}.control.{to}")
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
    let (pipeline, number) = rest_of(subject, Kind::Proof).ok()?.split_once('.')?;
    let (pipeline, number): (PipelineId, u64) = (pipeline.parse().ok()?, number.parse().ok()?);
    // `+1` and `01` parse as numbers but would be second spellings of one record.
    (proof(&pipeline, number) == subject).then_some(number)
}

/// Returns the subject of a dead letter in DEAD. `pipeline` is `None` for a message that could not be read
/// or acted on.
pub fn dead(pipeline: Option<&PipelineId>, id: &str) -> String {
    format!("{ROOT}.dead.{}.{id}", pipeline.map_or("_", PipelineId::as_str))
}

/// Returns the filter for the dead letter of an id, whichever pipeline it is of; `None` if no letter has such an id.
pub fn dead_of_id(id: &str) -> Option<String> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_id = !id.is_empty() && id.len() <= DEAD_ID_LEN_MAX && id.bytes().all(is_token);
    is_id.then(|| format!("{ROOT}.dead.*.{id}"))
}

/// Returns the subject of an event in EVENTS. `pipeline` is `None` for events not about a single pipeline.
pub fn event(pipeline: Option<&PipelineId>, kind: &str) -> String {
    format!("{ROOT}.event.{}.{kind}", pipeline.map_or("_", PipelineId::as_str))
}

/// Returns the subject in EVENTS of an event that a verifier tells.
pub fn notice(verifier: &Participant, kind: &str) -> String {
    format!("{ROOT}.notice.{verifier}.{kind}")
}

/// Returns the filter for all notices of one kind, as [`crate::message::Happening::kind`] names it.
pub fn notices(kind: &str) -> String {
    format!("{ROOT}.notice.*.*.{kind}")
}

/// Returns the verifier that tells a notice, by its subject; `None` for other subjects.
pub fn sender_of_notice(subject: &str) -> Option<Participant> {
    let mut tokens = rest_of(subject, Kind::Notice).ok()?.split('.');
    let (zkvm, name) = (tokens.next()?.parse().ok()?, tokens.next()?.parse().ok()?);
    Some(Participant { zkvm, name })
}

/// Returns the subject on which the leader of a role listens while it is connected. No stream stores this
/// subject, and no message is ever published on it: the subscription itself is the signal.
pub fn leader(role: &str) -> String {
    format!("{ROOT}.leader.{role}")
}

/// Returns the subject on which processes of one name listen and speak to each other. No stream stores this
/// subject. If the broker knows no listener, no process of the name is connected.
pub fn presence(of: &Participant) -> String {
    format!("{ROOT}.presence.{of}")
}

/// Returns the subject on which a single process listens while it is connected, named by its incarnation. No
/// stream stores this subject, and no service answers: the subscription itself is the signal.
pub fn presence_of(of: &Participant, incarnation: u64) -> String {
    format!("{ROOT}.presence.{of}.{incarnation:016x}")
}

/// Returns the filter for all subjects of one kind, as streams are declared: for tasks, `push0.v1.task.>`.
pub fn all(kind: Kind) -> String {
    format!("{ROOT}.{}.>", kind.as_str())
}
