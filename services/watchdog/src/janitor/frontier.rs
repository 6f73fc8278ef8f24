//! Decides which blocks are emitted, and which of their data is removed.

use push0_domain::{Announcement, Timestamp, message::Emission};

/// How many of a pipeline's last records and facts stay while there is room, and of its facts in any case: the ingester
/// reads them to follow a reorg.
pub(crate) const KEPT_LAST: u64 = 512;
/// How many of a pipeline's last records stay, even in need of room: twice as many as services read to know the
/// output. More could fill a small stream for good, and no record would be stored again.
const KEPT_SCARCE: u64 = 2 * push0_domain::output::DEPTH as u64;

/// How far a pipeline's output has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    /// The number that the pipeline emits next, 0 before the first record.
    pub next: u64,
    /// The latest announcement that a record is about.
    pub announcement: Announcement,
    /// Whether the pipeline was removed and has no more work: none of its blocks will be emitted.
    pub is_gone: bool,
}

impl Frontier {
    /// Returns the frontier after this record.
    #[must_use]
    pub fn after(self, newest: &Emission) -> Self {
        let standing = newest.standing.iter().map(|standing| standing.announcement);
        let latest = standing.max().unwrap_or_default().max(newest.announcement);
        Self {
            next: newest.next,
            announcement: self.announcement.max(latest),
            is_gone: self.is_gone,
        }
    }

    /// Returns whether a block is emitted, or will never be.
    ///
    /// The number alone does not decide: when the chain replaces an emitted block, the new block has the number of
    /// an old record, and is announced after it. Records ascend, and a record of a later announcement comes after
    /// the output has gone back: so a number below `next` that was announced no later than some record is emitted.
    pub fn settles(&self, number: u64, announcement: Announcement) -> bool {
        self.is_gone || (number < self.next && announcement <= self.announcement)
    }

    /// Returns whether the number is too far behind the output to be read for a reorg.
    pub fn is_far_behind(&self, number: u64) -> bool {
        self.is_behind(number, KEPT_LAST)
    }

    /// Returns whether the record of a number may be removed.
    pub fn frees_record(&self, number: u64, need: &Need) -> bool {
        self.is_behind(number, if need.room { KEPT_SCARCE } else { KEPT_LAST })
    }

    fn is_behind(&self, number: u64, kept: u64) -> bool {
        self.is_gone || number.saturating_add(kept) < self.next
    }
}

/// The goal of a sweep of one place.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    /// Whether the place needs room.
    pub room: bool,
    /// The time before which everything emitted goes.
    pub before: Timestamp,
}

impl Need {
    /// Returns whether something emitted goes that was stored at this time.
    pub fn takes(&self, stored_at: Timestamp) -> bool {
        self.room || stored_at < self.before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frontier(next: u64, announcement: u64) -> Frontier {
        Frontier {
            next,
            announcement: Announcement(announcement),
            is_gone: false,
        }
    }

    #[test]
    fn a_block_is_settled_by_number_and_announcement() {
        let frontier = frontier(10, 50);
        assert!(frontier.settles(9, Announcement(50)));
        assert!(!frontier.settles(10, Announcement(40)), "not emitted yet");
        assert!(
            !frontier.settles(7, Announcement(60)),
            "it replaces an emitted block and is not proved yet"
        );
        assert!(!Frontier::default().settles(0, Announcement(0)), "no record yet");
    }

    #[test]
    fn a_pipeline_that_is_gone_needs_nothing() {
        let gone = Frontier {
            is_gone: true,
            ..Frontier::default()
        };
        assert!(gone.settles(7, Announcement(60)));
        assert!(gone.is_far_behind(7));
    }

    #[test]
    fn records_beyond_what_services_read_go_where_room_is_needed() {
        let (frontier, before) = (frontier(1000, 50), Timestamp(100));
        let frees = |number, room| frontier.frees_record(number, &Need { room, before });
        assert!(frees(487, false) && !frees(488, false));
        assert!(frees(871, true) && !frees(872, true));
    }

    #[test]
    fn only_what_is_old_goes_while_there_is_room() {
        let need = |room| Need {
            room,
            before: Timestamp(100),
        };
        assert!(need(false).takes(Timestamp(99)));
        assert!(!need(false).takes(Timestamp(100)));
        assert!(need(true).takes(Timestamp(100)));
    }
}
