//! Begins ranges anew whose work is lost.

use super::Active;
use crate::{looking::Found, standing::Look};
use push0_bus::{BusError, now};

impl Active<'_> {
    /// Begins to look for the work of ranges that stand. The collector goes on meanwhile, since it needs these streams for
    /// nothing else.
    pub(super) fn look_for_lost_ranges(&mut self) {
        let Some(core) = &self.core else { return };
        let waiting = core.waiting_ranges();
        let ranges = waiting.keys().copied().collect();
        let is_due = self.looking.standing.is_look_due(waiting, now());
        // A stage that is on its way to STAGES is in no stream.
        if is_due && self.outbox.is_empty() {
            self.looking.begin(self.bus, self.name, ranges);
        }
    }

    /// Handles a look. The next one makes up for one that failed.
    pub(super) fn looked(&mut self, found: Result<Found, BusError>) {
        let (Ok(found), Some(core)) = (found, &mut self.core) else {
            return;
        };
        let (pipelines, name) = (&self.pipelines, self.name);
        let definition = |revision| pipelines.cached(name, revision);
        let look = Look {
            in_flight: core.ranges_in_flight(&found.attempts, definition),
            results_to: found.results_to,
        };
        let standing = &mut self.looking.standing;
        standing.is_look_due(core.waiting_ranges(), now());
        for (range, newest) in standing.looked(&look, self.results.read_to(), now()) {
            tracing::warn!(
                pipeline = %self.name, block.number = range.number, block.first = range.first(),
                "the work of a range is lost: a prover took a task away and gave no result. The range is begun anew"
            );
            self.metrics.lost.with_label_values(&[self.name.as_str()]).inc();
            core.lost(range, newest);
        }
    }
}
