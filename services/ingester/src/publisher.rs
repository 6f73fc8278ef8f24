//! Carrying out of decisions on the broker: stores a block's facts, publishes the block, moves the
//! cursor, in this order.
//!
//! The cursor is written twice per window of blocks: before, with the blocks about to be published, and
//! after, with the last block stored by the broker. A successor therefore knows every block that may have
//! been published, and cancels those replaced by a reorg while no process led. The cursor moves by
//! compare-and-set, so a leader unaware of its replacement cannot move it back.

mod cursor;
mod reset;
pub(crate) mod resume;
mod room;
mod store;
mod storing;
mod wishes;

pub use cursor::Cursor;
pub(crate) use storing::Wait;
pub(crate) use wishes::Wishes;

use crate::{
    decide::{Action, Link, WINDOW},
    metrics::gauge_value,
    status::{Status, Trouble},
};
use bytes::Bytes;
use push0_bus::{Blobs, Bus, Facts, Message, PublishError, now};
use push0_domain::{
    Announcement, BlockHash, BlockRef, Payload, Timestamp,
    codec::CodecError,
    message::{BlockEvent, BlockFacts, Cancel, EndReason, KnownBlock, ObservedBlock},
    pipeline::{Pipeline, Reset},
    subject,
    trace::{Trace, TraceContext, publish},
};
use push0_runtime::trace;
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tracing::{Instrument, Span};

/// Bytes of witnesses after which no more blocks join a window: room is looked for before each window.
const WINDOW_BYTES: usize = 1 << 20;

/// A block that was observed and is to be published.
#[derive(Clone, Debug)]
pub(crate) struct NewBlock {
    pub(crate) link: Link,
    pub(crate) facts: BlockFacts,
    /// Input of the block's first stage.
    pub(crate) witness: Bytes,
    pub(crate) observed_at: Timestamp,
    /// Number of lines read from the file up to and including this block's; only for files.
    pub(crate) line: Option<u64>,
    /// The words before log lines about the block.
    pub(crate) span: Span,
}

/// One step to carry out, in the order of the chain.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Cancel {
        replaced: Vec<BlockRef>,
        back_to: Option<BlockRef>,
    },
    Publish(NewBlock),
}

/// Another process moved the cursor and leads now.
#[derive(Debug)]
pub(crate) struct Deposed;

/// Reasons why blocks were not stored.
#[derive(Debug)]
pub(crate) enum Unstored {
    Deposed(Deposed),
    /// The next blocks have no room, and were not to wait for it.
    NoRoom,
}

impl From<Deposed> for Unstored {
    fn from(deposed: Deposed) -> Self {
        Self::Deposed(deposed)
    }
}

/// Writer of one pipeline's blocks.
pub(crate) struct Publisher {
    bus: Bus,
    known: Facts<KnownBlock>,
    cursors: Facts<Cursor>,
    resets: Facts<Reset>,
    blobs: Blobs,
    definition: watch::Receiver<Arc<Pipeline>>,
    cursor: Cursor,
    cursor_revision: u64,
    /// The newest message of BLOCKS known to this publisher, which facts hold as `announced_after`.
    newest: Announcement,
    /// The room that was found last.
    found: Option<storing::Found>,
    /// Present while blocks wait for room.
    waiting: Option<storing::Waiting>,
    pub(crate) status: Status,
}

impl NewBlock {
    /// Creates a block observed at this moment.
    pub(crate) fn observed(status: &Status, link: Link, facts: BlockFacts, witness: Bytes) -> Self {
        let BlockRef { number, hash } = link.block;
        let span = tracing::info_span!(
            parent: None,
            "block",
            block.number = number,
            block.hash = %hash,
            pipeline = %status.pipeline(),
            trace_id = tracing::field::Empty,
        );
        Self {
            link,
            facts,
            witness,
            observed_at: now(),
            line: None,
            span,
        }
    }
}

impl Step {
    /// Returns the step for an action; `observed` creates the block to publish.
    pub(crate) fn of(action: Action, observed: impl FnOnce(Link) -> NewBlock) -> Self {
        match action {
            Action::Cancel { replaced, back_to } => Self::Cancel { replaced, back_to },
            Action::Publish(link) => Self::Publish(observed(link)),
        }
    }
}

