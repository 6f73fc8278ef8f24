//! How long a node may take for an answer.
//!
//! With a fixed limit, a node that needs a little longer than the limit never answers at all. The limit therefore
//! doubles with each timeout, and falls again when the node has been quick for a while.

use std::time::Duration;

/// The longest limit, as a multiple of the configured one.
pub const GROWTH_MAX: u32 = 8;
/// Answers within a quarter of the limit after which the limit is halved.
const QUICK_MIN: u32 = 8;

/// The time limit of the next request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    least: Duration,
    limit: Duration,
    quick: u32,
}

impl Patience {
    /// Begins with the configured limit.
    pub fn new(least: Duration) -> Self {
        Self {
            least,
            limit: least,
            quick: 0,
        }
    }

    /// Returns the time limit of the next request.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Returns whether the node was slow of late, and is better asked one thing at a time.
    pub fn is_strained(&self) -> bool {
        self.limit > self.least
    }

    /// Notes that a request with this limit got no answer in time. Of several requests at once, the first
    /// timeout raises the limit.
    pub fn timed_out(&mut self, limit: Duration) {
        let most = self.least.saturating_mul(GROWTH_MAX);
        self.limit = self.limit.max(limit.saturating_mul(2)).min(most);
        self.quick = 0;
    }

    /// Notes an answer.
    pub fn answered(&mut self, took: Duration) {
        if took.saturating_mul(4) > self.limit {
            self.quick = 0;
            return;
        }
        self.quick += 1;
        if self.quick >= QUICK_MIN {
            self.quick = 0;
            self.limit = (self.limit / 2).max(self.least);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_node_that_needs_longer_than_the_limit_is_answered_after_all() {
        let mut patience = Patience::new(5 * S);
        patience.timed_out(patience.limit());
        assert_eq!(patience.limit(), 10 * S);
        for _ in 0..100 {
            patience.answered(6 * S);
        }
        assert_eq!(patience.limit(), 10 * S);
    }

    #[test]
    fn requests_at_once_that_time_out_together_raise_the_limit_once() {
        let mut patience = Patience::new(5 * S);
        for _ in 0..4 {
            patience.timed_out(5 * S);
        }
        assert_eq!(patience.limit(), 10 * S);
    }

    #[test]
    fn the_limit_has_a_limit_and_falls_when_the_node_is_quick_again() {
        let mut patience = Patience::new(5 * S);
        for _ in 0..50 {
            patience.timed_out(patience.limit());
        }
        assert_eq!(patience.limit(), 40 * S);
        for _ in 0..3 * QUICK_MIN {
            assert!(patience.is_strained());
            patience.answered(S);
        }
        assert_eq!(patience.limit(), 5 * S);
        patience.answered(Duration::ZERO);
        assert!(!patience.is_strained());
    }
}
