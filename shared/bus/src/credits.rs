//! The places of a puller: how many the broker was asked to fill, and since when each waits to be filled.

use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;

/// The unfilled places of a puller.
///
/// A request of the broker expires, and another one follows for the same place. The place waits all the time, so it
/// keeps its instant.
#[derive(Debug, Default)]
pub(crate) struct Credits {
    /// How many places the broker was asked to fill and has not yet.
    asked: usize,
    /// Since when each unfilled place waits, oldest first.
    since: VecDeque<Instant>,
}

impl Credits {
    /// Returns how many places the broker was asked to fill and has not yet.
    pub(crate) fn asked(&self) -> usize {
        self.asked
    }

    /// Handles `free` places at `now`. Returns how many of them the broker is still to be asked for.
    pub(crate) fn frees(&mut self, free: usize, now: Instant) -> usize {
        // A place that the broker was asked to fill may be filled even though it is not free any more.
        let unfilled = free.max(self.asked);
        self.since.resize(unfilled, now);
        unfilled - self.asked
    }

    /// Handles a request for this many places.
    pub(crate) fn requested(&mut self, places: usize) {
        self.asked += places;
    }

    /// Handles the end of a request that left so many places unfilled.
    pub(crate) fn expired(&mut self, unfilled: usize) {
        self.asked = self.asked.saturating_sub(unfilled);
    }

    /// Handles the loss of all requests, but for `received` places that were filled and not taken yet.
    pub(crate) fn lost(&mut self, received: usize) {
        self.asked = received;
    }

    /// Handles a delivery at `now` of a message of this age. Returns how long the message lay in the stream because no
    /// place was open to it. The age comes from two clocks: a place that waited for longer than the message is old
    /// tells that the message did not wait, however the clocks differ.
    pub(crate) fn filled(&mut self, age: Duration, now: Instant) -> Duration {
        self.asked = self.asked.saturating_sub(1);
        let since = self.since.pop_front();
        since.map_or(Duration::ZERO, |since| {
            age.saturating_sub(now.saturating_duration_since(since))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_message_waited_until_the_oldest_place_was_open() {
        let (mut credits, start) = (Credits::default(), Instant::now());
        assert_eq!(credits.frees(2, start), 2);
        credits.requested(2);
        assert_eq!(credits.frees(2, start + ms(5)), 0);
        // Both places were open before this message came.
        assert_eq!(credits.filled(ms(1), start + ms(100)), Duration::ZERO);
        assert_eq!(credits.frees(1, start + ms(101)), 0);
        assert_eq!(credits.filled(ms(1), start + ms(102)), Duration::ZERO);
        assert_eq!(credits.asked(), 0);
        // No place was open for 300 of the 310 ms.
        assert_eq!(credits.frees(1, start + ms(400)), 1);
        credits.requested(1);
        assert_eq!(credits.filled(ms(310), start + ms(410)), ms(300));
        assert_eq!(credits.filled(ms(310), start + ms(410)), Duration::ZERO);
    }

    #[test]
    fn a_place_that_is_asked_for_again_has_waited_since_the_first_time() {
        let (mut credits, start) = (Credits::default(), Instant::now());
        assert_eq!(credits.frees(1, start), 1);
        credits.requested(1);
        credits.expired(1);
        assert_eq!(credits.frees(1, start + ms(2_000)), 1);
        credits.requested(1);
        credits.lost(0);
        assert_eq!(credits.frees(2, start + ms(4_000)), 2);
        credits.requested(2);
        assert_eq!(credits.filled(ms(4_100), start + ms(4_200)), Duration::ZERO);
        assert_eq!(credits.filled(ms(300), start + ms(4_200)), ms(100));
    }

    #[test]
    fn a_place_that_is_taken_otherwise_is_forgotten_unless_the_broker_may_fill_it() {
        let (mut credits, start) = (Credits::default(), Instant::now());
        assert_eq!(credits.frees(1, start), 1);
        credits.requested(1);
        assert_eq!(credits.frees(0, start + ms(10)), 0);
        assert_eq!(credits.filled(ms(1), start + ms(20)), Duration::ZERO);
        // Messages that were received before the requests were lost count as asked for.
        assert_eq!(credits.frees(3, start + ms(30)), 3);
        credits.requested(3);
        credits.lost(1);
        assert_eq!(credits.asked(), 1);
        assert_eq!(credits.frees(1, start + ms(40)), 0);
        assert_eq!(credits.filled(ms(60), start + ms(50)), ms(40));
        assert_eq!(credits.frees(1, start + ms(60)), 1);
    }
}
