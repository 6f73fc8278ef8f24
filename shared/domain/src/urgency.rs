//! Urgency: which of two ready stages a free prover should start.

use crate::{Timestamp, pipeline::Policy};

/// The place of a ready stage in the queue of its pipeline: the smallest is the most urgent.
///
/// Fields compare in order. `oldest-first` is the lexicographic order of the push0 paper (block
/// number, then attempts, then age) with the later stage before the earlier one: it frees a block
/// that is nearly done before it opens more of the same block. It starves nobody: a block has
/// finitely many blocks before it, and attempts are bounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Urgency {
    /// The deadline under the `deadline` policy, else 0.
    deadline_at: Timestamp,
    /// The block's number.
    block: u64,
    /// Stages still to come after this one: fewer is more urgent.
    stages_left: u32,
    /// Attempts so far, inverted: more is more urgent.
    fewer_attempts: u32,
    /// The order in which it became ready.
    age: u64,
}

impl Urgency {
    /// The urgency of a stage.
    ///
    /// `stages_left` counts the stages of its proof that follow it; `age` is any number that grows
    /// with time, such as its sequence in the stream. Under the `deadline` policy a block without a
    /// deadline comes last.
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
