//! Bodies of snapshots and changes. Times are milliseconds since the Unix epoch, durations milliseconds unless a
//! name ends in `_us`.

use push0_domain::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

/// The whole state, as a client gets it first.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Snapshot {
    /// The id of the last change in this snapshot; the `Last-Event-ID` to continue from.
    pub id: String,
    /// When the snapshot was made.
    pub at: u64,
    /// Whether the deployment is well.
    pub verdict: Verdict,
    /// Every pipeline with a current definition.
    pub pipelines: Vec<Pipeline>,
    /// Every zkVM that a pipeline or a prover names.
    pub zkvms: Vec<Zkvm>,
    /// Every prover and verifier that was heard lately.
    pub provers: Vec<Prover>,
    /// The blocks next to each output and the newest ones with a record: at most 1,000, and fewer of pipelines with
    /// many stages.
    pub blocks: Vec<Block>,
    /// Fill levels of the broker's streams.
    pub streams: Vec<StreamLevel>,
}

/// Entities that changed since the event before. Each replaces the entity of the same key.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Change {
    /// When the change was made.
    pub at: u64,
    /// The verdict, if it changed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<Verdict>,
    /// Changed pipelines, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pipelines: Vec<Pipeline>,
    /// Changed zkVMs, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub zkvms: Vec<Zkvm>,
    /// Changed provers and verifiers, by zkVM, id and role.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub provers: Vec<Prover>,
    /// Changed blocks, by pipeline, number and hash.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub blocks: Vec<Block>,
    /// Fill levels, if they were read again.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub streams: Vec<StreamLevel>,
    /// Entities to remove.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gone: Option<Gone>,
    /// Whether so much changed that clients start over from a snapshot.
    #[serde(skip)]
    pub is_too_long: bool,
}

impl Change {
    /// Returns whether nothing changed.
    pub fn is_empty(&self) -> bool {
        let Self {
            at: _,
            verdict,
            pipelines,
            zkvms,
            provers,
            blocks,
            streams,
            gone,
            is_too_long,
        } = self;
        !is_too_long
            && verdict.is_none()
            && gone.is_none()
            && pipelines.is_empty()
            && zkvms.is_empty()
            && provers.is_empty()
            && blocks.is_empty()
            && streams.is_empty()
    }
}

/// Entities that a client should forget.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
pub struct Gone {
    /// Provers and verifiers, by zkVM, id and role.
    pub provers: Vec<(String, String, &'static str)>,
    /// Blocks, by pipeline, number and hash.
    pub blocks: Vec<(String, u64, String)>,
}

/// Whether the deployment is well, and what is wrong if it is not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Verdict {
    /// Whether there is no problem.
    pub ok: bool,
    /// What is wrong, the most basic first.
    pub problems: Vec<Problem>,
    /// What a person should know although nothing is wrong.
    pub remarks: Vec<Problem>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Problem {
    /// Since when, if known.
    pub since: Option<u64>,
    /// The problem as a sentence.
    pub text: String,
    /// Path of the page about it.
    pub link: Option<String>,
}

/// The fill level of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct StreamLevel {
    /// The stream's name.
    pub name: String,
    /// The number of its messages.
    pub messages: u64,
    /// Its size in bytes.
    pub bytes: u64,
    /// The most bytes that it may hold.
    pub bytes_max: u64,
}

/// A pipeline and how far its output has come.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Pipeline {
    /// The pipeline's name.
    pub name: String,
    /// The current revision of its definition.
    pub revision: u32,
    /// The zkVMs, policy, quorum and source in one line.
    pub policy: String,
    /// The number to emit next.
    pub next: Option<u64>,
    /// The newest ingested number.
    pub head: Option<u64>,
    /// How many ingested blocks have no record.
    pub lag: Option<u64>,
    /// Since when `next` has not moved although it was observed, if that is five minutes or more.
    pub stalled_since: Option<u64>,
    /// How long after its observation a block must be proved.
    pub deadline_ms: Option<u64>,
    /// Times from announcement to record of the last proved blocks, oldest first, at most 200.
    pub latencies_ms: Vec<u64>,
    /// Blocks proved within the last minute.
    pub proved_per_min: u64,
    /// Dead blocks among the records that this gateway has read.
    pub dead: u64,
    /// Abandoned blocks among the records that this gateway has read.
    pub abandoned: u64,
}

/// The queue of a zkVM and its fleet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Zkvm {
    /// The zkVM's name.
    pub name: String,
    /// Provers that are heard.
    pub provers: usize,
    /// Verifiers that are heard.
    pub verifiers: usize,
    /// Attempts that the provers can run at once.
    pub slots: u64,
    /// Attempts that run.
    pub busy: usize,
    /// Tasks that wait for their release.
    pub waiting: usize,
    /// Released attempts that no prover has begun.
    pub released: usize,
    /// Proofs that wait for a verdict.
    pub checks: usize,
    /// How long the oldest of the waiting tasks and released attempts has waited.
    pub oldest_wait_ms: Option<u64>,
    /// Why the queue is held, if it is.
    pub held: Option<Hold>,
}

