//! Bodies about a single block, pipeline or letter, and those of requests and refusals.

use super::live::{Block, Pipeline};
use serde::Serialize;
use utoipa::ToSchema;

/// A block with its story.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct BlockDetail {
    /// The block as snapshots show it.
    #[serde(flatten)]
    pub block: Block,
    /// The hash of the block before it.
    pub parent_hash: Option<String>,
    /// The id of the block's trace.
    pub trace_id: Option<String>,
    /// The address that shows the trace.
    pub trace_url: Option<String>,
    /// Sentences in the order of time.
    pub story: Vec<String>,
    /// The pieces of its time, each within the one that it names as parent.
    pub spans: Vec<Span>,
    /// The attempts, oldest first.
    pub attempts_list: Vec<AttemptView>,
    /// The proofs in the block's record.
    pub proofs: Vec<ProofView>,
    /// Where its time went until its record was stored; `null` without a proof.
    pub account: Option<Account>,
    /// The stages on its critical path, from the first to the final one.
    pub legs: Vec<Leg>,
    /// The dead letters about the block.
    pub letters: Vec<Letter>,
}

/// A piece of a block's time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Span {
    /// Unique within the block.
    pub id: String,
    /// The span around it.
    pub parent: Option<String>,
    /// The proof, stage, attempt or wait that the span is about.
    pub name: String,
    /// `block`, `proof`, `stage`, `attempt`, `wait`, `transfer`, `verify` or `order`.
    pub kind: &'static str,
    /// When it began.
    pub start: u64,
    /// When it ended; `null` while it goes on.
    pub end: Option<u64>,
    /// The prover or verifier.
    pub prover: Option<String>,
    /// How it ended.
    pub outcome: Option<String>,
    /// More in words.
    pub note: Option<String>,
}

/// An attempt of a block.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct AttemptView {
    /// The attempt as subjects name it.
    pub key: String,
    /// The type of the proof.
    pub proof: String,
    /// The stage's name.
    pub stage: String,
    /// The task's index in its stage.
    pub index: u32,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// The zkVM whose provers take it.
    pub zkvm: String,
    /// The prover that took the attempt.
    pub prover: Option<String>,
    /// `released`, `running`, `checking`, `done`, `failed`, `died` or `stopped`.
    pub state: &'static str,
    /// The number of the attempt that this one races.
    pub hedge_of: Option<u32>,
    /// When it was released.
    pub released_at: Option<u64>,
    /// When it began.
    pub started_at: Option<u64>,
    /// When it ended.
    pub ended_at: Option<u64>,
    /// How long the prover computed.
    pub prove_us: Option<u64>,
    /// How long its inputs and outputs were in transfer.
    pub transfer_us: Option<u64>,
    /// How long its output was verified.
    pub verify_us: Option<u64>,
    /// The verifier of its output.
    pub verifier: Option<String>,
    /// The class of its failure.
    pub class: Option<String>,
    /// The message of its failure, with the end of its log.
    pub message: Option<String>,
    /// How far it is, from 0 to 1.
    pub progress: Option<f64>,
}

/// A proof of a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct ProofView {
    /// The type of the proof.
    #[serde(rename = "type")]
    pub proof_type: String,
    /// The zkVM that made the proof.
    pub zkvm: String,
    /// The program that it is about.
    pub program_id: Option<String>,
    /// The prover that made the proof.
    pub prover: String,
    /// The verifier that checked the proof; `null` without verification.
    pub verifier: Option<String>,
    /// The size of the proof in bytes.
    pub bytes: u64,
    /// The first bytes of the proof as hex digits; empty for a proof in the blob store.
    pub hex_prefix: String,
}

/// Where the time of a block went. All parts together are `total_us`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Account {
    /// From the readiness of its first stage to the storing of its record.
    pub total_us: u64,
    /// In provers and verifiers, and waiting for them.
    pub parts: Parts,
    /// Waiting for the other blocks of its range.
    pub range_us: u64,
    /// Waiting for the records of earlier blocks.
    pub order_us: u64,
    /// push0's own time.
    pub own_us: u64,
}

