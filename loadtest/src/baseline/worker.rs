//! A worker of a queue, and the limits that all queues share.

use std::time::Duration;

/// How long a worker may be silent before its work is given to another worker.
pub(super) const LEASE: Duration = Duration::from_secs(5);
/// Time limit for all work of a run.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Length in bytes of a job, as long as push0's task for a block.
pub(super) const INPUT: usize = 512;

/// A worker of a queue.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub(crate) id: String,
    pub(crate) slots: u32,
    pub(crate) time: Duration,
}
