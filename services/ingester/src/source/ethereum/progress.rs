//! Progress of fetching blocks: the limits learned from a node, and the outcome of one range.

use crate::decide::{WINDOW, follow::Effect};

/// Limits on the blocks requested at once.
#[derive(Default)]
pub(super) struct Limits {
    /// Last number of the blocks requested one at a time; `None` if none are.
    alone_up_to: Option<u64>,
    /// Bytes of the last block requested by itself, for which there should be room before the next one is requested.
    pub(super) expected: u64,
}

impl Limits {
    /// Notes that the answer for this block is too large for several at once.
    pub(super) fn large_from(&mut self, number: u64) {
        self.alone_up_to = Some(number.saturating_add(WINDOW - 1));
    }

    /// Returns whether this block is to be requested by itself. Blocks after the last large one lift the limit.
    pub(super) fn is_alone(&mut self, number: u64) -> bool {
        let is_alone = self.alone_up_to.is_some_and(|last| number <= last);
        if !is_alone {
            self.alone_up_to = None;
        }
        is_alone
    }
}

/// Outcome of fetching a range.
#[derive(Default)]
pub(super) struct Fetched {
    /// Whether anything was done; then there may be more to do.
    pub(super) any: bool,
    /// The follower's next effect, instead of the rest of the range.
    pub(super) then: Option<Effect>,
    /// The block of the range that the node does not have.
    pub(super) lacks: Option<u64>,
}
