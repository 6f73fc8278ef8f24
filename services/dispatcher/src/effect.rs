//! Inputs and outputs of the dispatcher's decisions: source messages, releases and effects.

use crate::hold::Turn;
use push0_domain::{
    Announcement, ProverId, Timestamp, ZkvmId,
    message::{BlockEnded, StageReady, TaskRange},
    subject::AttemptKey,
    task::StageKey,
    wanted::{Claim, Claims},
};

/// A message not acknowledged yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceId {
    /// A message of BLOCKS, by its sequence.
    Block(u64),
    /// A message of STAGES, by its sequence.
    Stage(u64),
}

impl SourceId {
    /// Returns the sequence of the message in its stream.
    pub fn sequence(self) -> u64 {
        let (Self::Block(sequence) | Self::Stage(sequence)) = self;
        sequence
    }
}

/// The work a source message asks for, reduced to the fields needed for decisions.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The stage to run.
    pub stage: StageKey,
    /// The zkVM whose provers take the tasks.
    pub zkvm: ZkvmId,
    /// The range of task indices to release.
    pub tasks: TaskRange,
    /// The attempt's number, from 1.
    pub attempt: u32,
    /// The announcement of the block, and whether an operator retries work on a block that has its record.
    pub claim: Claim,
    /// The announcement of the block; for a range, of its first block.
    pub first_announcement: Announcement,
    /// The block's deadline, if its pipeline sets one.
    pub deadline_at: Option<Timestamp>,
    /// Whether the attempt is a hedge, racing an attempt still running.
    pub is_hedge: bool,
    /// The number of failures that lengthen the pause before the attempt.
    pub failed: u32,
    /// The attempt raced by a hedge, and its prover, which is slow or silent.
    pub races: Option<(u32, ProverId)>,
}

impl From<&StageReady> for Ready {
    fn from(stage: &StageReady) -> Self {
        Self {
            stage: stage.stage.clone(),
            zkvm: stage.zkvm.clone(),
            tasks: stage.tasks,
            attempt: stage.attempt,
            claim: stage.claim(),
            first_announcement: stage.context.first_announcement(),
            deadline_at: stage.context.deadline_at,
            is_hedge: stage.hedge_of.is_some(),
            failed: stage.failed,
            races: stage.hedge_of.zip(stage.avoid.last().cloned()),
        }
    }
}

/// One attempt to publish to TASKS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The source message of the attempt.
    pub source: SourceId,
    /// The stage of the task.
    pub stage: StageKey,
    /// The task's index in its stage.
    pub index: u32,
    /// The attempt's key, which names its subject in TASKS.
    pub key: AttemptKey,
}

/// An action for the shell to carry out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Acknowledge a message: everything it asked for is stored.
    Done(SourceId),
    /// Save how many tasks of a long stage were released.
    SaveCursor(SourceId, u32),
    /// Delete the saved cursor of a message.
    DropCursor(SourceId),
    /// Remove an attempt from TASKS, unless the attempt is wanted after this end. The shell decides by the body
    /// of the task, because the key is not enough.
    Purge(AttemptKey, Box<BlockEnded>),
    /// Tell the collector about blocks ending without a proof, then acknowledge the message, if there is one.
    End(BlockEnded, Option<SourceId>),
    /// Store, announce and log that the queue of a zkVM is held or open again.
    Hold(ZkvmId, Turn),
}
