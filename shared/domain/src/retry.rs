//! Pauses before further attempts at a task.

use serde::{Deserialize, Serialize};
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

/// How many failed attempts a task may have of its own, unless the stage says otherwise.
pub const ATTEMPTS_DEFAULT: u32 = 3;
/// How many attempts of a task may die with their prover, unless the stage says otherwise. Machines die more
/// often than tasks kill them, so deaths have a larger budget than failures.
pub const DEATHS_DEFAULT: u32 = 10;

/// The pauses between the attempts at a task: `retry` of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// The pause after the first failed attempt. Each further failure doubles the pause.
    pub first: Duration,
    /// The longest pause.
    pub longest: Duration,
}

/// Suits a slot of 12 s: after an outage the next attempt starts within the slot.
impl Default for Retry {
    fn default() -> Self {
        Self {
            first: Duration::from_millis(200),
            longest: Duration::from_secs(10),
        }
    }
}

impl Retry {
    /// Returns the pause after `failed` failed attempts: doubled with each failure, up to 25 % shorter or
    /// longer, and at most [`Self::longest`]. `seed` decides the difference, so that tasks that failed
    /// together are not tried together again.
    pub fn pause(&self, failed: u32, seed: impl Hash) -> Duration {
        let Some(doublings) = failed.checked_sub(1) else {
            return Duration::ZERO;
        };
        let pause = self
            .first
            .saturating_mul(1 << doublings.min(30))
            .min(self.longest);
        let mut hasher = DefaultHasher::new();
        (seed, failed).hash(&mut hasher);
        let percent = u32::try_from(hasher.finish() % 51).unwrap_or_default() + 75;
        (pause.saturating_mul(percent) / 100).min(self.longest)
    }
}