impl Publisher {
    /// Carries out steps in order. Returns when the broker has stored all of them, with retries for as
    /// long as the broker is away or full, so that nothing is skipped.
    pub(crate) async fn commit(&mut self, steps: Vec<Step>) -> Result<(), Deposed> {
        match self.store(steps, Wait::ForRoom).await {
            Err(Unstored::Deposed(deposed)) => Err(deposed),
            // Blocks that wait for room are stored in the end.
            Ok(()) | Err(Unstored::NoRoom) => Ok(()),
        }
    }

    /// Carries out steps like [`Self::commit`], and stops at the first ones that have no room if they are not to wait.
    pub(crate) async fn store(&mut self, steps: Vec<Step>, wait: Wait) -> Result<(), Unstored> {
        let mut window = Vec::new();
        let mut bytes = 0;
        for step in steps {
            match step {
                Step::Publish(block) => {
                    bytes += block.witness.len();
                    window.push(block);
                }
                Step::Cancel { replaced, back_to } => {
                    self.publish(std::mem::take(&mut window), wait).await?;
                    self.cancel(&replaced, back_to).await?;
                }
            }
            if window.len() as u64 >= WINDOW || bytes >= WINDOW_BYTES {
                bytes = 0;
                self.publish(std::mem::take(&mut window), wait).await?;
            }
        }
        self.publish(window, wait).await
    }

    async fn publish(&mut self, window: Vec<NewBlock>, wait: Wait) -> Result<(), Unstored> {
        let (Some(first), Some(last)) = (window.first(), window.last()) else {
            return Ok(());
        };
        let room = self.room_for(&window, wait).await?;
        let mut cursor = self.cursor.clone();
        cursor.first.get_or_insert(first.link.block.number);
        // Blocks of a predecessor beyond this window are still in doubt.
        let in_doubt = cursor.ahead_of(last.link.block.number);
        let refs = window.iter().map(|block| block.link.block);
        cursor.ahead = refs.chain(in_doubt.iter().copied()).collect();
        self.move_cursor(cursor).await?;
        // The newest definition applies to all blocks of the window.
        let definition = self.definition.borrow_and_update().clone();
        let inputs = self.store_known(&definition, &window, room, wait).await?;
        for (block, input) in window.iter().zip(inputs) {
            self.publish_one(&definition, block, input)
                .instrument(block.span.clone())
                .await;
        }
        let mut cursor = self.cursor.clone();
        cursor.block = Some(last.link.block);
        cursor.ahead = in_doubt;
        cursor.line = last.line.unwrap_or(cursor.line);
        Ok(self.move_cursor(cursor).await?)
    }

    async fn publish_one(&mut self, definition: &Pipeline, block: &NewBlock, input: Payload) {
        let observed = ObservedBlock {
            pipeline: definition.name.clone(),
            revision: definition.revision,
            block: block.link.block,
            parent_hash: block.link.parent_hash,
            input,
            observed_at: block.observed_at,
            deadline_at: definition.deadline_at(block.observed_at),
            facts: block.facts,
        };
        let trace = trace::of_block(
            &TraceContext::default(),
            &definition.name,
            &block.link.block,
            block.observed_at,
        );
        let trace = trace.map(|trace| trace.begun(now()));
        if let Some(trace) = &trace {
            block.span.record("trace_id", tracing::field::display(trace.id));
        }
        let context = trace.as_ref().map(Trace::context).unwrap_or_default();
        let id = self.cursor.message_id(&definition.name, &block.link.block);
        self.store_event(&BlockEvent::Observed(observed), &context, Some(&id))
            .await;
        let sampled = trace.filter(|trace| trace.is_sampled);
        trace::write(sampled.map(|trace| publish(&trace, &definition.name, &block.link.block, &block.facts)));
        let label = [definition.name.as_str()];
        let metrics = self.status.metrics();
        metrics.published.with_label_values(&label).inc();
        let took: Duration = now().since(block.observed_at);
        metrics
            .publish_seconds
            .with_label_values(&label)
            .observe(took.as_secs_f64());
        let number = block.link.block.number;
        metrics
            .last_block
            .with_label_values(&label)
            .set(gauge_value(number));
        tracing::debug!(pipeline = %definition.name, block.number = number, "published");
    }

