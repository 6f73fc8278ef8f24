//! A submission on its way from the server to the task that leads the pipeline.

use crate::{decide::offer::Conflict, source::submitted::Submitted};
use tokio::sync::oneshot;

/// Blocks of one request, and the channel for the answer.
pub(crate) struct Submission {
    pub(super) blocks: Vec<Submitted>,
    pub(super) answer: oneshot::Sender<Result<usize, Refused>>,
}

/// A block in conflict with the published chain.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Position of the block in the request, from 0.
    pub(super) position: usize,
    pub(super) conflict: Conflict,
}
