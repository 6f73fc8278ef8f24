//! Comparison of the messages a receiver has not acknowledged with those the broker still waits for.
//!
//! The broker does not confirm acknowledgements. An acknowledgement can get lost, for example when the
//! consumer's leader dies. Its message then stays in the work queue for as long as the consumer lives:
//! receivers hold messages for hours, so the ack wait is a day, and the broker does not redeliver before.
//! Therefore both sides are compared every few seconds, and a receiver starts over when the broker still
//! waits for a message already acknowledged.

use crate::inspect::Handed;
use std::collections::BTreeSet;

/// Stream sequences of the messages a receiver has not acknowledged.
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

    /// Returns whether an acknowledgement was lost, judged by two answers of the broker. An acknowledgement
    /// was lost if the ack floor stands still between the answers, the broker still waits for a message
    /// delivered before the first answer, and the receiver holds none of those messages.
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
