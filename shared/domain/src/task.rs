//! Tasks (the units of work assigned to provers) and their numbered attempts.

use crate::{BlockKey, BlockRef, PipelineId, ProofType, StageName};
use serde::{Deserialize, Serialize};
use std::{fmt, ops::RangeInclusive};

/// Attempt numbers of one start of a proof. A proof whose work is lost is begun anew, and the attempts of the new start
/// have higher numbers than all earlier ones, so that no attempt of an earlier start is taken for one of them. With a
/// minute between failed attempts, one start lasts for two months.
pub const ATTEMPTS_PER_START: u32 = 100_000;

/// Returns how often the proof was begun anew before this attempt; 0 for the first start.
pub fn start_of(attempt: u32) -> u32 {
    attempt.saturating_sub(1) / ATTEMPTS_PER_START
}

/// Returns the number of a start's first attempt at each task.
pub fn first_attempt(start: u32) -> u32 {
    start.saturating_mul(ATTEMPTS_PER_START).saturating_add(1)
}

/// Returns whether an accepted attempt makes another attempt at the same task superfluous. Attempts of a later start are
/// wanted, because their proof has lost the accepted outputs.
pub fn is_superfluous(attempt: u32, accepted: u32) -> bool {
    attempt != accepted && start_of(attempt) <= start_of(accepted)
}

/// One run of one stage for one block or, with `first`, for a range of blocks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StageKey {
    /// The pipeline of the block.
    pub pipeline: PipelineId,
    /// The block; for a range, its last block.
    pub block: BlockRef,
    /// The first block of a range; `None` if the stage is about a single block.
    #[serde(default)]
    pub first: Option<BlockRef>,
    /// The type of the proof to which the stage belongs.
    pub proof_type: ProofType,
    /// The name of the stage.
    pub stage: StageName,
}

impl StageKey {
    /// Returns the first block of the range, or the block itself if it is no range.
    pub fn first_block(&self) -> BlockRef {
        self.first.unwrap_or(self.block)
    }

    /// Returns the numbers of all blocks of the stage, inclusive.
    pub fn numbers(&self) -> RangeInclusive<u64> {
        self.first_block().number..=self.block.number
    }

    /// Returns the block or range as subjects name it.
    pub fn block_key(&self) -> BlockKey {
        let more = self.block.number.saturating_sub(self.first_block().number);
        BlockKey {
            blocks: u32::try_from(more).unwrap_or(u32::MAX).saturating_add(1),
            ..self.block.key()
        }
    }

    /// Returns the id of this stage's task at `index`.
    pub fn task(&self, index: u32) -> TaskId {
        TaskId {
            stage: self.clone(),
            index,
        }
    }
}

impl fmt::Display for StageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}/{}/{}",
            self.pipeline,
            self.block_key(),
            self.proof_type,
            self.stage
        )
    }
}

/// One unit of work, assigned to a prover. Text form: `pipeline/block/proof type/stage/index`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId {
    /// The stage that the task belongs to.
    pub stage: StageKey,
    /// Position of the task in its stage, from 0. In a tree the levels follow one another, the root last.
    pub index: u32,
}

impl TaskId {
    /// Returns the id of attempt `number` at this task.
    pub fn attempt(&self, number: u32) -> AttemptId {
        AttemptId {
            task: self.clone(),
            number,
        }
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.stage, self.index)
    }
}

/// One numbered attempt at a task. Text form: the task's, then `#` and the number.
///
/// The number is part of the task's subject, and the number of the next attempt follows from the ended
/// attempts. Two services that ask for the next attempt, or one service that asks twice, therefore name the
/// same attempt, and the broker stores one message.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    /// The task that is attempted.
    pub task: TaskId,
    /// The attempt's number, from 1.
    pub number: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.task, self.number)
    }
}
