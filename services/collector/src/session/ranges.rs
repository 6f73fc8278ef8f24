//! Ranges that stand: the looks for their work, and the new start after a loss.

use super::{Found, Op, Session};
use crate::standing::Look;
use push0_domain::{BlockKey, Timestamp};

impl Session {
    /// Looks for the work of ranges, if one of them stands. A stage on its way to STAGES is in no stream, so the look waits
    /// for it.
    pub(super) fn look_for_ranges(&mut self, now: Timestamp) {
        let waiting = self.core.waiting_ranges();
        let ranges = waiting.keys().copied().collect();
        self.standing.note(waiting, now);
        if self.standing.is_look_due(now) && self.in_flight.is_empty() {
            self.ops.push_back(Op::LookForRanges(ranges));
        }
    }

    /// Handles a look, by a collector that has read RESULTS up to `read_to`. Returns the ranges begun anew.
    pub fn ranges_looked(&mut self, found: &Found, read_to: u64, now: Timestamp) -> Vec<BlockKey> {
        let definitions = &self.definitions;
        let definition = |revision| definitions.get(&revision).cloned();
        let look = Look {
            in_flight: self.core.ranges_in_flight(&found.attempts, definition),
            results_to: found.results_to,
        };
        // Ranges may have moved while the streams were read.
        self.standing.note(self.core.waiting_ranges(), now);
        let lost = self.standing.looked(&look, read_to, now);
        for (range, newest) in &lost {
            self.core.lost(*range, *newest);
        }
        self.advance(now);
        lost.into_keys().collect()
    }
}
