//! Decides how often something that goes on is told again: at a distance that doubles, so that it hides nothing else.

use std::time::{Duration, Instant};

/// The distance between two lines about the same thing.
#[derive(Clone, Debug)]
pub struct Seldom {
    least: Duration,
    most: Duration,
    /// The instant of the next line, and its distance from the line before.
    next: Option<(Instant, Duration)>,
}

impl Seldom {
    /// Creates the distance of something that was never told. The distance grows from `least` to `most`.
    pub fn new(least: Duration, most: Duration) -> Self {
        Self {
            least,
            most,
            next: None,
        }
    }

    /// Returns whether a line is due, and notes the line. The distance begins anew if the last line was due for longer than the
    /// longest distance.
    pub fn is_due(&mut self, now: Instant) -> bool {
        let distance = match self.next {
            Some((at, _)) if now < at => return false,
            Some((at, distance)) if now < at + self.most => (distance * 2).min(self.most),
            _ => self.least,
        };
        self.next = Some((now + distance, distance));
        true
    }

    /// Begins anew: the next line is due at once.
    pub fn reset(&mut self) {
        self.next = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_doubles_and_begins_anew_after_a_long_quiet_time() {
        let began = Instant::now();
        let mut seldom = Seldom::new(Duration::from_secs(1), Duration::from_secs(8));
        let mut told = |from: u64, to: u64| -> Vec<u64> {
            (from..to)
                .filter(|second| seldom.is_due(began + Duration::from_secs(*second)))
                .collect()
        };
        assert_eq!(told(0, 40), [0, 1, 3, 7, 15, 23, 31, 39]);
        assert_eq!(told(60, 64), [60, 61, 63], "it begins anew");
        seldom.reset();
        assert!(seldom.is_due(began + Duration::from_secs(64)));
    }
}
