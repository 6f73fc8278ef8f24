//! What a receiver holds, beside what the broker believes it to hold.
//!
//! Acknowledgements are not answered. One that is lost, as when the broker that leads the consumer
//! dies, leaves its message in a work queue for as long as the consumer lives: its receiver keeps what
//! it holds for hours and cannot be sent it again before. So every few seconds both sides are
//! compared, and a receiver that finds a message that it has let go of starts over.

use crate::inspect::Handed;
use std::collections::BTreeSet;

/// The sequences of the messages that a receiver has not acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Held(BTreeSet<u64>);

impl Held {
    pub(crate) fn take(&mut self, sequence: u64) {
        self.0.insert(sequence);
    }

    pub(crate) fn let_go(&mut self, sequence: u64) {
        self.0.remove(&sequence);
    }

    pub(crate) fn has(&self, sequence: u64) -> bool {
        self.0.contains(&sequence)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the broker waits for an acknowledgement that was given, by what it said a while ago and
    /// says now: of what it had delivered then, the lowest is still open, and is not held here.
    pub(crate) fn has_lost(&self, before: &Handed, now: &Handed) -> bool {
        let stands_still = before.floor == now.floor && now.unacknowledged > 0 && now.floor < before.up_to;
        stands_still && self.0.first().is_none_or(|first| *first > before.up_to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn handed(floor: u64, up_to: u64, unacknowledged: usize) -> Handed {
        Handed {
            up_to,
            floor,
            unacknowledged,
        }
    }

    #[test]
    fn what_is_held_or_came_just_now_is_not_lost() {
        let mut held = Held::default();
        assert!(
            !held.has_lost(&handed(5, 5, 0), &handed(5, 5, 0)),
            "nothing is open"
        );
        held.take(6);
        held.take(9);
        assert!(!held.has_lost(&handed(5, 9, 2), &handed(5, 9, 2)), "6 is held");
        held.let_go(6);
        assert!(
            !held.has_lost(&handed(5, 9, 2), &handed(6, 9, 1)),
            "the floor moves"
        );
        assert!(!held.has_lost(&handed(5, 5, 0), &handed(5, 9, 1)), "not read yet");
    }

    #[test]
    fn what_was_let_go_of_and_stays_open_is_lost() {
        let mut held = Held::default();
        assert!(held.has_lost(&handed(5, 6, 1), &handed(5, 6, 1)));
        held.take(8);
        assert!(held.has_lost(&handed(5, 6, 1), &handed(5, 8, 2)));
    }
}
