//! STAGES and TASKS: work that is ready, and work that is handed out.

use super::{BlockContext, Claim, Claims};
use crate::{
    Payloads, ProverId, Timestamp, ZkvmId,
    task::{AttemptId, StageKey, TaskId},
};
use serde::{Deserialize, Serialize};

/// STAGES: work that is ready, from the collector (next stage, next attempt) or the watchdog (hedge).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageReady {
    /// The stage.
    pub stage: StageKey,
    /// About the block.
    pub context: BlockContext,
    /// The proof system whose provers take it: its stage's, or the one that has more memory.
    pub zkvm: ZkvmId,
    /// Which of its tasks.
    pub tasks: TaskRange,
    /// The attempt's number: 1, or the next one of a single task.
    pub attempt: u32,
    /// The attempt that this one races, if it is a hedge.
    #[serde(default)]
    pub hedge_of: Option<u32>,
    /// Provers that ended earlier attempts badly: others go first.
    #[serde(default)]
    pub avoid: Vec<ProverId>,
    /// What the tasks read.
    pub inputs: Payloads,
    /// Time spent in provers on the way here, in microseconds (see [`TaskHeader::busy_us`]).
    #[serde(default)]
    pub busy_us: u64,
}

/// Which tasks of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRange {
    /// The first index to release.
    pub first: u32,
    /// How many to release.
    pub count: u32,
    /// How many tasks the stage has in all.
    pub of: u32,
}

/// How a task's inputs relate to its index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageKind {
    /// One task, many outputs.
    Split,
    /// One task per input.
    Map,
    /// All inputs to one task, or a tree of them.
    Join,
    /// The outputs of consecutive blocks to one task.
    Range,
}

/// What identifies and bounds an attempt; provers echo it in results and leases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskHeader {
    /// The task.
    pub id: TaskId,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// The attempt that this one races, if it is a hedge.
    #[serde(default)]
    pub hedge_of: Option<u32>,
    /// The proof system.
    pub zkvm: ZkvmId,
    /// About the block.
    pub context: BlockContext,
    /// The kind of the stage.
    pub kind: StageKind,
    /// How many tasks the stage has in all.
    pub of: u32,
    /// How long an attempt may run, in milliseconds.
    pub timeout_ms: u64,
    /// After how long a second copy is wanted, in milliseconds.
    #[serde(default)]
    pub hedge_after_ms: Option<u64>,
    /// How many attempts may end badly before the task is a dead letter.
    pub attempts_max: u32,
    /// When the block cannot be ready in time any more if this attempt still runs: its deadline, less
    /// what the stages after this one take at least. None without a deadline.
    #[serde(default)]
    pub give_up_at: Option<Timestamp>,
    /// Whether the outputs go to a verifier before they count.
    #[serde(default)]
    pub check: bool,
    /// The pinned program (verifying key), in the zkVM's own text form.
    #[serde(default)]
    pub program_id: Option<String>,
    /// Time spent inside provers and verifiers on the critical path before this task, in
    /// microseconds. A join takes the value of the input that came last. Orchestration overhead is
    /// what remains of a block's time without it.
    #[serde(default)]
    pub busy_us: u64,
}

impl TaskHeader {
    /// The attempt's id.
    pub fn attempt_id(&self) -> AttemptId {
        self.id.attempt(self.attempt)
    }
}

/// TASKS: one attempt for whichever prover takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// What it is.
    pub header: TaskHeader,
    /// What it reads.
    pub inputs: Payloads,
    /// Provers that should leave it to others if there are any.
    #[serde(default)]
    pub avoid: Vec<ProverId>,
}

impl Claims for StageReady {
    fn claim(&self) -> Claim {
        self.context.claim()
    }
}

impl Claims for Task {
    fn claim(&self) -> Claim {
        self.header.context.claim()
    }
}
