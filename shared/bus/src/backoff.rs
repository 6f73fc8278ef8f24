//! How long to wait before the next try: exponential, with jitter, bounded.

use std::time::Duration;

/// A growing, jittered delay: each is drawn from the upper half of a bound that doubles.
///
/// The jitter keeps a fleet that lost the broker together from coming back together.
#[derive(Debug, Clone)]
pub struct Backoff {
    bound: Duration,
    least: Duration,
    most: Duration,
}

impl Backoff {
    /// Delays from `least` up to `most`.
    pub fn new(least: Duration, most: Duration) -> Self {
        Self {
            bound: least,
            least,
            most,
        }
    }

    /// The next delay.
    pub fn next_delay(&mut self) -> Duration {
        let delay = self.bound.mul_f64(rand::random_range(0.5..=1.0));
        self.bound = (self.bound * 2).min(self.most);
        delay
    }

    /// Waits for the next delay: nothing tells when the next try would succeed, so that there is nothing
    /// else to wait for.
    pub async fn pause(&mut self) {
        tokio::time::sleep(self.next_delay()).await;
    }

    /// Starts again from the least delay, after a success.
    pub fn reset(&mut self) {
        self.bound = self.least;
    }
}

impl Default for Backoff {
    /// From 50 ms to 500 ms: quick enough that little is added to a broker's restart or an election, slow
    /// enough that an hour without a broker costs nothing.
    fn default() -> Self {
        Self::new(Duration::from_millis(50), Duration::from_millis(500))
    }
}
