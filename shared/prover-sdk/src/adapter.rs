//! What an adapter implements.

use push0_domain::{
    BlockHash, ProverId, Timestamp,
    message::{FailureClass, KnownBlock, TaskHeader},
    trace::TraceContext,
};
use std::{
    future::Future,
    sync::Arc,
    sync::atomic::{AtomicU16, Ordering},
};
use tokio_util::sync::CancellationToken;

/// One attempt: what to prove, and the signs to watch.
#[derive(Clone, Debug)]
pub struct Work {
    /// Which task, of which block, with which limits.
    pub header: TaskHeader,
    /// The witness, or the outputs of the stage before: one for `split` and `map`, all of them for
    /// `join` and `range`.
    pub inputs: Vec<Vec<u8>>,
    /// When the broker had stored the task: how long it has waited for this prover.
    pub released_at: Timestamp,
    /// Fires when nobody waits for the outcome any more. The attempt is given up then by itself;
    /// an adapter that holds a process or a machine ends it on this sign, or when it is dropped.
    pub stop: CancellationToken,
    /// Where to say how far it is, if that is known.
    pub progress: Progress,
    /// The block's trace, for adapters that pass it on.
    pub trace: TraceContext,
}

impl Work {
    /// The one input of a `split` or `map` task.
    pub fn input(&self) -> Result<&[u8], ProveError> {
        match &self.inputs[..] {
            [one] => Ok(one),
            other => Err(ProveError::fatal(format!("{} inputs: expected one", other.len()))),
        }
    }
}

/// How far an attempt is; operators see it in `push0 status`.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<AtomicU16>);

impl Progress {
    /// Sets it, in thousandths.
    pub fn set_permille(&self, permille: u16) {
        // 0 means that nothing was said yet.
        self.0
            .store(permille.min(1000).saturating_add(1), Ordering::Relaxed);
    }

    pub(crate) fn permille(&self) -> Option<u16> {
        self.0.load(Ordering::Relaxed).checked_sub(1)
    }
}

/// Why an attempt brought no proof.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ProveError {
    /// The class decides what happens next.
    pub class: FailureClass,
    /// For people; of a process, the end of its stderr.
    pub message: String,
}

impl ProveError {
    /// Another attempt may do better.
    pub fn retryable(message: impl Into<String>) -> Self {
        Self {
            class: FailureClass::Retryable,
            message: message.into(),
        }
    }

    /// No attempt can succeed.
    pub fn fatal(message: impl Into<String>) -> Self {
        Self {
            class: FailureClass::Fatal,
            message: message.into(),
        }
    }

    /// A larger machine may do better.
    pub fn out_of_memory(message: impl Into<String>) -> Self {
        Self {
            class: FailureClass::OutOfMemory,
            message: message.into(),
        }
    }
}

/// How a zkVM proves.
pub trait Prove: Send + Sync + 'static {
    /// Runs one attempt. The outputs: as many as there are for a `split`, exactly one otherwise.
    ///
    /// It may block its thread only inside `spawn_blocking`. It is dropped at its timeout and when
    /// it is stopped.
    fn prove(&self, work: Work) -> impl Future<Output = Result<Vec<Vec<u8>>, ProveError>> + Send;
}

/// What a proof must be about. Nothing in it comes from the prover.
#[derive(Clone, Debug)]
pub struct Statement {
    /// The block as the ingester saw it; of a range the last one.
    pub block: KnownBlock,
    /// The first block of a range; none if it is about a single block.
    pub first: Option<KnownBlock>,
    /// The program that the pipeline pins.
    pub program_id: Option<String>,
    /// The attempt whose output is checked; none if the proof came in a file.
    pub header: Option<TaskHeader>,
}

impl Statement {
    /// The first block that it is about.
    pub fn first_block(&self) -> &KnownBlock {
        self.first.as_ref().unwrap_or(&self.block)
    }

    /// The hash of the block that it goes on from: the parent of the first.
    pub fn parent_hash(&self) -> BlockHash {
        self.first_block().parent_hash
    }
}

/// How a proof is verified.
pub trait Verify: Send + Sync + 'static {
    /// `Ok(None)`: the proof is valid. `Ok(Some(reason))`: it is false. `Err`: could not be told,
    /// and is tried again.
    ///
    /// As with [`Prove::prove`], it may block its thread only inside `spawn_blocking`, and is
    /// dropped at the stage's timeout.
    fn verify(
        &self,
        statement: Statement,
        output: Vec<u8>,
    ) -> impl Future<Output = Result<Option<String>, ProveError>> + Send;

    /// The program whose proofs this build makes, if it has one of its own: what a pipeline pins,
    /// in the text form of [`Statement::program_id`].
    fn program_id(&self) -> Option<String> {
        None
    }
}

/// The prover's name in a deployment when none is configured: its host and process.
pub(crate) fn default_id(zkvm: &str, random: u32) -> String {
    format!("{zkvm}-{random:08x}")
}

/// A prover id from text that was checked before.
pub(crate) fn parse_id(text: &str) -> Result<ProverId, push0_domain::id::InvalidId> {
    ProverId::new(text)
}
