//! The bytes of witnesses that a process stores at the moment.
//!
//! The broker's levels tell of the past: a level may not show bytes stored after the broker was asked. All bytes that
//! were not stored completely before the question are therefore counted on top of a level.

/// Bytes that were begun and ended since the process began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UnderWay {
    begun: u64,
    ended: u64,
}

impl UnderWay {
    /// Returns a process that stores nothing.
    pub const fn nothing() -> Self {
        Self { begun: 0, ended: 0 }
    }

    /// Returns the moment at which a level is asked for.
    pub fn moment(&self) -> u64 {
        self.ended
    }

    /// Returns the bytes that a level asked for at this moment may not show.
    pub fn unseen_since(&self, moment: u64) -> u64 {
        self.begun.wrapping_sub(moment)
    }

    /// Notes bytes that begin to be stored.
    pub fn begin(&mut self, bytes: u64) {
        self.begun = self.begun.wrapping_add(bytes);
    }

    /// Notes bytes that are stored, or given up.
    pub fn end(&mut self, bytes: u64) {
        self.ended = self.ended.wrapping_add(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_stored_before_the_question_counts_on_top_of_the_answer() {
        let mut under_way = UnderWay::nothing();
        under_way.begin(10);
        under_way.end(10);
        under_way.begin(3);
        let asked = under_way.moment();
        under_way.begin(4);
        under_way.end(3);
        assert_eq!(under_way.unseen_since(asked), 7);
        assert_eq!(under_way.unseen_since(under_way.moment()), 4);
    }
}
