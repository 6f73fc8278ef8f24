//! Retry delays: exponential, with jitter, bounded.

use std::time::Duration;

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
