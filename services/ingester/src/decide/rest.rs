//! How long a pipeline leaves a shared node to the other pipelines, after its own turn.
//!
//! A node that takes its time for a large block keeps the other pipelines of the process waiting. Its pipeline therefore
//! rests for as long as it had its turn, unless no other pipeline wants one: others have half of the time at least.

use std::time::Duration;

/// The end of a turn, and how long the turn was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rest {
    /// When the turn ended.
    pub ended_at: Duration,
    /// How long the turn was.
    pub held: Duration,
}

impl Rest {
    /// Returns whether the pipeline may ask for a turn at `now`.
    pub fn is_over(&self, now: Duration, others_want: bool) -> bool {
        !others_want || now.saturating_sub(self.ended_at) >= self.held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_have_as_much_time_as_a_slow_pipeline_has_had() {
        let at = Duration::from_secs;
        let rest = Rest {
            ended_at: at(100),
            held: at(40),
        };
        assert!(!rest.is_over(at(139), true));
        assert!(rest.is_over(at(139), false));
        assert!(rest.is_over(at(140), true));
    }
}
