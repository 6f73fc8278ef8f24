//! Repeated loss of a role, and how long a process then leaves the role to others.

use std::{collections::VecDeque, fmt, time::Duration};
use tokio::time::Instant;

/// Losses older than this are forgotten.
const WINDOW: Duration = Duration::from_secs(60);
/// The least number of losses within [`WINDOW`] to count as a contest. A single takeover after a pause of the
/// machine is an accident.
const MANY: usize = 3;
/// The pause after [`MANY`] losses. The pause doubles with each further loss.
const PAUSE: Duration = Duration::from_secs(2);
/// The longest pause. Pauses leave a role without a holder vacant no longer than this.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How many losses are remembered: enough to reach the longest pause.
const REMEMBERED: usize = 8;
const _: () = assert!(PAUSE.as_secs() << (REMEMBERED - MANY) >= PAUSE_MAX.as_secs());

/// A role lost by this process at least three times within a minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contest {
    role: String,
    losses: usize,
}

impl Contest {
    /// Returns how long this process leaves the role to others.
    pub(super) fn pause(&self) -> Duration {
        let doubled = u32::try_from(self.losses.saturating_sub(MANY)).unwrap_or(u32::MAX);
        PAUSE.saturating_mul(2_u32.saturating_pow(doubled)).min(PAUSE_MAX)
    }
}

impl fmt::Display for Contest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Leaves out the number of losses, which would make each report a new one.
        write!(
            f,
            "the role `{}` was lost at least {MANY} times within a minute: this process or the broker is too slow to \
             renew it (look at memory, processor and disk of both); this process now asks for it less often",
            self.role
        )
    }
}

/// Times at which this process recently lost its role, oldest first.
#[derive(Debug, Default)]
pub(super) struct Losses(VecDeque<Instant>);

impl Losses {
    pub(super) fn note(&mut self, now: Instant) {
        self.0.push_back(now);
        if self.0.len() > REMEMBERED {
            self.0.pop_front();
        }
    }

    /// Returns the contest if the role was lost at least [`MANY`] times within [`WINDOW`].
    pub(super) fn contest(&self, role: &str, now: Instant) -> Option<Contest> {
        let recent = self.0.iter().filter(|at| now.duration_since(**at) < WINDOW);
        let losses = recent.count();
        (losses >= MANY).then(|| Contest {
            role: role.to_owned(),
            losses,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_losses_within_a_minute_are_a_contest_and_its_pauses_grow_and_end() {
        let begin = Instant::now();
        let at = |seconds| begin + Duration::from_secs(seconds);
        let mut losses = Losses::default();
        let pause = |losses: &Losses, now| losses.contest("dispatcher", now).map(|c| c.pause().as_secs());
        losses.note(at(0));
        losses.note(at(4));
        assert_eq!(pause(&losses, at(4)), None);
        losses.note(at(8));
        assert_eq!(pause(&losses, at(8)), Some(2));
        losses.note(at(12));
        assert_eq!(pause(&losses, at(12)), Some(4));
        for loss in 13..40 {
            losses.note(at(loss));
        }
        assert_eq!(pause(&losses, at(40)), Some(30));
        assert_eq!(pause(&losses, at(98)), None, "one loss is within the last minute");
    }
}
