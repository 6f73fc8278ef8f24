//! Records to store, in batches of which each goes behind the one before.
//!
//! The log itself is the frontier. A record is stored only behind the one the collector saw last, so two
//! collectors, or one that emits again after a crash, cannot emit a block twice or out of order. Records
//! ready together are sent together.

use crate::{intake::Handle, record};
use push0_domain::{Timestamp, message::Emission, trace::TraceContext};
use std::collections::VecDeque;

/// Most records in flight, in number and in bytes, so that the connection is not held up for long.
const BATCH_MAX: usize = 256;
const BATCH_BYTES_MAX: usize = 2 * 1024 * 1024;

/// A record on its way into the log.
#[derive(Debug)]
pub struct Ready {
    /// The record to store.
    pub emission: Box<Emission>,
    /// The traces ended by the record, its own first.
    pub traces: Vec<TraceContext>,
    /// Messages to acknowledge when the record is stored.
    pub(super) handles: Vec<Handle>,
    /// When the last result of the record's proofs was stored, see [`Step::Emit`](crate::decide::Step::Emit).
    pub ready_at: Option<Timestamp>,
}

/// Records in the order of decision: those being stored, and those behind them.
#[derive(Debug, Default)]
pub(super) struct Records {
    pub(super) batch: Vec<Ready>,
    waiting: VecDeque<Ready>,
}

impl Records {
    pub(super) fn push(&mut self, ready: Ready) {
        self.waiting.push_back(ready);
    }

    /// Forms the next batch, unless one is being stored. Returns whether there is one to store.
    pub(super) fn next_batch(&mut self) -> bool {
        if !self.batch.is_empty() {
            return false;
        }
        let mut bytes = 0;
        while let Some(ready) = self.waiting.front() {
            let size = record::size(&ready.emission);
            if self.batch.len() == BATCH_MAX || (bytes > 0 && bytes + size > BATCH_BYTES_MAX) {
                break;
            }
            bytes += size;
            self.batch.extend(self.waiting.pop_front());
        }
        !self.batch.is_empty()
    }
}
