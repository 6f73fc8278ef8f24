//! Emitting: appending records to PROOFS, each only if it follows the one before.
//!
//! The log itself is the frontier. A record is stored only if the newest one of its pipeline is
//! still the one that the collector saw last: so two collectors, or one that emits again after a
//! crash, cannot emit a block twice or out of order. Records that are ready together go together,
//! all or none, which keeps the order at a fraction of the round trips.

use push0_bus::{Ack, Bus, BusError, Expect, Message, PublishError, Stored};
use push0_domain::{PipelineId, message::Emission, subject, trace::TraceContext};
use std::{collections::VecDeque, time::Duration};

/// The most records that are stored at once, in number and in bytes: the broker takes 1,000 and the
/// connection should not be held up for long.
const BATCH_MAX: usize = 256;
const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How long the broker may be away or full before the collector starts over.
const PATIENCE: Duration = Duration::from_secs(30);

/// Records on their way into the log.
pub(crate) struct Emitter {
    bus: Bus,
    subjects: String,
    last_sequence: u64,
    queue: VecDeque<Ready>,
}

/// A record to emit.
pub(crate) struct Ready {
    pub(crate) emission: Box<Emission>,
    pub(crate) trace: TraceContext,
    /// Acknowledged when the record is stored.
    pub(crate) acks: Vec<Ack>,
}

impl Emitter {
    pub(crate) fn new(bus: Bus, pipeline: &PipelineId, last_sequence: u64) -> Self {
        Self {
            bus,
            subjects: subject::proofs_of_pipeline(pipeline),
            last_sequence,
            queue: VecDeque::new(),
        }
    }

    pub(crate) fn push(&mut self, ready: Ready) {
        self.queue.push_back(ready);
    }

    pub(crate) fn len(&self) -> usize {
        self.queue.len()
    }

    /// Takes what goes next, if anything waits.
    pub(crate) fn batch(&mut self) -> Option<Batch> {
        let mut batch = Batch {
            records: Vec::new(),
            bus: self.bus.clone(),
            expect: self.expect(),
        };
        let mut bytes = 0;
        while let Some(ready) = self.queue.front() {
            let size = 1024 + proofs_size(&ready.emission);
            if batch.records.len() == BATCH_MAX || (bytes > 0 && bytes + size > BATCH_BYTES_MAX) {
                break;
            }
            bytes += size;
            batch.records.extend(self.queue.pop_front());
        }
        (!batch.records.is_empty()).then_some(batch)
    }

    fn expect(&self) -> Expect {
        Expect {
            subjects: self.subjects.clone(),
            last_sequence: self.last_sequence,
        }
    }

    pub(crate) fn stored(&mut self, stored: Stored) {
        self.last_sequence = stored.sequence;
    }
}

fn proofs_size(emission: &Emission) -> usize {
    match &emission.outcome {
        push0_domain::message::EmissionOutcome::Proved(proofs) => proofs
            .iter()
            .map(|p| push0_domain::Payloads::one(p.payload.clone()).inline_len() + 256)
            .sum(),
        _ => 0,
    }
}

/// Records that are stored together.
pub(crate) struct Batch {
    pub(crate) records: Vec<Ready>,
    bus: Bus,
    expect: Expect,
}

impl Batch {
    /// Stores them; then what they settle can be acknowledged.
    pub(crate) async fn store(self) -> (Vec<Ready>, Result<Stored, BusError>) {
        let stored = self.try_store().await;
        (self.records, stored)
    }

    async fn try_store(&self) -> Result<Stored, BusError> {
        let mut messages = Vec::with_capacity(self.records.len());
        for ready in &self.records {
            let subject = subject::proof(&ready.emission.pipeline, ready.emission.last.number);
            let message = Message::new(subject.clone(), &ready.emission, &ready.trace);
            messages.push(message.map_err(|source| BusError::Corrupt {
                what: subject,
                source,
            })?);
        }
        if let Some(first) = messages.first_mut() {
            *first = first.clone().expect(&self.expect);
        }
        let stored = match <[Message; 1]>::try_from(messages) {
            Ok([only]) => self.bus.publish_patiently(only, PATIENCE).await,
            Err(several) => self.bus.publish_batch(several).await,
        };
        stored.map_err(|error| match error {
            // The log has a record that we did not see: this collector's view is out of date.
            PublishError::Unexpected { .. } => BusError::Interrupted,
            other => other.into(),
        })
    }
}
