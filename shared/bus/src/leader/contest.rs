//! A role that is lost again and again, and how long it is left to others then.

use std::{collections::VecDeque, fmt, time::Duration};
use tokio::time::Instant;

/// Losses older than this are forgotten.
const WINDOW: Duration = Duration::from_secs(60);
/// So many losses within [`WINDOW`] are no accident: a takeover after a pause of the machine is one.
const MANY: usize = 3;
/// The pause after [`MANY`] losses; it doubles with each further one.
const PAUSE: Duration = Duration::from_secs(2);
/// The longest pause: a role that nobody holds meanwhile costs no more than this.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How many losses are remembered: enough for the longest pause.
const REMEMBERED: usize = 8;
const _: () = assert!(PAUSE.as_secs() << (REMEMBERED - MANY) >= PAUSE_MAX.as_secs());

/// A role that another process took from this one at least three times within a minute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contest {
    role: String,
    losses: usize,
}

impl Contest {
    /// How long the role is left to others.
    pub(super) fn pause(&self) -> Duration {
        let doubled = u32::try_from(self.losses.saturating_sub(MANY)).unwrap_or(u32::MAX);
        PAUSE.saturating_mul(2_u32.saturating_pow(doubled)).min(PAUSE_MAX)
    }
}

impl fmt::Display for Contest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The number of losses would make each report a new one.
        write!(
            f,
            "the role `{}` was lost at least {MANY} times within a minute: this process or the broker is too slow to \
             renew it (look at memory, processor and disk of both); it is asked for more slowly now",
            self.role
        )
    }
}

/// When this process lost its role, lately.
#[derive(Debug, Default)]
pub(super) struct Losses(VecDeque<Instant>);

impl Losses {
    pub(super) fn note(&mut self, now: Instant) {
        self.0.push_back(now);
        if self.0.len() > REMEMBERED {
            self.0.pop_front();
        }
    }

    /// What the losses come to now.
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
