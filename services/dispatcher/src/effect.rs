//! What the dispatcher's decisions speak of: what came, what is released, what is to be done.

use push0_domain::{
    Timestamp, ZkvmId,
    message::{BlockEnded, TaskRange},
    subject::AttemptKey,
    task::StageKey,
};

/// A message that is not yet acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceId {
    /// Of BLOCKS, by its sequence.
    Block(u64),
    /// Of STAGES, by its sequence.
    Stage(u64),
}

impl SourceId {
    /// Its sequence in its stream.
    pub fn sequence(self) -> u64 {
        let (Self::Block(sequence) | Self::Stage(sequence)) = self;
        sequence
    }
}

/// What a source asks for, as far as deciding needs it.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The stage.
    pub stage: StageKey,
    /// Whose provers take it.
    pub zkvm: ZkvmId,
    /// Which of its tasks.
    pub tasks: TaskRange,
    /// The attempt.
    pub attempt: u32,
    /// When the broker had stored the block's announcement.
    pub announced_at: Timestamp,
    /// The same of the first block of a range.
    pub first_announced_at: Timestamp,
    /// The block's deadline.
    pub deadline_at: Option<Timestamp>,
    /// Whether it races an attempt that runs.
    pub is_hedge: bool,
    /// Whether it is wanted although the block's record is written.
    pub amends: bool,
}

/// One attempt to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// The message that asked for it.
    pub source: SourceId,
    /// The stage.
    pub stage: StageKey,
    /// The task's index.
    pub index: u32,
    /// The attempt's name.
    pub key: AttemptKey,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Acknowledge a message: all that it asked for is stored.
    Done(SourceId),
    /// Remember how far a long stage was released.
    SaveCursor(SourceId, u32),
    /// Forget it.
    DropCursor(SourceId),
    /// Take an attempt out of TASKS, if this ends it: only its body tells.
    Purge(AttemptKey, Box<BlockEnded>),
    /// Tell the collector that blocks end without a proof; then acknowledge the message, if any.
    End(BlockEnded, Option<SourceId>),
}
