//! Urgency: the order in which free provers start ready stages.

use crate::{Timestamp, pipeline::Policy};

/// Position of a ready stage in its pipeline's queue; the smallest value is the most urgent.
///
/// Fields compare in order. `oldest-first` is the lexicographic order of the push0 paper (block number,
/// then attempts, then age), except that within a block a later stage comes before an earlier one: a block
/// that is nearly done is finished before more work of the same block is started. No stage starves, because
/// finitely many blocks precede each block and attempts are bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Urgency {
    /// The block's deadline under the `deadline` policy, the largest timestamp if the block has none; 0
    /// under `oldest-first`.
    deadline_at: Timestamp,
    /// The block's number; for a range, the number of its last block.
    block: u64,
    /// Number of following stages in the same proof; fewer is more urgent.
    stages_left: u32,
    /// `u32::MAX` less the attempt's number: more attempts are more urgent.
    fewer_attempts: u32,
    /// Order of arrival; earlier is more urgent.
    age: u64,
}

impl Urgency {
    /// Computes the urgency of a stage.
    ///
    /// `stages_left` is the number of following stages in the same proof. `attempt` is the number of the
    /// attempt. `age` is any number that grows with time, such as a sequence number of a stream. Under the
    /// `deadline` policy a block without a deadline comes last.
    pub fn new(
        policy: &Policy,
        block: u64,
        deadline_at: Option<Timestamp>,
        stages_left: u32,
        attempt: u32,
        age: u64,
    ) -> Self {
        let deadline_at = match policy {
            Policy::OldestFirst => Timestamp(0),
            Policy::Deadline { .. } => deadline_at.unwrap_or(Timestamp(u64::MAX)),
        };
        Self {
            deadline_at,
            block,
            stages_left,
            fewer_attempts: u32::MAX - attempt,
            age,
        }
    }
}
