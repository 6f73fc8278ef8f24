//! When a leader has lost its source, and another process may reach it.
//!
//! One failed request is no loss: a node that drops a connection, or answers 502 while it restarts, answers the next
//! request. The loss is counted from the beginning of the first request that failed, over all URLs of the source.

use std::time::Duration;

/// The failed requests since the last answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Silence {
    failed: usize,
    /// When the first of them began.
    since: Duration,
}

impl Silence {
    /// Notes an answer.
    pub fn answered(&mut self) {
        self.failed = 0;
    }

    /// Notes a request that began at `began` and failed.
    pub fn failed(&mut self, began: Duration) {
        if self.failed == 0 {
            self.since = began;
        }
        self.failed += 1;
    }

    /// Returns whether the source is out of reach at `now`: silent for `longest`, at each of its `urls`.
    pub fn is_loss(&self, now: Duration, longest: Duration, urls: usize) -> bool {
        self.failed >= urls.max(1) && now.saturating_sub(self.since) >= longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(2);

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn one_failed_request_after_a_long_pause_is_no_loss() {
        let mut silence = Silence::default();
        silence.answered();
        silence.failed(at(60_000));
        assert!(!silence.is_loss(at(60_001), LONGEST, 1));
        silence.failed(at(60_250));
        assert!(!silence.is_loss(at(61_999), LONGEST, 1));
        assert!(silence.is_loss(at(62_000), LONGEST, 1));
        silence.answered();
        assert!(!silence.is_loss(at(99_000), LONGEST, 1));
    }

    #[test]
    fn a_request_that_timed_out_is_a_loss_unless_another_url_was_not_asked() {
        let mut silence = Silence::default();
        silence.failed(at(0));
        assert!(silence.is_loss(at(5000), LONGEST, 1));
        assert!(!silence.is_loss(at(5000), LONGEST, 2));
        silence.failed(at(5000));
        assert!(silence.is_loss(at(5001), LONGEST, 2));
    }
}
