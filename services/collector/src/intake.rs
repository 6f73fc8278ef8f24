//! Which messages were taken in, and which may be let go of.

use crate::state::Handle;
use std::collections::{BTreeSet, VecDeque};

/// How many messages are remembered: more than can be unacknowledged at a time.
const SEEN_MAX: usize = 1 << 18;

/// What came, and what waits for records to be stored.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    seen: BTreeSet<Handle>,
    /// How many records were decided, and how many of them are stored.
    decided: u64,
    stored: u64,
    /// What is settled by the records up to the one of this count.
    settled: VecDeque<(u64, Handle)>,
}

impl Intake {
    /// Whether a message comes for the first time. One that comes again is held already, and
    /// acknowledging it would take away what the state rests on.
    pub(crate) fn is_new(&self, handle: Handle) -> bool {
        // What was forgotten because the memory is full came long ago.
        let is_old = self.seen.len() == SEEN_MAX && self.seen.first().is_some_and(|first| handle < *first);
        !is_old && !self.seen.contains(&handle)
    }

    /// Takes a message in. Returns whether it is new.
    pub(crate) fn take_in(&mut self, handle: Handle) -> bool {
        let is_new = self.is_new(handle) && self.seen.insert(handle);
        if self.seen.len() > SEEN_MAX {
            self.seen.pop_first();
        }
        is_new
    }

    /// A record was decided.
    pub(crate) fn decided(&mut self) {
        self.decided += 1;
    }

    /// A message is superfluous because of the records that are decided. It is let go of when they are
    /// stored: a collector that starts over before then knows of a block only what is left of it.
    pub(crate) fn settled(&mut self, handle: Handle) -> Vec<Handle> {
        if self.stored == self.decided {
            return vec![handle];
        }
        self.settled.push_back((self.decided, handle));
        Vec::new()
    }

    /// So many more records are stored.
    pub(crate) fn stored(&mut self, records: usize) -> Vec<Handle> {
        self.stored += records as u64;
        let over = self.settled.iter().take_while(|(count, _)| *count <= self.stored);
        let over = over.count();
        self.settled.drain(..over).map(|(_, handle)| handle).collect()
    }
}
