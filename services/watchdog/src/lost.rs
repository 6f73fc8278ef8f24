//! Finds blocks that no message names any more.
//!
//! A block without a record always has a message in some stream: its announcement, a ready stage, a task, a check or a
//! result (docs/adr/0004). A prover that acknowledges a task and stores no result, or one that cannot be read, breaks
//! this: the block would wait for ever, and with it all blocks behind it. Only the next block of a pipeline is looked
//! at, since any other becomes the next one.

use push0_domain::{PipelineId, Timestamp};
use std::{collections::BTreeMap, time::Duration};

/// How long a pipeline must stand before its next block is looked at.
pub const STANDS_FOR: Duration = Duration::from_secs(4);
/// The pause after a block was asked for again; it doubles each time.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The next block of every pipeline, and for how long it has been the next one.
#[derive(Debug, Default)]
pub struct Heads(BTreeMap<PipelineId, Head>);

#[derive(Clone, Copy, Debug)]
struct Head {
    number: u64,
    since: Timestamp,
    /// Whether no message named the block at the last look. A single look may miss a message between two streams.
    is_unnamed: bool,
    /// How often the block was asked for again.
    asked: u32,
}

impl Heads {
    /// Notes the next block of a pipeline. Returns whether it stands, so that the caller should look for messages
    /// about it.
    pub fn stands(&mut self, pipeline: &PipelineId, next: u64, now: Timestamp) -> bool {
        let fresh = Head {
            number: next,
            since: now,
            is_unnamed: false,
            asked: 0,
        };
        let head = self.0.entry(pipeline.clone()).or_insert(fresh);
        if head.number != next {
            *head = fresh;
        }
        now.since(head.since) >= STANDS_FOR
    }

    /// Handles a look at the next block of a pipeline. Returns the number of the attempt to ask for, if two looks in a
    /// row found no message.
    pub fn looked(&mut self, pipeline: &PipelineId, is_named: bool, now: Timestamp) -> Option<u32> {
        let head = self.0.get_mut(pipeline)?;
        if is_named || !std::mem::replace(&mut head.is_unnamed, true) {
            head.is_unnamed = !is_named;
            return None;
        }
        head.asked += 1;
        head.is_unnamed = false;
        let pause = FIRST_PAUSE.saturating_mul(1 << head.asked.min(6)) / 2;
        // The block is looked at again only after the pause.
        head.since = now.plus(pause.min(LONGEST_PAUSE));
        // The first attempt is the lost one, and its number is spent.
        Some(head.asked + 1)
    }

    /// Forgets pipelines that have no definition any more.
    pub fn keep(&mut self, is_kept: impl Fn(&PipelineId) -> bool) {
        self.0.retain(|pipeline, _| is_kept(pipeline));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp(1_000_000_000).plus(Duration::from_secs(seconds))
    }

    fn demo() -> PipelineId {
        "demo".parse().unwrap()
    }

    #[test]
    fn a_block_is_asked_for_after_two_looks_without_a_message_and_then_ever_more_seldom() {
        let mut heads = Heads::default();
        assert!(!heads.stands(&demo(), 7, at(0)));
        assert!(heads.stands(&demo(), 7, at(4)));
        assert_eq!(
            heads.looked(&demo(), false, at(4)),
            None,
            "a message may be on its way"
        );
        assert_eq!(heads.looked(&demo(), false, at(7)), Some(2));
        assert!(!heads.stands(&demo(), 7, at(20)));
        assert!(heads.stands(&demo(), 7, at(21)));
        assert_eq!(heads.looked(&demo(), false, at(21)), None);
        assert_eq!(heads.looked(&demo(), false, at(24)), Some(3));
        assert!(!heads.stands(&demo(), 7, at(47)));
        assert!(heads.stands(&demo(), 7, at(48)));
    }

    #[test]
    fn a_block_with_a_message_and_one_that_moves_are_left_alone() {
        let mut heads = Heads::default();
        heads.stands(&demo(), 7, at(0));
        assert_eq!(heads.looked(&demo(), false, at(4)), None);
        assert_eq!(heads.looked(&demo(), true, at(7)), None);
        assert_eq!(
            heads.looked(&demo(), false, at(10)),
            None,
            "looks count only in a row"
        );
        assert!(!heads.stands(&demo(), 8, at(13)));
        assert_eq!(heads.looked(&demo(), false, at(17)), None);
    }
}