/// A stage on the critical path of a block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Leg {
    /// The stage's name.
    pub stage: String,
    /// When the stage was ready.
    pub ready_at: u64,
    /// When its last result was stored.
    pub ended_at: u64,
    /// The prover of that result.
    pub prover: String,
    /// The verifier of that result; `null` without verification.
    pub verifier: Option<String>,
    /// How many attempts failed before.
    pub failed: u32,
    /// The parts of the time that are not push0's own.
    pub parts: Parts,
    /// push0's own time.
    pub own_us: u64,
}

/// Time of a stage or a block in provers and verifiers, and waiting for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Parts {
    /// Until the last failed attempt ended, or a second copy or a retry was asked for.
    pub failed_us: u64,
    /// Waiting for a free prover, for the pause after a failure, or for the output to come near.
    pub waited_us: u64,
    /// Reading of inputs and storing of outputs.
    pub transfer_us: u64,
    /// Proving.
    pub prove_us: u64,
    /// Waiting for a free verifier that can tell.
    pub check_waited_us: u64,
    /// Verification.
    pub verify_us: u64,
}

/// A pipeline with its definition.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct PipelineDetail {
    /// The pipeline as snapshots show it.
    #[serde(flatten)]
    pub pipeline: Pipeline,
    /// The current definition as JSON text.
    pub definition: String,
    /// The stages as a graph.
    pub graph: Graph,
    /// The newest revisions of the definition, newest first.
    pub revisions: Vec<Revision>,
}

/// The stages of a pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Graph {
    /// One node for each stage.
    pub nodes: Vec<Node>,
    /// Which stage reads which.
    pub edges: Vec<Edge>,
}

/// A stage in a graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Node {
    /// `PROOF.STAGE`.
    pub id: String,
    /// The type of the proof.
    pub proof: String,
    /// The stage's name.
    pub stage: String,
    /// The zkVM that runs the stage.
    pub zkvm: String,
    /// `split`, `map`, `join` or `range`.
    pub kind: &'static str,
    /// How many inputs a task of a tree takes.
    pub arity: Option<u32>,
}

/// An edge of a graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Edge {
    /// The stage that writes.
    pub from: String,
    /// The stage that reads.
    pub to: String,
}

/// A revision of a definition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Revision {
    /// The revision's number, from 1.
    pub revision: u32,
    /// The definition as JSON text.
    pub definition: String,
}

/// A dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Letter {
    /// The letter's id, as `push0 dead list` shows it.
    pub id: String,
    /// The pipeline of its block; `null` for an unreadable message.
    pub pipeline: Option<String>,
    /// When it was written.
    pub at: u64,
    /// `task` or `message`.
    pub kind: &'static str,
    /// The number of its block.
    pub block: Option<u64>,
    /// The hash of its block.
    pub hash: Option<String>,
    /// The stage that failed.
    pub stage: Option<String>,
    /// Why it was written.
    pub reason: String,
    /// The last failed attempts, at most 5.
    pub attempts: Vec<LetterAttempt>,
    /// Whether a retry can help.
    pub can_retry: bool,
}

/// A failed attempt in a dead letter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct LetterAttempt {
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// The prover that took the attempt.
    pub prover: String,
    /// The class of its failure.
    pub class: &'static str,
    /// The end of the message of its failure.
    pub message: String,
}

/// Body of every refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Refusal {
    /// What is wrong, as a sentence.
    pub error: String,
    /// What to do.
    pub hint: Option<String>,
}

/// The rights of the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Session {
    /// `read` or `operate`.
    pub role: &'static str,
    /// Whether the gateway asks for tokens.
    pub auth: bool,
    /// The gateway's version.
    pub version: &'static str,
    /// Where traces are shown.
    pub jaeger_url: Option<String>,
}

/// A request to cancel blocks.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CancelRequest {
    /// The first number.
    pub first: u64,
    /// The last number, inclusive.
    pub last: u64,
    /// The reason, which the records keep.
    pub note: String,
}

/// The answer to an action that succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Done {
    /// The effect of the action, as a sentence.
    pub done: String,
}
