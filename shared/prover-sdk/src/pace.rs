//! How long attempts take, by the last ones, and when a running one will end by that.

use std::{collections::VecDeque, time::Duration};

/// How many of the last attempts are looked at: enough to see whether they resemble each other, few
/// enough to follow a change of load.
const RECENT: usize = 8;

/// The time of the last attempts.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    recent: VecDeque<Duration>,
    /// Their mean; none before the first.
    mean: Option<Duration>,
    /// By how much they differ at most; none before the second.
    spread: Option<Duration>,
}

/// How an attempt that runs stands to the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nothing can be told yet, or its end is far.
    Running,
    /// It ends within the window.
    EndsSoon,
    /// It should have ended a whole window ago.
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

    /// Whether attempts take less than this, on average. Not before the first.
    pub(crate) fn is_below(&self, limit: Duration) -> bool {
        self.mean.is_some_and(|mean| mean < limit)
    }

    /// How an attempt stands that has run for `ran`. If the last ones differ by more than the window,
    /// there is nothing to tell its end by.
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
