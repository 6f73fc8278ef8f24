//! Transfer: reading the inputs of an attempt and storing its outputs.
//!
//! Transfer is not part of an attempt's running time. A slow store must not use up the time for proving, nor
//! make an attempt look hung. The limit is on standing still, so that large payloads may take as long as they
//! need while bytes arrive.

use crate::{ProveError, node::Node};
use futures::{StreamExt, TryStreamExt, stream};
use push0_bus::{Backoff, BlobError, Reached};
use push0_domain::{Payloads, message::TaskHeader};
use std::time::{Duration, Instant};

/// How many payloads of an attempt are read or stored at once.
const AT_ONCE: usize = 8;
/// The longest pause between two tries. A full store has room again whenever a block is emitted.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Reads the inputs. Fails if the store does not have one, or if one makes no progress for `prover.stall`:
/// another prover may then reach the store.
pub(crate) async fn read(
    node: &Node,
    header: &TaskHeader,
    inputs: &Payloads,
) -> Result<Vec<Vec<u8>>, ProveError> {
    let one = |index: u32| async move {
        let payload = inputs
            .get(index)
            .ok_or_else(|| ProveError::fatal(format!("input {index} is missing")))?;
        let (blobs, reached) = node.blobs.watched();
        let bytes = moving(&reached, Some(node.stall), || blobs.resolve(&payload));
        // A missing or damaged input says nothing about the prover or the task.
        let unread = |e| ProveError::surroundings(format!("input {index} of {}: {e}", header.id));
        bytes.await.map_err(unread)
    };
    let reads = stream::iter((0..inputs.count()).map(one));
    reads.buffered(AT_ONCE).try_collect().await
}

/// Stores the outputs, however long the store is away or full. Fails only if the outputs can never be stored.
pub(crate) async fn write(
    node: &Node,
    header: &TaskHeader,
    outputs: &[Vec<u8>],
) -> Result<Payloads, BlobError> {
    let stage = &header.id.stage;
    let of_block = &node
        .blobs
        .of_prover(&node.zkvm, &node.id, &stage.pipeline, stage.block.number);
    let one = |index: usize| async move {
        let (blobs, reached) = of_block.watched();
        moving(&reached, None, || blobs.payload(&outputs[index])).await
    };
    let writes = stream::iter((0..outputs.len()).map(one));
    let payloads: Vec<_> = writes.buffered(AT_ONCE).try_collect().await?;
    let (blobs, reached) = of_block.watched();
    moving(&reached, None, || blobs.list(payloads.clone())).await
}

/// Repeats a call to the blob store while the store is away, until the call has stood still for `limit`. Only
/// the first failure is logged.
async fn moving<T, F: Future<Output = Result<T, BlobError>>>(
    reached: &Reached,
    limit: Option<Duration>,
    call: impl Fn() -> F,
) -> Result<T, BlobError> {
    let mut motion = Motion::new(reached, Instant::now());
    let mut backoff = Backoff::new(Duration::from_millis(50), PAUSE_MAX);
    let mut said = false;
    loop {
        let error = match call().await {
            Err(error) if error.is_transient() => error,
            outcome => return outcome,
        };
        let still = motion.still_for(reached, Instant::now());
        if limit.is_some_and(|limit| still >= limit) {
            return Err(BlobError::Unavailable(format!(
                "no progress for {still:.0?}: {error}"
            )));
        }
        if !said {
            tracing::warn!(%error, "the blob store does not take or give a payload, retrying");
            said = true;
        }
        if still.is_zero() {
            backoff.reset();
        }
        backoff.pause().await;
    }
}

/// How far a transfer came, and since when it stands still.
struct Motion {
    bytes: u64,
    since: Instant,
}

impl Motion {
    fn new(reached: &Reached, now: Instant) -> Self {
        Self {
            bytes: reached.bytes(),
            since: now,
        }
    }

    /// Returns for how long the transfer has stood still.
    fn still_for(&mut self, reached: &Reached, now: Instant) -> Duration {
        if reached.bytes() > self.bytes {
            *self = Self::new(reached, now);
        }
        now.duration_since(self.since)
    }
}
