//! Tracks delivered messages, and when they may be acknowledged.

use std::collections::VecDeque;

/// An unacknowledged message, by its sequence in RESULTS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(pub u64);

/// Most records decided but not stored, in number and in bytes.
const RECORDS_MAX: usize = 512;
const RECORD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The newest delivery, and messages waiting for records to be stored.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    /// The newest message taken in.
    newest: Option<Handle>,
    /// Number of stored records, and sizes of the decided records after them.
    stored: u64,
    decided: VecDeque<usize>,
    bytes: usize,
    /// Messages to acknowledge once this many records are stored.
    settled: VecDeque<(u64, Handle)>,
}

impl Intake {
    /// Takes a message in. Returns whether it is delivered for the first time, since first deliveries come in
    /// order. A redelivered message is either held already, and acknowledging it would remove a message the
    /// state rests on, or was acknowledged.
    pub(crate) fn take_in(&mut self, handle: Handle) -> bool {
        let is_new = self.newest < Some(handle);
        self.newest = self.newest.max(Some(handle));
        is_new
    }

    /// Records the decision of a record of `bytes` bytes.
    pub(crate) fn decided(&mut self, bytes: usize) {
        self.decided.push_back(bytes);
        self.bytes += bytes;
    }

    /// Returns whether more records can be decided before some are stored.
    pub(crate) fn has_room(&self) -> bool {
        self.decided.len() < RECORDS_MAX && self.bytes < RECORD_BYTES_MAX
    }

    /// Handles a message made superfluous by decided records. It is acknowledged once they are stored: a
    /// collector that starts over earlier still needs every message about the block.
    pub(crate) fn settled(&mut self, handle: Handle) -> Vec<Handle> {
        if self.decided.is_empty() {
            return vec![handle];
        }
        let decided = self.stored + self.decided.len() as u64;
        self.settled.push_back((decided, handle));
        Vec::new()
    }

    /// Handles `records` more stored records. Returns the messages to acknowledge.
    pub(crate) fn stored(&mut self, records: usize) -> Vec<Handle> {
        let stored = self.decided.drain(..records.min(self.decided.len()));
        self.stored += stored.len() as u64;
        self.bytes -= stored.sum::<usize>();
        let over = self.settled.iter().take_while(|(count, _)| *count <= self.stored);
        let over = over.count();
        self.settled.drain(..over).map(|(_, handle)| handle).collect()
    }
}
