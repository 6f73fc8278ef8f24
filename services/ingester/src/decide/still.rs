//! When a node may have lost its peers: it answers, and its newest block stands still.
//!
//! A chain at rest stands still as well, so this is no failure, only a reason to ask another node.

use push0_domain::BlockRef;
use std::time::Duration;

/// How long a newest block stands still before another node is asked.
pub const STILL_MAX: Duration = Duration::from_secs(30);

/// The newest block seen last, and since when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Still {
    head: Option<(BlockRef, Duration)>,
    /// When it was seen first.
    seen: Duration,
}

impl Still {
    /// Notes the newest block at `now`. Returns whether it has stood still for too long; the time then begins again.
    pub fn looked(&mut self, head: BlockRef, now: Duration) -> bool {
        let since = match self.head {
            Some((block, since)) if block == head => since,
            _ => {
                self.seen = now;
                now
            }
        };
        let is_still = now.saturating_sub(since) >= STILL_MAX;
        self.head = Some((head, if is_still { now } else { since }));
        is_still
    }

    /// Returns how long the newest block has stood still at `now`.
    pub fn lasts(&self, now: Duration) -> Duration {
        now.saturating_sub(self.seen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use push0_domain::BlockHash;

    #[test]
    fn a_newest_block_that_stands_still_is_a_reason_to_ask_another_node_now_and_then() {
        let head = |number| BlockRef {
            number,
            hash: BlockHash::default(),
        };
        let mut still = Still::default();
        let moved = (0..100)
            .filter(|s| still.looked(head(*s), Duration::from_secs(*s)))
            .count();
        assert_eq!(moved, 0);
        let left: Vec<u64> = (100..200)
            .filter(|s| still.looked(head(99), Duration::from_secs(*s)))
            .collect();
        assert_eq!(left, [129, 159, 189]);
        assert_eq!(still.lasts(Duration::from_secs(200)), Duration::from_secs(101));
        still.looked(head(100), Duration::from_secs(200));
        assert_eq!(still.lasts(Duration::from_secs(201)), Duration::from_secs(1));
    }
}