    async fn cancel(&mut self, replaced: &[BlockRef], back_to: Option<BlockRef>) -> Result<(), Deposed> {
        let (Some(first), Some(last)) = (replaced.first(), replaced.last()) else {
            return Ok(());
        };
        let pipeline = self.status.pipeline().clone();
        let (first, last) = (first.number, last.number);
        match back_to {
            Some(_) => tracing::info!(%pipeline, first, last, "the chain replaced published blocks"),
            // A young pipeline knows all of its blocks, so no ancestor stands in the way of a wrong node.
            None => tracing::warn!(
                %pipeline,
                first,
                last,
                "the chain replaced all blocks that were published so far: they are cancelled, and those of the new chain \
                 follow. If its node was neither started over nor changed on purpose, look at the pipeline's `rpc_url`"
            ),
        }
        let hashes: Vec<BlockHash> = replaced.iter().map(|block| block.hash).collect();
        let cancel = Cancel {
            pipeline: pipeline.clone(),
            first,
            last,
            hashes,
            reason: EndReason::Reorged,
        };
        self.store_cancel(cancel, replaced.len() as u64).await;
        let mut cursor = self.cursor.clone();
        cursor.block = back_to;
        cursor.ahead = Vec::new();
        cursor.reorgs += 1;
        self.move_cursor(cursor).await
    }

    /// Stores the cancellation of `count` blocks.
    async fn store_cancel(&mut self, cancel: Cancel, count: u64) {
        // Without a message id: a chain may return to replaced blocks and replace the same ones again.
        self.store_event(&BlockEvent::Cancelled(cancel), &TraceContext::default(), None)
            .await;
        let cancelled = &self.status.metrics().cancelled;
        cancelled
            .with_label_values(&[self.status.pipeline().as_str()])
            .inc_by(count);
    }

    /// Stores an event, with retries until the broker accepts the message.
    async fn store_event(&mut self, event: &BlockEvent, trace: &TraceContext, id: Option<&str>) {
        let pipeline = self.status.pipeline();
        let subject = match event {
            BlockEvent::Observed(_) => subject::block(pipeline),
            BlockEvent::Cancelled(_) => subject::cancel(pipeline),
        };
        let message = |subject| -> Result<Message, CodecError> {
            let message = Message::new(subject, event, trace)?;
            Ok(match id {
                Some(id) => message.id(id),
                None => message,
            })
        };
        let bus = self.bus.clone();
        let stored = self.patiently(|| {
            let (bus, message) = (bus.clone(), message(subject.clone()));
            async move {
                let stored = match message {
                    Ok(message) => bus.publish(message).await,
                    // An event carries at most 64 KiB of witness, so encoding does not fail. If it did,
                    // the pipeline would stop here and report the reason.
                    Err(error) => return Err(("refused", error.to_string())),
                };
                stored.map(|stored| stored.sequence).map_err(|error| match error {
                    PublishError::Full { .. } => ("full", error.to_string()),
                    PublishError::Unavailable { .. } => ("unavailable", error.to_string()),
                    PublishError::Occupied { .. } | PublishError::Unexpected { .. } => {
                        ("refused", error.to_string())
                    }
                })
            }
        });
        let sequence = stored.await;
        self.newest = self.newest.max(Announcement(sequence));
    }

    /// Retries until success. The only other end is a drop of the future when the lead is lost.
    async fn patiently<T, F>(&mut self, mut attempt: impl FnMut() -> F) -> T
    where
        F: Future<Output = Result<T, (&'static str, String)>>,
    {
        let mut backoff = push0_bus::Backoff::default();
        let mut failed = false;
        loop {
            match attempt().await {
                Ok(value) => {
                    if failed {
                        self.status.fine();
                    }
                    return value;
                }
                Err((label, reason)) => {
                    failed = true;
                    self.retries(label, &reason);
                    backoff.pause().await;
                }
            }
        }
    }

    fn retries(&mut self, label: &str, reason: &str) {
        let count = [self.status.pipeline().as_str(), label];
        let retries = &self.status.metrics().store_retries;
        retries.with_label_values(&count).inc();
        self.status.failing(Trouble::Broker, reason);
    }
}
