//! Which refusals are logged: a client that is refused tries again several times a second, without an end.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How often the refusals of one key are logged.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// How many keys are remembered. While so many were refused within a minute, refusals of further ones are only counted:
/// anybody may draw a key.
const KEYS_MAX: usize = 256;

/// The keys whose refusal was logged within the last minute.
#[derive(Debug, Default)]
pub(crate) struct Quiet(HashMap<String, Instant>);

impl Quiet {
    /// Returns whether a refusal of this key is to be logged now, and notes that it is.
    pub(crate) fn is_due(&mut self, key: &str, now: Instant) -> bool {
        self.0
            .retain(|_, said_at| now.duration_since(*said_at) < SAY_EVERY);
        let is_due = !self.0.contains_key(key) && self.0.len() < KEYS_MAX;
        if is_due {
            self.0.insert(key.to_owned(), now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_once_a_minute_and_a_flood_of_keys_is_not() {
        let (began, mut quiet) = (Instant::now(), Quiet::default());
        let mut due = |key: &str, seconds| quiet.is_due(key, began + Duration::from_secs(seconds));
        assert_eq!(
            [
                due("UA", 0),
                due("UA", 1),
                due("UB", 1),
                due("UA", 59),
                due("UA", 60)
            ],
            [true, false, true, false, true]
        );
        let told = (0..10_000).filter(|key| due(&key.to_string(), 200)).count();
        assert_eq!(told, KEYS_MAX);
    }
}
