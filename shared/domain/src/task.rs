//! Tasks and attempts: what is assigned, and each numbered try at it.

use crate::{BlockKey, BlockRef, PipelineId, ProofType, StageName};
use serde::{Deserialize, Serialize};
use std::{fmt, ops::RangeInclusive};

/// One run of one stage for one block (or, for a range, for the blocks that end with it).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StageKey {
    /// The pipeline.
    pub pipeline: PipelineId,
    /// The block; the last one of a range.
    pub block: BlockRef,
    /// The first block of a range; none for a stage that is about a single block.
    #[serde(default)]
    pub first: Option<BlockRef>,
    /// Which of the pipeline's proofs.
    pub proof_type: ProofType,
    /// The stage.
    pub stage: StageName,
}

impl StageKey {
    /// The first block that it is about.
    pub fn first_block(&self) -> BlockRef {
        self.first.unwrap_or(self.block)
    }

    /// The numbers of the blocks that it is about.
    pub fn numbers(&self) -> RangeInclusive<u64> {
        self.first_block().number..=self.block.number
    }

    /// Its blocks as subjects name them.
    pub fn block_key(&self) -> BlockKey {
        let more = self.block.number.saturating_sub(self.first_block().number);
        BlockKey {
            blocks: u32::try_from(more).unwrap_or(u32::MAX).saturating_add(1),
            ..self.block.key()
        }
    }

    /// The task of this stage at `index`.
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

/// One unit that is assigned to a prover. Text form: `pipeline/block/proof type/stage/index`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TaskId {
    /// The stage that it belongs to.
    pub stage: StageKey,
    /// Its position in the stage, from 0. In a join by tree the levels follow one another.
    pub index: u32,
}

impl TaskId {
    /// Attempt `number` at this task.
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

/// One numbered try at a task, from 1.
///
/// The number is part of the task's subject, and whoever asks for the next attempt derives it from
/// the attempts that ended. So two that ask for the same one, or one that asks twice, get it once.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptId {
    /// The task.
    pub task: TaskId,
    /// The attempt's number, from 1.
    pub number: u32,
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}#{}", self.task, self.number)
    }
}
