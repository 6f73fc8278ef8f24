//! Retry delays: exponential, with jitter, bounded.

use std::time::{Duration, Instant};

/// A growing delay with jitter. Each delay is drawn at random from the upper half of a bound, and the bound
/// doubles each time.
///
/// The jitter spreads out the reconnects of a fleet that lost the broker at the same moment.
#[derive(Debug, Clone)]
pub struct Backoff {
    bound: Duration,
    least: Duration,
    most: Duration,
}

impl Backoff {
    /// Creates a backoff whose bound grows from `least` to `most`.
    pub fn new(least: Duration, most: Duration) -> Self {
        Self {
            bound: least,
            least,
            most,
        }
    }

    /// Returns the next delay and doubles the bound, up to `most`.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.bound.mul_f64(rand::random_range(0.5..=1.0));
        self.bound = (self.bound * 2).min(self.most);
        delay
    }

    /// Sleeps for the next delay. For retries where no event announces that the next try can succeed.
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.next_delay()).await;
    }

    /// Sleeps for the next delay after the failure of a session that began at this instant.
    pub async fn pause_after(&mut self, began: Instant) {
        self.note(began.elapsed());
        self.pause().await;
    }

    /// Resets the bound if a session lasted longer than the longest delay: it had begun to work, so its
    /// failure counts as a first one.
    fn note(&mut self, lasted: Duration) {
        if lasted > self.most {
            self.reset();
        }
    }

    /// Resets the bound to `least`; called after a success.
    pub fn reset(&mut self) {
        self.bound = self.least;
    }
}

impl Default for Backoff {
    /// Returns a backoff from 50 ms to 500 ms: short enough to add little to a broker's restart or an
    /// election, long enough that an hour without a broker costs nothing.
    fn default() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_millis(500))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_session_that_worked_for_a_while_resets_the_delay() {
        let most = Duration::from_millis(500);
        let mut backoff = Backoff::new(Duration::from_millis(50), most);
        for _ in 0..5 {
            backoff.note(most);
            backoff.next_delay();
        }
        assert_eq!(backoff.bound, most);
        backoff.note(most + Duration::from_millis(1));
        assert_eq!(backoff.bound, Duration::from_millis(50));
    }
}
