//! The end of a source that was not asked to stop.

use crate::publisher::Deposed;
use std::time::Duration;

/// Time for which a leader keeps the lead without reaching its source. A node restarted by hand takes
/// longer; a node that dropped a connection answers the next request.
pub(super) const OUT_OF_REACH_MAX: Duration = Duration::from_secs(2);

/// Reasons why a source ended by itself.
pub(crate) enum Ended {
    /// Another process leads.
    Deposed,
    /// The work begins again from the stored state.
    Again,
    /// The source was not reached for [`OUT_OF_REACH_MAX`].
    OutOfReach,
    /// The node named here answers, and gives none of the next blocks.
    OfNoUse(String),
}

impl From<Deposed> for Ended {
    fn from(Deposed: Deposed) -> Self {
        Self::Deposed
    }
}
