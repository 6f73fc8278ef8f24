//! Findings about a chain that the follower cannot follow.

use crate::decide::follow::Stuck;
use tokio::time::Instant;

/// The findings about a chain that cannot be followed.
#[derive(Default)]
pub(super) struct Explained {
    /// How many nodes gave no chain to follow, one after the other.
    pub(super) asked: usize,
    /// The last trouble that was explained, because an explanation costs requests.
    pub(super) explained: Option<(Stuck, Instant, String)>,
}
