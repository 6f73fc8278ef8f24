//! Where a pipeline with `start = "latest"` begins.
//!
//! A node that still syncs answers the genesis or an old block as its latest one, and the first block is fixed for
//! good. Nodes say that they sync, but only after they found peers. So the newest block must also be fresh. A chain
//! at rest, such as a development chain without transactions, has no fresh block: there a stale block will do once it
//! has stood still for as long as a fresh one may be old. The genesis of a chain that was started just now has to stand
//! still for a few seconds only.

use push0_domain::BlockRef;
use std::time::Duration;

/// How long a fresh genesis must stand still.
const GENESIS_RESTS: Duration = Duration::from_secs(5);

/// The node's newest block, as the ingester looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Number and hash of the block.
    pub head: BlockRef,
    /// The age of the block by its timestamp; zero if the timestamp lies in the future.
    pub age: Duration,
    /// Whether the node says that it syncs. A node without an answer to this question is taken to say no.
    pub syncs: bool,
    /// The time of the look, since any fixed moment.
    pub at: Duration,
}

/// Reasons not to begin yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wait {
    /// The node says that it syncs.
    #[error(
        "the node still syncs and is at block {number}: a pipeline with source.start = \"latest\" begins once the node has the newest block"
    )]
    Syncing {
        /// Number of the node's newest block.
        number: u64,
    },
    /// The newest block is old, or the genesis.
    #[error(
        "the node's newest block, {number}, is {} old: it begins there after {} without a newer one; a number in source.start begins at once",
        seconds(*.age), seconds(*.left)
    )]
    Stale {
        /// Number of the node's newest block.
        number: u64,
        /// Age of the block.
        age: Duration,
        /// How long the block must still stand still.
        left: Duration,
    },
}

/// The looks at a node before a pipeline begins.
#[derive(Clone, Copy, Debug, Default)]
pub struct Begin {
    /// A newest block that is no place to begin, and since when it stands still.
    resting: Option<(BlockRef, Duration)>,
}

impl Begin {
    /// Decides whether the pipeline begins at this block.
    pub fn decide(&mut self, look: &Look, stale_after: Duration) -> Result<(), Wait> {
        let number = look.head.number;
        if look.syncs {
            self.resting = None;
            return Err(Wait::Syncing { number });
        }
        let is_fresh = look.age <= stale_after;
        // A node shows the genesis before it has anything else.
        let rests = match (is_fresh, number) {
            (true, 0) => GENESIS_RESTS.min(stale_after),
            (true, _) => return Ok(()),
            (false, _) => stale_after,
        };
        let (block, since) = match self.resting {
            // Of several nodes, one may lag. Its lower block neither ends the rest of the higher one nor is it a place to
            // begin, until the higher one was not seen for so long that its chain is gone.
            Some((block, since))
                if block == look.head
                    || block.number > number && look.at.saturating_sub(since) < rests.saturating_mul(2) =>
            {
                (block, since)
            }
            _ => (look.head, look.at),
        };
        self.resting = Some((block, since));
        let rested = look.at.saturating_sub(since);
        if block == look.head && rested >= rests {
            return Ok(());
        }
        Err(Wait::Stale {
            number,
            age: look.age,
            left: rests.saturating_sub(rested),
        })
    }
}

fn seconds(duration: Duration) -> String {
    format!("{} s", duration.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use push0_domain::BlockHash;

    const STALE_AFTER: Duration = Duration::from_secs(120);

    fn look(number: u64, age_s: u64, at_s: u64) -> Look {
        Look {
            head: BlockRef {
                number,
                hash: BlockHash([u8::try_from(number % 251).unwrap_or_default(); 32]),
            },
            age: Duration::from_secs(age_s),
            syncs: false,
            at: Duration::from_secs(at_s),
        }
    }

    #[test]
    fn a_fresh_block_is_a_place_to_begin_at_once() {
        assert_eq!(Begin::default().decide(&look(5000, 120, 0), STALE_AFTER), Ok(()));
    }

    #[test]
    fn the_genesis_of_a_node_that_syncs_is_not() {
        let mut begin = Begin::default();
        for at in 0..119 {
            let waits = begin.decide(&look(0, 5000, at), STALE_AFTER);
            assert!(matches!(waits, Err(Wait::Stale { number: 0, .. })), "{waits:?}");
        }
        assert_eq!(begin.decide(&look(5000, 3, 119), STALE_AFTER), Ok(()));
    }

    #[test]
    fn the_genesis_of_a_chain_started_just_now_is_once_it_stood_still() {
        let mut begin = Begin::default();
        for at in 0..5 {
            let waits = begin.decide(&look(0, at, at), STALE_AFTER);
            assert!(matches!(waits, Err(Wait::Stale { number: 0, .. })), "{waits:?}");
        }
        assert_eq!(begin.decide(&look(0, 5, 5), STALE_AFTER), Ok(()));
    }

    #[test]
    fn a_chain_of_old_blocks_that_moves_is_waited_for() {
        let mut begin = Begin::default();
        for at in 0..1000 {
            let waits = begin.decide(&look(at + 1, 5000, at), STALE_AFTER);
            assert!(matches!(waits, Err(Wait::Stale { .. })), "{waits:?}");
        }
    }

    #[test]
    fn a_chain_at_rest_begins_after_a_while() {
        for number in [0, 17] {
            let mut begin = Begin::default();
            assert!(begin.decide(&look(number, 5000, 10), STALE_AFTER).is_err());
            assert!(begin.decide(&look(number, 5119, 129), STALE_AFTER).is_err());
            assert_eq!(begin.decide(&look(number, 5120, 130), STALE_AFTER), Ok(()));
        }
    }

    #[test]
    fn a_node_that_lags_is_no_place_to_begin_and_does_not_keep_another_one_from_being_one() {
        let mut begin = Begin::default();
        for at in 0..120 {
            let number = if at % 2 == 0 { 17 } else { 9 };
            let waits = begin.decide(&look(number, 5000, at), STALE_AFTER);
            assert!(matches!(waits, Err(Wait::Stale { .. })), "{waits:?}");
        }
        assert!(begin.decide(&look(9, 5000, 121), STALE_AFTER).is_err());
        assert_eq!(begin.decide(&look(17, 5000, 122), STALE_AFTER), Ok(()));
        // The chain was started anew.
        let mut begin = Begin::default();
        let begun: Vec<u64> = (0..400)
            .filter(|at| {
                let number = if *at == 0 { 17 } else { 9 };
                begin.decide(&look(number, 5000, *at), STALE_AFTER).is_ok()
            })
            .collect();
        assert_eq!(begun.first(), Some(&360));
    }

    #[test]
    fn a_node_that_says_that_it_syncs_is_believed_however_fresh_its_block_is() {
        let mut begin = Begin::default();
        let syncing = |at| Look {
            syncs: true,
            ..look(17, 5000, at)
        };
        assert_eq!(
            begin.decide(&syncing(0), STALE_AFTER),
            Err(Wait::Syncing { number: 17 })
        );
        // Standing still counts only while the node says that it does not sync.
        assert!(begin.decide(&look(17, 5000, 500), STALE_AFTER).is_err());
        assert!(begin.decide(&syncing(1000), STALE_AFTER).is_err());
        assert!(begin.decide(&look(17, 5000, 1001), STALE_AFTER).is_err());
    }
}
