//! Emits records: appends them to PROOFS, each only behind its predecessor.
//!
//! The log itself is the frontier. A record is stored only behind the one the collector saw last, so two
//! collectors, or one that emits again after a crash, cannot emit a block twice or out of order. Records
//! ready together are sent together.

use crate::{intake::Handle, record};
use push0_bus::{Bus, BusError, Log, Message, PublishError, Stream};
use push0_domain::{PipelineId, Timestamp, message::Emission, subject, trace::TraceContext};
use std::{collections::VecDeque, time::Duration};

/// Most records in flight at once, in number and in bytes, so that the connection is not held up for long.
const BATCH_MAX: usize = 256;
const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How long the broker may be unavailable or full before the collector starts over.
const PATIENCE: Duration = Duration::from_secs(30);

/// Records on their way into the log.
pub(crate) struct Emitter {
    log: Log,
    queue: VecDeque<Ready>,
}

/// A record to emit.
pub(crate) struct Ready {
    pub(crate) emission: Box<Emission>,
    /// The traces ended by the record, its own first.
    pub(crate) traces: Vec<TraceContext>,
    /// Messages to acknowledge when the record is stored.
    pub(crate) handles: Vec<Handle>,
    /// When the last result of the record's proofs was stored, see [`crate::decide::Step::Emit`].
    pub(crate) ready_at: Option<Timestamp>,
}

impl Emitter {
    pub(crate) fn new(bus: Bus, pipeline: &PipelineId, last_sequence: u64) -> Self {
        let subjects = subject::proofs_of_pipeline(pipeline);
        Self {
            log: Log::new(bus, Stream::Proofs, subjects, last_sequence),
            queue: VecDeque::new(),
        }
    }

    pub(crate) fn push(&mut self, ready: Ready) {
        self.queue.push_back(ready);
    }

    /// Returns the next batch of records, if any wait.
    pub(crate) fn batch(&mut self) -> Option<Batch> {
        let mut batch = Batch {
            records: Vec::new(),
            log: self.log.clone(),
        };
        let mut bytes = 0;
        while let Some(ready) = self.queue.front() {
            let size = record::size(&ready.emission);
            if batch.records.len() == BATCH_MAX || (bytes > 0 && bytes + size > BATCH_BYTES_MAX) {
                break;
            }
            bytes += size;
            batch.records.extend(self.queue.pop_front());
        }
        (!batch.records.is_empty()).then_some(batch)
    }

    /// Moves the end of the log behind a stored batch.
    pub(crate) fn stored(&mut self, log: Log) {
        self.log = log;
    }
}

/// Records sent together.
pub(crate) struct Batch {
    records: Vec<Ready>,
    log: Log,
}

impl Batch {
    /// Stores the records. On success the messages they settle can be acknowledged.
    pub(crate) async fn store(mut self) -> (Vec<Ready>, Result<Log, BusError>) {
        let stored = self.append().await;
        (self.records, stored.map(|()| self.log))
    }

    async fn append(&mut self) -> Result<(), BusError> {
        let mut messages = Vec::with_capacity(self.records.len());
        for ready in &self.records {
            let subject = subject::proof(&ready.emission.pipeline, ready.emission.last.number);
            let trace = ready.traces.first().cloned().unwrap_or_default();
            let message = Message::new(subject.clone(), &ready.emission, &trace);
            messages.push(message.map_err(|source| BusError::Corrupt {
                what: subject,
                source,
            })?);
        }
        let stored = self.log.append(&messages, PATIENCE).await;
        stored.map_err(|error| match error {
            // Another collector wrote a record this one has not seen, so the view here is stale.
            PublishError::Unexpected { .. } => BusError::Interrupted,
            other => other.into(),
        })
    }
}