/// Why a queue is held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Hold {
    /// When the first failure was noticed.
    pub since: u64,
    /// Failures since then.
    pub failures: u32,
    /// The last error.
    pub error: String,
    /// The task that fails alone, in words, while other tasks go on; `null` if all tasks wait.
    pub task: Option<String>,
}

/// A prover or verifier.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Prover {
    /// The id in the prover's subjects.
    pub id: String,
    /// The zkVM whose tasks or checks it takes.
    pub zkvm: String,
    /// `prover` or `verifier`.
    pub role: &'static str,
    /// How many attempts it runs at once.
    pub slots: u32,
    /// `active`, `draining`, `quarantined`, `suspected` or `gone`.
    pub state: &'static str,
    /// The machine's name, if the adapter tells it.
    pub host: Option<String>,
    /// When it was heard last.
    pub heard_at: u64,
    /// When its quarantine ends.
    pub quarantined_until: Option<u64>,
    /// Attempts completed since this gateway started.
    pub done: u64,
    /// Attempts failed since this gateway started.
    pub failed: u64,
    /// Median time of its last attempts.
    pub p50_ms: Option<u64>,
    /// Deliveries that it holds, at most 256, of a large fleet fewer.
    pub held: Vec<HeldAttempt>,
    /// The last attempts that ended, oldest first, at most 50, of a large fleet fewer.
    pub recent: Vec<PastAttempt>,
}

/// A delivery that a prover holds.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct HeldAttempt {
    /// The attempt as subjects name it.
    pub key: String,
    /// The pipeline of its block.
    pub pipeline: String,
    /// The number of its block.
    pub block: u64,
    /// The stage of its task.
    pub stage: String,
    /// How long it has run; `null` while it waits for a slot.
    pub running_ms: Option<u64>,
    /// How far it is, from 0 to 1, if the adapter says so.
    pub progress: Option<f64>,
}

/// An attempt that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct PastAttempt {
    /// The pipeline of its block.
    pub pipeline: String,
    /// The number of its block.
    pub block: u64,
    /// The stage of its task.
    pub stage: String,
    /// When it began.
    pub started_at: u64,
    /// When it ended.
    pub ended_at: u64,
    /// `done`, `failed`, `died` or `stopped`.
    pub outcome: &'static str,
}

/// A block or range.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Block {
    /// The pipeline's name.
    pub pipeline: String,
    /// The block's number; for a range, the number of its last block.
    pub number: u64,
    /// The block's hash, or the first 4 bytes if this gateway knows no more.
    pub hash: String,
    /// The first number of a range; `null` for a single block.
    pub first: Option<u64>,
    /// When it was announced.
    pub at: u64,
    /// When its proof becomes worthless.
    pub deadline_at: Option<u64>,
    /// The number of transactions in the block.
    pub transactions: u32,
    /// Gas that the block used.
    pub gas: u64,
    /// `waiting`, `proving`, `verifying`, `joining`, `proved`, `held`, `dead`, `abandoned` or `replaced`.
    pub state: &'static str,
    /// The reason for its state, as a sentence.
    pub waits_for: String,
    /// When its record was stored.
    pub recorded_at: Option<u64>,
    /// Why it got no proof.
    pub reason: Option<String>,
    /// The range that it is a part of.
    pub range: Option<RangeOf>,
    /// The progress of its stages, in the order of the definition.
    pub stages: Vec<StageProgress>,
    /// The number of its attempts.
    pub attempts: usize,
    /// How many of them failed.
    pub failures: usize,
    /// The prover of its proof, or of an attempt that runs.
    pub prover: Option<String>,
    /// The size of its proof.
    pub proof_bytes: Option<u64>,
    /// push0's own part of the time until its record.
    pub overhead_us: Option<i64>,
}

/// First and last number of a range.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct RangeOf {
    /// The first number.
    pub first: u64,
    /// The last number.
    pub last: u64,
}

/// Progress of one stage of a block.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct StageProgress {
    /// The type of the proof.
    pub proof: String,
    /// The stage's name.
    pub stage: String,
    /// `split`, `map`, `join` or `range`.
    pub kind: &'static str,
    /// The number of its tasks, as far as known.
    pub of: u32,
    /// Tasks with a completed attempt.
    pub done: u32,
    /// Tasks with an attempt that runs.
    pub running: u32,
    /// Attempts that failed, died or were stopped.
    pub failed: u32,
    /// Tasks whose output waits for a verdict.
    pub checking: u32,
    /// How far the attempts that run are, from 0 to 1.
    pub progress: Option<f64>,
}

/// Returns an instant in milliseconds.
pub(crate) fn millis(at: Timestamp) -> u64 {
    at.0 / 1_000
}
