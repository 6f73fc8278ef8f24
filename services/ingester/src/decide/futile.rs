//! When a leader hands its lead over although its source answers.
//!
//! A node may be pruned, lag behind, or have lost its peers, while the node of a standby is sound. The leader cannot see
//! that node, so the leader hands over the lead. After each handover in vain, the leader keeps its next term for twice as
//! long: two processes with nodes of equally little use change the lead seldom.

use std::time::Duration;

/// How long a leader tries at first.
pub const FIRST: Duration = Duration::from_secs(10);
/// How long a leader tries at most.
pub const LONGEST: Duration = Duration::from_secs(15 * 60);

/// The looks at a source that led to nothing, over all terms of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Futile {
    /// When the first of them was.
    since: Option<Duration>,
    patience: Duration,
}

impl Default for Futile {
    fn default() -> Self {
        Self {
            since: None,
            patience: FIRST,
        }
    }
}

impl Futile {
    /// Notes a look that was of use.
    pub fn worked(&mut self) {
        *self = Self::default();
    }

    /// Notes the begin of a term.
    pub fn began(&mut self) {
        self.since = None;
    }

    /// Notes a look at `now` that led to nothing. Returns whether the lead is handed over.
    pub fn failed(&mut self, now: Duration) -> bool {
        let since = *self.since.get_or_insert(now);
        let is_over = now.saturating_sub(since) >= self.patience;
        if is_over {
            self.since = None;
            self.patience = (self.patience * 2).min(LONGEST);
        }
        is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lead_of_no_use_is_handed_over_after_longer_and_longer_times() {
        let mut futile = Futile::default();
        let mut given_up = |from: u64, to: u64| -> Vec<u64> {
            let seconds = from..to;
            seconds
                .filter(|s| futile.failed(Duration::from_secs(*s)))
                .collect()
        };
        assert_eq!(given_up(0, 80), [10, 31, 72]);
        // The other process led meanwhile.
        futile.began();
        assert!(!futile.failed(Duration::from_secs(1000)));
        assert!(futile.failed(Duration::from_secs(1080)));
        futile.worked();
        assert!(!futile.failed(Duration::from_secs(2000)));
        assert!(futile.failed(Duration::from_secs(2010)));
    }

    #[test]
    fn no_time_is_longer_than_the_longest() {
        let mut futile = Futile::default();
        let hands = (0..86_400)
            .filter(|s| futile.failed(Duration::from_secs(*s)))
            .count();
        assert!((96..110).contains(&hands), "{hands} times in a day");
    }
}
