//! Bodies of the streams STAGES (tasks that are ready) and TASKS (attempts released to provers).

use super::BlockContext;
use crate::{
    CriticalPath, Payloads, ProverId, Timestamp, ZkvmId,
    seal::Seal,
    subject::AttemptKey,
    task::{AttemptId, StageKey, TaskId},
    wanted::{Claim, Claims},
};
use serde::{Deserialize, Serialize};

/// Body of STAGES: tasks that are ready, from the collector (next stage, next attempt), the watchdog
/// (hedge) or an operator (retry of a dead letter).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageReady {
    /// The stage and its block.
    pub stage: StageKey,
    /// Data about the block.
    pub context: BlockContext,
    /// The zkVM whose provers take the tasks: the stage's own, or its `more_memory`.
    pub zkvm: ZkvmId,
    /// The ready tasks of the stage.
    pub tasks: TaskRange,
    /// The number of the attempt: 1 for new tasks, higher for the next attempt at a single task.
    pub attempt: u32,
    /// The attempt that this one races; `None` if this attempt is no hedge.
    #[serde(default)]
    pub hedge_of: Option<u32>,
    /// The number of failures that lengthen the pause before this attempt: see
    /// [`crate::retry::Retry::pause`]. Zero for new tasks, hedges and retries of an operator.
    #[serde(default)]
    pub failed: u32,
    /// Provers that failed earlier attempts; other provers are preferred.
    #[serde(default)]
    pub avoid: Vec<ProverId>,
    /// The inputs: for attempt 1 those of all tasks in `tasks`, for a later attempt those of
    /// its single task.
    pub inputs: Payloads,
    /// The critical path of the block up to these tasks.
    #[serde(default)]
    pub path: CriticalPath,
}

/// A run of consecutive tasks of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskRange {
    /// The index of the first task.
    pub first: u32,
    /// The number of tasks in the run.
    pub count: u32,
    /// The number of tasks in the whole stage.
    pub of: u32,
}

/// How the inputs of a stage are distributed over its tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StageKind {
    /// One input to one task, which writes any number of outputs.
    Split,
    /// One task per input, with one output each.
    Map,
    /// All inputs to one task, or to a tree of tasks.
    Join,
    /// The outputs of consecutive blocks to one task, or to a tree of tasks.
    Range,
}

/// Identity and limits of an attempt. Provers echo the header unchanged in results and leases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskHeader {
    /// The task of the attempt.
    pub id: TaskId,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// The attempt that this one races; `None` if this attempt is no hedge.
    #[serde(default)]
    pub hedge_of: Option<u32>,
    /// The zkVM whose provers take the task.
    pub zkvm: ZkvmId,
    /// Data about the block.
    pub context: BlockContext,
    /// The kind of the stage.
    pub kind: StageKind,
    /// The number of tasks in the whole stage.
    pub of: u32,
    /// How long the attempt may run, in milliseconds.
    pub timeout_ms: u64,
    /// After how many milliseconds of running the watchdog asks for a second copy; `None` for never.
    #[serde(default)]
    pub hedge_after_ms: Option<u64>,
    /// How many failures of its own the task may have before it becomes a dead letter. Adapters only use the number to
    /// tell a task whose provers seem to die.
    pub attempts_max: u32,
    /// When the attempt is too late for the block's deadline: the deadline less the minimum time of
    /// the following stages, or the deadline itself while the block has proofs to spare. `None`
    /// without a deadline.
    #[serde(default)]
    pub give_up_at: Option<Timestamp>,
    /// Whether a verifier must check the outputs before they count.
    #[serde(default)]
    pub check: bool,
    /// The pinned program (verifying key), in the zkVM's own text form; `None` if the pipeline pins none.
    #[serde(default)]
    pub program_id: Option<String>,
    /// The critical path of the block up to this attempt. A join takes the path of its latest input.
    #[serde(default)]
    pub path: CriticalPath,
    /// The dispatcher's mark on the other fields. A report with another header changes nothing.
    pub seal: Seal,
}

impl TaskHeader {
    /// Returns the id of the attempt.
    pub fn attempt_id(&self) -> AttemptId {
        self.id.attempt(self.attempt)
    }

    /// Returns the attempt as subjects name it.
    pub fn key(&self) -> AttemptKey {
        AttemptKey::of(&self.zkvm, &self.attempt_id())
    }
}

/// Body of TASKS: one attempt, for the first prover that takes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Task {
    /// Identity and limits of the attempt.
    pub header: TaskHeader,
    /// The inputs of the task.
    pub inputs: Payloads,
    /// Provers that failed earlier attempts. A prover in this list hands the task back on its first
    /// deliveries, so that another prover can take it.
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
