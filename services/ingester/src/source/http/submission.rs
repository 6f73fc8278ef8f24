//! A submission on its way from the server to the task that leads the pipeline.

use crate::{decide::offer::Conflict, source::submitted::Submitted};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// Blocks of one request, and the channel for the answer.
pub(crate) struct Submission {
    pub(super) blocks: Vec<Submitted>,
    pub(super) answer: oneshot::Sender<Result<usize, Refused>>,
    /// The room in memory that the blocks take, until they are dropped.
    pub(super) room: Option<OwnedSemaphorePermit>,
}

/// Reasons for which blocks are not stored.
#[derive(Debug)]
pub(crate) enum Refused {
    /// A block is in conflict with the published chain.
    Conflict {
        /// Position of the block in the request, from 0.
        position: usize,
        conflict: Conflict,
    },
    /// The broker has no room for the blocks.
    NoRoom,
}
