//! What a pipeline's collector knows of its blocks.
//!
//! It decides by what fits in a few bytes: which attempts ended, how, and in which message. What the
//! messages say beside that is kept apart (`bodies.rs`), as far as there is room, and read again
//! when a step is made of it. A block that has all it needs, and waits for its turn, is *parked*: of its
//! only proof no more than the message is kept.

use crate::task::{Need, Task};
use push0_domain::{
    BlockHash, BlockRef, ProofType, Timestamp,
    message::{BlockContext, BlockFacts, EndReason},
    trace::TraceContext,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// An unacknowledged message, by its sequence in RESULTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(pub u64);

/// A block by its number and hash: in the order of the chain.
pub(crate) type At = (u64, BlockHash);

/// The block at this place.
pub(crate) fn block_ref((number, hash): At) -> BlockRef {
    BlockRef { number, hash }
}

/// Blocks by their places. In boxes, because nodes that grow at one end stay half empty.
pub(crate) type Blocks = BTreeMap<At, Box<Block>>;

/// A block that is not emitted yet, or the blocks of a range as one.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) parent_hash: BlockHash,
    /// When the broker had stored its announcement.
    pub(crate) announced_at: Timestamp,
    pub(crate) deadline_at: Option<Timestamp>,
    pub(crate) revision: u32,
    /// Whether its record is to be amended.
    pub(crate) amends: bool,
    /// Why it ends without a proof, if it does.
    pub(crate) ended: Option<Arc<EndReason>>,
    /// Of a block that goes into a range, whose record counts them together.
    pub(crate) facts: Option<Box<BlockFacts>>,
    progress: Progress,
}

#[derive(Debug)]
enum Progress {
    Open(Box<Open>),
    Parked(Parked),
}

/// How far the proofs of a block are.
#[derive(Debug, Default)]
pub(crate) struct Open {
    /// What the messages about it carry along. None of a block that was parked: its message says it.
    pub(crate) origin: Option<Origin>,
    /// By their types.
    pub(crate) proofs: Vec<(ProofType, Proof)>,
}

/// What the first message about a block said.
#[derive(Clone, Debug)]
pub(crate) struct Origin {
    pub(crate) context: Arc<BlockContext>,
    pub(crate) trace: TraceContext,
}

/// A block whose only proof is done, by the only message that tells of it.
#[derive(Debug)]
struct Parked {
    proof_type: ProofType,
    done: Done,
}

/// A completed attempt that counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Done {
    /// Its message. The highest of several came last: it is on the critical path.
    pub(crate) handle: Handle,
    /// When the broker had stored it.
    pub(crate) stored_at: Timestamp,
}

/// A task that used up its budget, and after how many failures. That is all that its dead letter
/// depends on.
pub(crate) type Dead = (u32, usize);

/// One of a block's proofs.
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
    /// The task that has a dead letter, if one used up its budget.
    pub(crate) dead: Option<Dead>,
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

    /// It is done: what told of its tasks is kept until the block is emitted, and what failed on the
    /// way is not.
    pub(crate) fn finish(&mut self) {
        let done = self.tasks.values().filter_map(|task| task.done);
        self.done = done.max_by_key(|done| done.handle);
        self.handles = self.take_handles();
    }
}

impl Open {
    /// The proof of this type.
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

impl Block {
    /// A block of which nothing came yet.
    pub(crate) fn new(context: &BlockContext, origin: Option<Origin>, ended: Option<Arc<EndReason>>) -> Self {
        let open = Open {
            origin,
            proofs: Vec::new(),
        };
        Self {
            parent_hash: context.parent_hash,
            announced_at: context.stored_at,
            deadline_at: context.deadline_at,
            revision: context.revision,
            amends: context.amends,
            ended,
            facts: None,
            progress: Progress::Open(Box::new(open)),
        }
    }

    /// Goes on with another context: that of a range, once its blocks are known.
    pub(crate) fn set_context(&mut self, context: BlockContext) {
        self.parent_hash = context.parent_hash;
        self.announced_at = context.stored_at;
        self.deadline_at = context.deadline_at;
        self.revision = context.revision;
        self.amends = context.amends;
        if let Some(origin) = &mut self.open().origin {
            origin.context = Arc::new(context);
        }
    }

    /// How far its proofs are. A block that was parked is not any more.
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

    /// Parks it, if its only proof is done and nothing else came.
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

    /// Whether it is parked.
    pub(crate) fn is_parked(&self) -> bool {
        matches!(self.progress, Progress::Parked(_))
    }

    /// How far its proofs are, unless it is parked.
    pub(crate) fn proofs(&self) -> &[(ProofType, Proof)] {
        match &self.progress {
            Progress::Open(open) => &open.proofs,
            Progress::Parked(_) => &[],
        }
    }

    /// What the first message about it said, unless it is parked.
    pub(crate) fn origin(&self) -> Option<&Origin> {
        match &self.progress {
            Progress::Open(open) => open.origin.as_ref(),
            Progress::Parked(_) => None,
        }
    }

    /// Its proofs that are done.
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

    /// Whether any result of it came.
    pub(crate) fn is_unseen(&self) -> bool {
        !self.is_parked() && self.proofs().is_empty()
    }

    /// What its range reads of it, if it goes into one: then it has one proof.
    pub(crate) fn ready(&self) -> Option<Done> {
        let wanted = self.ended.is_none();
        wanted.then(|| self.done().next().map(|(_, done)| done))?
    }

    /// Whether a result that was stored then counts. Of a block that was given up as too late: if it came
    /// in time after all.
    pub(crate) fn takes(&self, stored_at: Timestamp) -> bool {
        let in_time = self.deadline_at.is_some_and(|deadline| stored_at < deadline);
        self.ended
            .as_ref()
            .is_none_or(|reason| reason.is_late() && in_time)
    }

    /// Whether it gets no proof, as far as is known.
    pub(crate) fn is_given_up(&self) -> bool {
        self.ended.is_some() || self.proofs().iter().any(|(_, p)| p.dead.is_some())
    }

    /// Everything that is not acknowledged.
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
