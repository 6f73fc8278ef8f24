//! When a process that died is started again.

use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// The first delay: a single crash costs little more than the start.
const LEAST: Duration = Duration::from_millis(100);
/// The longest delay: a process that cannot run costs next to nothing, and comes back soon after its
/// cause is gone.
const MOST: Duration = Duration::from_secs(5);
/// A process that ran for so long was well: its next death is a new story.
const STEADY: Duration = Duration::from_secs(10);
/// This many deaths in [`CHRONIC_WITHIN`] are reported.
const CHRONIC: usize = 10;
const CHRONIC_WITHIN: Duration = Duration::from_secs(60);

/// The deaths of one process.
#[derive(Debug)]
pub(crate) struct Restarts {
    next: Duration,
    deaths: VecDeque<Instant>,
}

/// What follows a death.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Restart {
    /// How long to wait before the next start.
    pub(crate) after: Duration,
    /// Whether it is time to say that this does not get better.
    pub(crate) chronic: bool,
}

impl Restarts {
    pub(crate) fn new() -> Self {
        Self {
            next: LEAST,
            deaths: VecDeque::new(),
        }
    }

    /// The process died after it ran for `ran`.
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
            // Said again after as many more.
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
