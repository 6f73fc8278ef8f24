//! Instants as plain values: decisions receive the time as an argument and never read a clock.

use serde::{Deserialize, Serialize};
use std::{fmt, time::Duration};

/// An instant in microseconds since the Unix epoch, by the clock of the process that wrote the value.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// Returns the instant `duration` later, saturating at the largest timestamp.
    pub fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(micros(duration)))
    }

    /// Returns the instant `duration` earlier, saturating at the epoch.
    pub fn minus(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(micros(duration)))
    }

    /// Returns the time since `earlier`. The result is zero if `earlier` lies in the future, which happens
    /// when the clocks of two machines differ.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}us", self.0)
    }
}

/// Converts a duration to whole microseconds, saturating above 584,000 years.
pub fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
