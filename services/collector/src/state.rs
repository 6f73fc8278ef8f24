//! State of a pipeline's blocks.
//!
//! Decisions rest on a few bytes per attempt: which one ended, how, and in which message. The bodies of the
//! messages are kept apart (`bodies.rs`), as far as there is room, and read again when a step needs them. A
//! complete block waiting for its turn is *parked*: only the message of its single proof is remembered.

pub use crate::intake::Handle;

use crate::task::{Done, Need, Task};
use push0_domain::{
    Announcement, BlockHash, BlockRef, ProofType, Timestamp,
    message::{BlockContext, BlockFacts, EndReason},
    trace::TraceContext,
    wanted::{Claim, Claims},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Key of a block in chain order: its number and hash.
pub(crate) type At = (u64, BlockHash);

/// Returns the block with this key.
pub(crate) fn block_ref((number, hash): At) -> BlockRef {
    BlockRef { number, hash }
}

/// Blocks by key. Boxed, because B-tree nodes that grow at one end stay half empty.
pub(crate) type Blocks = BTreeMap<At, Box<Block>>;

/// A block without a record, or the blocks of a range as one.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) parent_hash: BlockHash,
    /// The announcement of the block; for a range, of its last block.
    pub(crate) announcement: Announcement,
    /// When the broker stored the announcement, for the record.
    pub(crate) stored_at: Timestamp,
    pub(crate) deadline_at: Option<Timestamp>,
    pub(crate) revision: u32,
    /// Whether the block's record is to be amended.
    pub(crate) amends: bool,
    /// Why the block ends without a proof. `None` while a proof is wanted.
    pub(crate) ended: Option<Arc<EndReason>>,
    /// Set only if the block goes into a range, whose record adds up the facts of all its blocks.
    pub(crate) facts: Option<Box<BlockFacts>>,
    progress: Progress,
}

#[derive(Debug)]
enum Progress {
    Open(Box<Open>),
    Parked(Parked),
}

/// Progress of a block's proofs.
#[derive(Debug, Default)]
pub(crate) struct Open {
    /// Context and trace of the block. `None` after the block was parked: its message holds them.
    pub(crate) origin: Option<Origin>,
    /// Proofs of the block, sorted by type.
    pub(crate) proofs: Vec<(ProofType, Proof)>,
}

/// Context and trace from the first message about a block.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) context: Arc<BlockContext>,
    pub(crate) trace: TraceContext,
}

/// A block whose only proof is done, reduced to the only message about it.
#[derive(Debug)]
struct Parked {
    proof_type: ProofType,
    done: Done,
}

/// Index of a task that used up its budget, and the number of its failures. Its dead letter depends
/// on nothing else.
pub(crate) type Dead = (u32, usize);

/// One of a block's proofs.
#[derive(Debug, Default)]
pub(crate) struct Proof {
    /// How often the proof was begun anew, because its work was lost. Results of earlier starts change nothing.
    pub(crate) start: u32,
    /// Position of the open stage in the proof. Earlier stages are complete.
    pub(crate) position: usize,
    /// Tasks of the open stage with results, by index.
    pub(crate) tasks: BTreeMap<u32, Task>,
    /// Number of completed tasks among them.
    pub(crate) completed: u32,
    /// Tasks with failures and no completion. Only these can need another attempt or a dead letter.
    pub(crate) failing: BTreeSet<u32>,
    /// Number of tasks in the earlier levels of the open stage, if it is a tree.
    pub(crate) settled: u32,
    /// The proof, once its last stage is done. If the block goes into a range: the output of the last stage
    /// before the range.
    pub(crate) done: Option<Done>,
    /// The task with a dead letter, if one used up its budget.
    pub(crate) dead: Option<Dead>,
    /// Messages to acknowledge when the block is emitted.
    pub(crate) handles: Vec<Handle>,
}

impl Proof {
    /// Returns whether one of the tasks used up its budget.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.tasks.values().any(|task| task.need() == Need::Burial)
    }

    /// Returns whether a result of this attempt at a task of the open stage would change something.
    pub(crate) fn takes(&self, index: u32, attempt: u32) -> bool {
        let is_over = |task: &Task| task.done.is_some() || task.has_failed(attempt);
        index >= self.settled && !self.tasks.get(&index).is_some_and(is_over)
    }

    /// Returns the newest unacknowledged message.
    pub(crate) fn newest(&self) -> Option<Handle> {
        let of_tasks = self.tasks.values().flat_map(|task| &task.handles);
        of_tasks.chain(&self.handles).max().copied()
    }

    /// Forgets the tasks of the open stage. Returns the unacknowledged messages.
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

    /// Moves on to the stage at `position`, with `settled` tasks in earlier levels. Returns the messages of
    /// the tasks left behind.
    pub(crate) fn move_to(&mut self, position: usize, settled: u32) -> Vec<Handle> {
        let handles = self.take_handles();
        // A letter of a task left behind, whose late failure came first, is none of a task with the same index.
        self.dead = None;
        self.position = position;
        self.settled = settled;
        handles
    }

    /// Forgets everything about an earlier start of the proof. Returns its messages.
    pub(crate) fn begin_anew(&mut self, start: u32) -> Vec<Handle> {
        let handles = self.take_handles();
        *self = Self {
            start,
            ..Self::default()
        };
        handles
    }

    /// Marks the proof as done. The messages about its tasks are kept until the block is emitted; the tasks
    /// themselves and their failures are forgotten.
    pub(crate) fn finish(&mut self) {
        let done = self.tasks.values().filter_map(|task| task.done);
        self.done = done.max_by_key(|done| done.handle);
        self.handles = self.take_handles();
    }
}

