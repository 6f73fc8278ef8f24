//! Comparison of the messages a receiver has not acknowledged with those the broker still waits for.
//!
//! The broker does not confirm acknowledgements. An acknowledgement can get lost, for example when the
//! consumer's leader dies. Its message then stays in the work queue for as long as the consumer lives:
//! receivers hold messages for hours, so the ack wait is a day, and the broker does not redeliver before.
//! Therefore both sides are compared every few seconds, and a receiver starts over when the broker still
//! waits for a message already acknowledged.

use crate::inspect::Handed;
use std::collections::BTreeSet;

/// Stream sequences of the messages a receiver has not acknowledged, and of the newest one it received.
#[derive(Debug, Default)]
pub(crate) struct Held {
    sequences: BTreeSet<u64>,
    newest: u64,
}

/// The place of a delivery among the earlier ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Behind all earlier ones.
    Next,
    /// Held already: a redelivery.
    Held,
    /// Before an earlier one, and not held.
    Overtaken,
}

impl Held {
    /// Takes a message in if it is the next one.
    pub(crate) fn take(&mut self, sequence: u64) -> Place {
        if self.has(sequence) {
            return Place::Held;
        }
        if sequence <= self.newest {
            return Place::Overtaken;
        }
        self.newest = sequence;
        self.sequences.insert(sequence);
        Place::Next
    }

    /// Passes a message over that is not to be held.
    pub(crate) fn pass(&mut self, sequence: u64) {
        self.newest = self.newest.max(sequence);
    }

    /// Returns the newest sequence received.
    pub(crate) fn newest(&self) -> u64 {
        self.newest
    }

    pub(crate) fn let_go(&mut self, sequence: u64) {
        self.sequences.remove(&sequence);
    }

    pub(crate) fn has(&self, sequence: u64) -> bool {
        self.sequences.contains(&sequence)
    }

    pub(crate) fn len(&self) -> usize {
        self.sequences.len()
    }

    /// Returns whether an acknowledgement was lost, judged by two answers of the broker. An acknowledgement
    /// was lost if the ack floor stands still between the answers, the broker still waits for a message
    /// delivered before the first answer, and the receiver holds none of those messages.
    pub(crate) fn has_lost(&self, before: &Handed, now: &Handed) -> bool {
        let stands_still = before.floor == now.floor && now.unacknowledged > 0 && now.floor < before.up_to;
        stands_still && self.sequences.first().is_none_or(|first| *first > before.up_to)
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
            deliveries: up_to,
        }
    }

    #[test]
    fn only_a_message_behind_all_others_is_taken_in() {
        let mut held = Held::default();
        let places = [3, 5, 5, 4, 6].map(|sequence| held.take(sequence));
        assert_eq!(
            places,
            [
                Place::Next,
                Place::Next,
                Place::Held,
                Place::Overtaken,
                Place::Next
            ]
        );
        held.pass(8);
        held.pass(7);
        assert_eq!(held.newest(), 8);
        held.let_go(5);
        assert_eq!(held.take(5), Place::Overtaken, "its acknowledgement was lost");
        assert_eq!(held.len(), 2);
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
