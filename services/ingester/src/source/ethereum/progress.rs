//! Progress of fetching blocks: the limits learned from a node, and the outcome of one range.

use crate::decide::follow::Effect;

/// Limits on the blocks requested at once.
#[derive(Default)]
pub(super) struct Limits {
    /// Last number of the blocks requested one at a time; `None` if none are.
    pub(super) alone_up_to: Option<u64>,
}

/// Outcome of fetching a range.
pub(super) struct Fetched {
    /// Whether anything was done; then there may be more to do.
    pub(super) any: bool,
    /// The follower's next effect, instead of the rest of the range.
    pub(super) then: Option<Effect>,
}
