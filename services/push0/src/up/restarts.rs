//! Delays before a dead process is restarted.

use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// First delay: a single crash costs little more than the start.
const LEAST: Duration = Duration::from_millis(100);
/// Longest delay. A process that cannot run costs almost nothing, and is back soon after the cause is gone.
const MOST: Duration = Duration::from_secs(5);
/// Run time after which a process counts as healthy: its next death starts again with the first delay.
const STEADY: Duration = Duration::from_secs(10);
/// Number of deaths within [`CHRONIC_WITHIN`] after which the operator is told.
const CHRONIC: usize = 10;
const CHRONIC_WITHIN: Duration = Duration::from_secs(60);

/// Recent deaths of one process.
#[derive(Debug)]
pub(crate) struct Restarts {
    next: Duration,
    deaths: VecDeque<Instant>,
}

/// Consequence of a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Restart {
    /// Time to wait before the next start.
    pub(crate) after: Duration,
    /// Whether to report that the process dies again and again.
    pub(crate) chronic: bool,
}

impl Restarts {
    pub(crate) fn new() -> Self {
        Self {
            next: LEAST,
            deaths: VecDeque::new(),
        }
    }

    /// Records a death after a run time of `ran`.
    pub(crate) fn died(&mut self, ran: Duration, now: Instant) -> Restart {
        if ran >= STEADY {
            *self = Self::new();
        }
        let after = self.next;
        self.next = (self.next * 2).min(MOST);
        self.deaths.push_back(now);
        while self
            .deaths
            .front()
            .is_some_and(|death| now.duration_since(*death) > CHRONIC_WITHIN)
        {
            self.deaths.pop_front();
        }
        let chronic = self.deaths.len() >= CHRONIC;
        if chronic {
            // The report is repeated after the same number of further deaths.
            self.deaths.clear();
            self.next = MOST;
            return Restart { after: MOST, chronic };
        }
        Restart { after, chronic }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_5_s_and_the_tenth_death_is_reported() {
        let mut restarts = Restarts::new();
        let mut now = Instant::now();
        let mut seen = Vec::new();
        for _ in 0..12 {
            let restart = restarts.died(Duration::ZERO, now);
            now += restart.after;
            seen.push((restart.after.as_millis(), restart.chronic));
        }
        let delays: Vec<u128> = seen.iter().map(|(after, _)| *after).collect();
        assert_eq!(
            delays,
            [100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000, 5000, 5000, 5000]
        );
        let chronic: Vec<usize> = seen
            .iter()
            .enumerate()
            .filter(|(_, s)| s.1)
            .map(|(at, _)| at)
            .collect();
        assert_eq!(chronic, [9]);
    }

    #[test]
    fn a_process_that_ran_well_starts_over() {
        let mut restarts = Restarts::new();
        let now = Instant::now();
        for _ in 0..5 {
            restarts.died(Duration::ZERO, now);
        }
        let restart = restarts.died(STEADY, now + STEADY);
        assert_eq!(
            restart,
            Restart {
                after: LEAST,
                chronic: false
            }
        );
    }
}
