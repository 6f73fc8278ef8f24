//! What a pipeline's collector knows of its blocks.

use crate::task::{Done, Need, Task};
use push0_domain::{
    BlockHash, BlockRef, ProofType, Timestamp,
    message::{BlockContext, EndReason},
    trace::TraceContext,
};
use std::collections::{BTreeMap, BTreeSet};

/// An unacknowledged message, by its sequence in RESULTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(pub u64);

/// A block by its number and hash: in the order of the chain.
pub(crate) type At = (u64, BlockHash);

/// A block that is not emitted yet, or the blocks of a range as one.
#[derive(Debug)]
pub(crate) struct Block {
    /// The block; the last one of a range.
    pub(crate) block: BlockRef,
    /// The first block of a range.
    pub(crate) first: Option<BlockRef>,
    pub(crate) context: BlockContext,
    pub(crate) proofs: BTreeMap<ProofType, Proof>,
    pub(crate) trace: TraceContext,
    /// Why it ends without a proof, if it does.
    pub(crate) ended: Option<EndReason>,
}

/// One of its proofs.
#[derive(Debug, Default)]
pub(crate) struct Proof {
    /// The position of the stage that is open; earlier ones are settled.
    pub(crate) position: usize,
    /// Its tasks that have results, by index.
    pub(crate) tasks: BTreeMap<u32, Task>,
    /// Completed tasks among them.
    pub(crate) completed: u32,
    /// Tasks with failures and no completion: only these can need anything.
    pub(crate) failing: BTreeSet<u32>,
    /// How many tasks of the stage were settled before: earlier levels of a tree.
    pub(crate) settled: u32,
    /// The proof, when its last stage is done: of a block that goes into a range, its last stage before
    /// that.
    pub(crate) done: Option<Done>,
    /// The id and reason of its dead letter, if a task used up its budget.
    pub(crate) dead: Option<(String, String)>,
    /// What is acknowledged when the block is emitted.
    pub(crate) handles: Vec<Handle>,
}

impl Proof {
    /// Whether one of its tasks used up its budget.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.tasks.values().any(|task| task.need() == Need::Burial)
    }

    /// Forgets the tasks of the open stage; returns what was not acknowledged.
    pub(crate) fn take_handles(&mut self) -> Vec<Handle> {
        let mut handles: Vec<Handle> = self
            .tasks
            .values_mut()
            .flat_map(|t| std::mem::take(&mut t.handles))
            .collect();
        self.tasks.clear();
        self.failing.clear();
        self.completed = 0;
        handles.append(&mut self.handles);
        handles
    }

    /// Moves on to the stage at `position`, of which `settled` tasks are done with.
    pub(crate) fn move_to(&mut self, position: usize, settled: u32) -> Vec<Handle> {
        let handles = self.take_handles();
        self.position = position;
        self.settled = settled;
        handles
    }
}

impl Block {
    /// What its range reads of it, if it goes into one: then it has one proof.
    pub(crate) fn ready(&self) -> Option<&Done> {
        let wanted = self.ended.is_none();
        wanted.then(|| self.proofs.values().find_map(|p| p.done.as_ref()))?
    }

    /// Whether a result that was stored then counts. Of a block that was given up as too late: if it came
    /// in time after all.
    pub(crate) fn takes(&self, stored_at: Timestamp) -> bool {
        let deadline = self.context.deadline_at;
        let in_time = deadline.is_some_and(|deadline| stored_at < deadline);
        self.ended
            .as_ref()
            .is_none_or(|reason| reason.is_late() && in_time)
    }

    /// Whether it gets no proof, as far as is known.
    pub(crate) fn is_given_up(&self) -> bool {
        self.ended.is_some() || self.proofs.values().any(|p| p.dead.is_some())
    }

    /// Everything that is not acknowledged.
    pub(crate) fn take_handles(&mut self) -> Vec<Handle> {
        self.proofs.values_mut().flat_map(Proof::take_handles).collect()
    }
}
