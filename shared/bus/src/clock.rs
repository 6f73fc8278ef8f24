//! The wall clock, read where a message is about to be written.

use push0_domain::Timestamp;
use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the current time, for messages about to be written. Decisions take the time as
/// an argument instead.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(push0_domain::time::micros(since))
}