impl Open {
    /// Returns the proof of this type, or adds a new one.
    pub(crate) fn proof(&mut self, proof_type: &ProofType) -> &mut Proof {
        let at = match self.proofs.binary_search_by(|(kind, _)| kind.cmp(proof_type)) {
            Ok(at) => at,
            Err(at) => {
                self.proofs.reserve_exact(1);
                self.proofs.insert(at, (proof_type.clone(), Proof::default()));
                at
            }
        };
        &mut self.proofs[at].1
    }
}

impl Claims for Block {
    fn claim(&self) -> Claim {
        Claim {
            announcement: self.announcement,
            is_retry: self.amends,
        }
    }
}

impl Block {
    /// Creates a block without results.
    pub(crate) fn new(context: &BlockContext, origin: Option<Origin>, ended: Option<Arc<EndReason>>) -> Self {
        let open = Open {
            origin,
            proofs: Vec::new(),
        };
        Self {
            parent_hash: context.parent_hash,
            announcement: context.announcement,
            stored_at: context.stored_at,
            deadline_at: context.deadline_at,
            revision: context.revision,
            amends: context.amends,
            ended,
            facts: None,
            progress: Progress::Open(Box::new(open)),
        }
    }

    /// Replaces the context, for a range whose blocks have become known.
    pub(crate) fn set_context(&mut self, context: BlockContext) {
        self.parent_hash = context.parent_hash;
        self.announcement = context.announcement;
        self.stored_at = context.stored_at;
        self.deadline_at = context.deadline_at;
        self.revision = context.revision;
        self.amends = context.amends;
        if let Some(origin) = &mut self.open().origin {
            origin.context = Arc::new(context);
        }
    }

    /// Returns the progress of the proofs. A parked block is unparked first.
    pub(crate) fn open(&mut self) -> &mut Open {
        if let Progress::Parked(parked) = &self.progress {
            let proof = Proof {
                done: Some(parked.done),
                handles: vec![parked.done.handle],
                ..Proof::default()
            };
            let open = Open {
                origin: None,
                proofs: vec![(parked.proof_type.clone(), proof)],
            };
            self.progress = Progress::Open(Box::new(open));
        }
        match &mut self.progress {
            Progress::Open(open) => open,
            Progress::Parked(_) => unreachable!("it was opened above"),
        }
    }

    /// Parks the block if its only proof is done and there is no other message.
    pub(crate) fn park(&mut self) {
        let Progress::Open(open) = &self.progress else {
            return;
        };
        if let [(proof_type, proof)] = &open.proofs[..]
            && let Some(done) = proof.done
            && proof.handles == [done.handle]
            && proof.dead.is_none()
        {
            let proof_type = proof_type.clone();
            self.progress = Progress::Parked(Parked { proof_type, done });
        }
    }

    /// Returns whether the block is parked.
    pub(crate) fn is_parked(&self) -> bool {
        matches!(self.progress, Progress::Parked(_))
    }

    /// Returns the proofs, or an empty slice if the block is parked.
    pub(crate) fn proofs(&self) -> &[(ProofType, Proof)] {
        match &self.progress {
            Progress::Open(open) => &open.proofs,
            Progress::Parked(_) => &[],
        }
    }

    /// Returns context and trace. `None` if the block is parked or was parked before.
    pub(crate) fn origin(&self) -> Option<&Origin> {
        match &self.progress {
            Progress::Open(open) => open.origin.as_ref(),
            Progress::Parked(_) => None,
        }
    }

    /// Returns the finished proofs.
    pub(crate) fn done(&self) -> impl Iterator<Item = (&ProofType, Done)> {
        let parked = match &self.progress {
            Progress::Parked(parked) => Some((&parked.proof_type, parked.done)),
            Progress::Open(_) => None,
        };
        let open = self.proofs().iter();
        parked
            .into_iter()
            .chain(open.filter_map(|(proof_type, proof)| Some((proof_type, proof.done?))))
    }

    /// Returns whether no result of the block has come.
    pub(crate) fn is_unseen(&self) -> bool {
        !self.is_parked() && self.proofs().is_empty()
    }

    /// Returns the attempt whose output a range reads, if the block is ready. A block in a range
    /// has one proof.
    pub(crate) fn ready(&self) -> Option<Done> {
        let wanted = self.ended.is_none();
        wanted.then(|| self.done().next().map(|(_, done)| done))?
    }

    /// Returns whether a result stored at `stored_at` counts. If the block was given up as too late, only
    /// results from before its deadline count; if it ended otherwise, none do.
    pub(crate) fn takes(&self, stored_at: Timestamp) -> bool {
        let in_time = self.deadline_at.is_some_and(|deadline| stored_at < deadline);
        self.ended
            .as_ref()
            .is_none_or(|reason| reason.is_late() && in_time)
    }

    /// Returns whether the block gets no proof, as far as known.
    pub(crate) fn is_given_up(&self) -> bool {
        self.ended.is_some() || self.proofs().iter().any(|(_, p)| p.dead.is_some())
    }

    /// Takes all unacknowledged messages of the block.
    pub(crate) fn take_handles(&mut self) -> Vec<Handle> {
        match &mut self.progress {
            Progress::Parked(parked) => vec![parked.done.handle],
            Progress::Open(open) => {
                let proofs = open.proofs.iter_mut();
                proofs.flat_map(|(_, proof)| proof.take_handles()).collect()
            }
        }
    }
}
