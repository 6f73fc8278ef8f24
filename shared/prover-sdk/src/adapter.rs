//! Traits and types for the author of an adapter.

use push0_domain::{
    BlockHash, Timestamp,
    message::{FailureClass, KnownBlock, TaskHeader},
    trace::TraceContext,
};
use std::{
    future::Future,
    sync::Arc,
    sync::atomic::{AtomicU16, Ordering},
};
use tokio_util::sync::CancellationToken;

/// One attempt: the task, its inputs, and the handles for stopping and progress.
#[derive(Clone, Debug)]
pub struct Work {
    /// The task, its block and its limits. [`TaskHeader::kind`] is the shape of the stage, `program_id` the
    /// program pinned by the pipeline, and `timeout_ms` the time limit, which the SDK enforces.
    pub header: TaskHeader,
    /// The inputs: the block's witness for the first stage, else outputs of the stage before. There is
    /// exactly one for `split` and `map`, and one or more for `join` and `range`, in their order.
    pub inputs: Vec<Vec<u8>>,
    /// When the broker stored the task, by the broker's clock. The time since then is how long
    /// the task waited.
    pub released_at: Timestamp,
    /// Cancelled when the result is not wanted any more or the process leaves. The SDK then drops the
    /// future of [`Prove::prove`], so only work outside the future needs to watch this token. An adapter
    /// that started a process or a machine ends it on cancellation, or when the future is dropped.
    pub stop: CancellationToken,
    /// Handle for reporting progress, if the adapter knows it.
    pub progress: Progress,
    /// Trace context of the block, for adapters that call other services.
    pub trace: TraceContext,
}

impl Work {
    /// Returns the single input of a `split` or `map` task. Fails with a fatal error if there is another
    /// number of inputs.
    pub fn input(&self) -> Result<&[u8], ProveError> {
        match &self.inputs[..] {
            [one] => Ok(one),
            other => Err(ProveError::fatal(format!("{} inputs: expected one", other.len()))),
        }
    }
}

/// Progress of an attempt, which operators see in `push0 status`. Clones share one value.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<AtomicU16>);

impl Progress {
    /// Sets the progress in thousandths. Values above 1,000 count as 1,000.
    pub fn set_permille(&self, permille: u16) {
        // The stored value is the progress plus one, because 0 stands for no progress reported yet.
        self.0
            .store(permille.min(1000).saturating_add(1), Ordering::Relaxed);
    }

    pub(crate) fn permille(&self) -> Option<u16> {
        self.0.load(Ordering::Relaxed).checked_sub(1)
    }
}

/// Error of an attempt without a proof.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ProveError {
    /// The class, which decides whether the task is retried.
    pub class: FailureClass,
    /// Description for people; for an external process, the end of its stderr. The SDK keeps the last
    /// 4,096 bytes.
    pub message: String,
}

impl ProveError {
    /// Creates an error after which another attempt may succeed.
    pub fn retryable(message: impl Into<String>) -> Self {
        Self {
            class: FailureClass::Retryable,
            message: message.into(),
        }
    }

    /// Creates an error after which no attempt can succeed, because of the task itself. The task becomes a
    /// dead letter if another prover agrees. A build or configuration that does not fit is
    /// [`ProveError::surroundings`].
    pub fn fatal(message: impl Into<String>) -> Self {
        Self {
            class: FailureClass::Fatal,
            message: message.into(),
        }
    }

    /// Creates an error after which a prover with more memory may succeed. The next attempt goes to larger
    /// provers if the stage names them in `more_memory`.
    pub fn out_of_memory(message: impl Into<String>) -> Self {
        Self {
            class: FailureClass::OutOfMemory,
            message: message.into(),
        }
    }

    /// Creates an error of the prover's surroundings: the disk is full, the program is missing or not the
    /// pinned one, or a dependency is away. The error says nothing about the task, and kills it only if its provers
    /// complete other tasks again and again meanwhile.
    pub fn surroundings(message: impl Into<String>) -> Self {
        Self {
            class: FailureClass::Surroundings,
            message: message.into(),
        }
    }
}

/// The proving half of an adapter.
pub trait Prove: Send + Sync + 'static {
    /// Runs one attempt and returns its outputs: one or more for a `split`, exactly one otherwise, each at
    /// most 256 MiB. Any other number of outputs fails the attempt.
    ///
    /// The future may block its thread only inside `spawn_blocking`. The SDK drops the future when the
    /// attempt is stopped and when the stage's timeout is over. A panic counts as a retryable failure.
    /// Attempts run concurrently, at most `[prover] slots` at a time.
    fn prove(&self, work: Work) -> impl Future<Output = Result<Vec<Vec<u8>>, ProveError>> + Send;
}

/// The statement that a proof must prove. Every field but `header` comes from the ingester or the pipeline,
/// none from the prover.
#[derive(Clone, Debug)]
pub struct Statement {
    /// The block, as the ingester observed it; for a range, its last block.
    pub block: KnownBlock,
    /// The first block of a range; `None` if the proof is about a single block.
    pub first: Option<KnownBlock>,
    /// The program that the pipeline pins, in the zkVM's own text form; `None` if the pipeline pins none.
    pub program_id: Option<String>,
    /// The header of the attempt, as the prover echoed it; `None` if the proof was read from a file.
    pub header: Option<TaskHeader>,
}

impl Statement {
    /// Returns the first block of the range, or the single block.
    pub fn first_block(&self) -> &KnownBlock {
        self.first.as_ref().unwrap_or(&self.block)
    }

    /// Returns the parent hash of the first block: the hash of the block on which the proof builds.
    pub fn parent_hash(&self) -> BlockHash {
        self.first_block().parent_hash
    }
}

/// The verifying half of an adapter.
pub trait Verify: Send + Sync + 'static {
    /// Verifies one output of an attempt. `Ok(None)` means a valid proof, `Ok(Some(reason))` a false one.
    /// `Err` means no verdict: the check is repeated later, by this or another verifier.
    ///
    /// As with [`Prove::prove`], the future may block its thread only inside `spawn_blocking`, and is
    /// dropped at the stage's timeout. A panic or a timeout is no verdict either. A check without a verdict
    /// is tried again for as long as it takes, with a pause that grows to 30 s.
    fn verify(
        &self,
        statement: Statement,
        output: Vec<u8>,
    ) -> impl Future<Output = Result<Option<String>, ProveError>> + Send;

    /// Returns the program proved by this build, in the text form of [`Statement::program_id`], for
    /// pipelines to pin. The command `program-id` prints it. `None` if the adapter has no program
    /// of its own.
    fn program_id(&self) -> Option<String> {
        None
    }
}
