//! The accepted attempt of a task, and which other attempts it makes superfluous.

use push0_domain::{
    Timestamp,
    message::TaskHeader,
    task::{TaskId, is_superfluous},
    wanted::{Claim, Claims},
};

/// The accepted attempt of a task.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Won {
    pub(crate) attempt: u32,
    pub(crate) claim: Claim,
    pub(crate) at: Timestamp,
}

impl Won {
    pub(crate) fn of(accepted: &TaskHeader, now: Timestamp) -> Self {
        Self {
            attempt: accepted.attempt,
            claim: accepted.context.claim(),
            at: now,
        }
    }

    /// Returns whether this attempt at a task makes another one superfluous. A prover may repeat its result for an earlier
    /// announcement of the block, which says nothing of the work for a later one.
    pub(crate) fn beats(&self, task: &TaskId, other: &TaskHeader) -> bool {
        // Compare numbers first: they differ for most tasks, and this runs at the end of every attempt.
        other.id.index == task.index
            && other.id.stage.block.number == task.stage.block.number
            && is_superfluous(other.attempt, self.attempt)
            && other.context.claim() == self.claim
            && other.id == *task
    }
}
