//! Which messages were taken in, and which may be let go of.

use crate::state::Handle;
use std::collections::VecDeque;

/// The most records that are decided and not stored, in number and in bytes.
const RECORDS_MAX: usize = 512;
const RECORD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What came, and what waits for records to be stored.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    /// The newest message.
    newest: Option<Handle>,
    /// How many records are stored, and the sizes of those that are decided beyond.
    stored: u64,
    decided: VecDeque<usize>,
    bytes: usize,
    /// What is settled by the records up to the one of this count.
    settled: VecDeque<(u64, Handle)>,
}

impl Intake {
    /// Whether a message comes for the first time: they come in order. One that comes again is held
    /// already, and acknowledging it would take away what the state rests on; or it was acknowledged.
    pub(crate) fn is_new(&self, handle: Handle) -> bool {
        self.newest < Some(handle)
    }

    /// Takes a message in. Returns whether it is new.
    pub(crate) fn take_in(&mut self, handle: Handle) -> bool {
        let is_new = self.is_new(handle);
        self.newest = self.newest.max(Some(handle));
        is_new
    }

    /// A record of so many bytes was decided.
    pub(crate) fn decided(&mut self, bytes: usize) {
        self.decided.push_back(bytes);
        self.bytes += bytes;
    }

    /// Whether more records can be decided before some are stored.
    pub(crate) fn has_room(&self) -> bool {
        self.decided.len() < RECORDS_MAX && self.bytes < RECORD_BYTES_MAX
    }

    /// A message is superfluous because of the records that are decided. It is let go of when they are
    /// stored: a collector that starts over before then knows of a block only what is left of it.
    pub(crate) fn settled(&mut self, handle: Handle) -> Vec<Handle> {
        if self.decided.is_empty() {
            return vec![handle];
        }
        let decided = self.stored + self.decided.len() as u64;
        self.settled.push_back((decided, handle));
        Vec::new()
    }

    /// So many more records are stored.
    pub(crate) fn stored(&mut self, records: usize) -> Vec<Handle> {
        let stored = self.decided.drain(..records.min(self.decided.len()));
        self.stored += stored.len() as u64;
        self.bytes -= stored.sum::<usize>();
        let over = self.settled.iter().take_while(|(count, _)| *count <= self.stored);
        let over = over.count();
        self.settled.drain(..over).map(|(_, handle)| handle).collect()
    }
}
