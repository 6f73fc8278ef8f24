//! Duration of the last attempts, and the expected end of running ones.

use std::{collections::VecDeque, time::Duration};

/// Number of remembered attempts: enough to see whether they resemble each other, few enough to follow a
/// change of load.
const RECENT: usize = 8;

/// Durations of the last attempts.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    recent: VecDeque<Duration>,
    /// Mean duration; `None` before the first attempt has ended.
    mean: Option<Duration>,
    /// Difference between the longest and the shortest; `None` before the second attempt has ended.
    spread: Option<Duration>,
}

/// Progress of a running attempt, compared with the attempts before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The end is far away or cannot be predicted.
    Running,
    /// The end is expected within the window.
    EndsSoon,
    /// The end was expected more than a whole window ago.
    Overdue,
}

impl Pace {
    pub(crate) fn took(&mut self, time: Duration) {
        if self.recent.len() == RECENT {
            self.recent.pop_front();
        }
        self.recent.push_back(time);
        let count = u32::try_from(self.recent.len()).unwrap_or(u32::MAX);
        self.mean = Some(self.recent.iter().sum::<Duration>() / count);
        let (least, most) = (self.recent.iter().min(), self.recent.iter().max());
        let spread = least.zip(most).map(|(least, most)| *most - *least);
        self.spread = spread.filter(|_| count > 1);
    }

    /// Returns whether attempts take less than `limit` on average; false before the first has ended.
    pub(crate) fn is_below(&self, limit: Duration) -> bool {
        self.mean.is_some_and(|mean| mean < limit)
    }

    /// Returns the phase of an attempt that has run for `ran`. The end is predicted only if the last
    /// attempts differ by no more than the window.
    pub(crate) fn phase(&self, ran: Duration, window: Duration) -> Phase {
        match (self.mean, self.spread) {
            (Some(mean), _) if ran > mean + window => Phase::Overdue,
            (Some(mean), Some(spread)) if spread <= window && ran + window >= mean => Phase::EndsSoon,
            _ => Phase::Running,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_millis(200);

    fn pace(times_ms: &[u64]) -> Pace {
        let mut pace = Pace::default();
        times_ms
            .iter()
            .for_each(|ms| pace.took(Duration::from_millis(*ms)));
        pace
    }

    fn phase(times_ms: &[u64], ran_ms: u64) -> Phase {
        pace(times_ms).phase(Duration::from_millis(ran_ms), WINDOW)
    }

    #[test]
    fn an_end_is_foretold_by_attempts_that_resemble_each_other() {
        assert_eq!(phase(&[7000, 7020], 6000), Phase::Running);
        assert_eq!(phase(&[7000, 7020], 6811), Phase::EndsSoon);
        assert_eq!(phase(&[7000, 7020], 7200), Phase::EndsSoon);
        assert_eq!(phase(&[7000, 7020], 7211), Phase::Overdue);
    }

    #[test]
    fn nothing_is_foretold_by_one_attempt_or_by_different_ones() {
        assert_eq!(phase(&[], 7000), Phase::Running);
        assert_eq!(phase(&[7000], 6900), Phase::Running);
        assert_eq!(phase(&[1000, 7000], 3900), Phase::Running);
    }

    #[test]
    fn what_was_long_ago_is_forgotten() {
        let mut times = vec![60_000];
        times.extend([50; RECENT]);
        assert!(pace(&times).is_below(Duration::from_millis(51)));
        assert!(!pace(&times[..RECENT]).is_below(Duration::from_millis(51)));
        assert!(
            !pace(&[]).is_below(Duration::MAX),
            "nothing is known before the first"
        );
    }
}
