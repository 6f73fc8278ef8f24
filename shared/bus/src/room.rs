//! Room in streams, buckets and the blob store: how full they are, and the marks at which services react.
//!
//! The marks ascend, each below the limit at which the broker refuses (docs/adr/0034):
//!
//! | used | reaction |
//! |---|---|
//! | 80 % | what belongs to emitted blocks makes room, oldest first, down to 75 % |
//! | 83 % to 88 % | the ingester waits; the more of the waiting blocks are a pipeline's, the earlier |
//! | 90 % | the dispatcher releases only work for the next blocks to emit, which makes room; or none, where that would fill the place further |
//! | 95 % of the blob store | the ingester stores no witness that would pass this mark: the rest is for proofs |

use crate::{Bus, BusError, Level, Stream, facts::Bucket, provision::BLOBS};
use futures::future::try_join_all;
use std::fmt;

/// Used thousandths above which emitted blocks make room, and down to which.
pub const SWEEP_ABOVE: u64 = 800;
/// Used thousandths at which a sweep ends.
pub const SWEEP_TO: u64 = 750;
/// Used thousandths at which the ingester of a small pipeline waits.
const INGEST_BELOW: u64 = 880;
/// By how much earlier the ingester waits if all waiting blocks are its own.
const INGEST_SHARE: u64 = 50;
/// Used thousandths of the blob store that witnesses do not pass: finished proofs need the rest.
const WITNESSES_TO: u64 = 950;
/// Thousandths of the blob store that a witness must find free at most. Otherwise a larger one would wait for room that
/// no emitted block makes.
const WITNESS_COUNTS: u64 = 100;
/// Used thousandths at which the dispatcher stops.
const RELEASE_BELOW: u64 = 900;
/// By how much the level must fall before work begins again, so that work does not begin and stop with each message.
const AGAIN: u64 = 20;

/// A place with a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// A stream.
    Stream(Stream),
    /// The facts about blocks.
    Facts,
    /// The blob store.
    Blobs,
}

impl Place {
    /// The places that new blocks fill.
    pub const OF_BLOCKS: [Self; 3] = [Self::Stream(Stream::Blocks), Self::Facts, Self::Blobs];
    /// The places that released work fills.
    pub const OF_WORK: [Self; 5] = [
        Self::Stream(Stream::Tasks),
        Self::Stream(Stream::Checks),
        Self::Stream(Stream::Stages),
        Self::Stream(Stream::Results),
        Self::Blobs,
    ];

    /// Returns the name of the place's stream on the broker.
    pub fn name(self) -> String {
        match self {
            Self::Stream(stream) => stream.name().to_owned(),
            Self::Facts => format!("KV_{}", Bucket::Blocks.name()),
            Self::Blobs => BLOBS.to_owned(),
        }
    }

    /// Returns whether the place empties without a release: provers take from TASKS, verifiers from CHECKS. The
    /// others empty when a block is emitted, so the next block to emit must go on.
    fn empties_by_itself(self) -> bool {
        matches!(self, Self::Stream(Stream::Tasks | Stream::Checks))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())
    }
}

/// The room for results of released work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Room {
    /// There is room.
    #[default]
    Enough,
    /// This place is nearly full, and empties when blocks are emitted: only work for the next blocks to emit begins.
    Scarce(Place),
    /// This place is nearly full: no work begins.
    None(Place),
}

impl Room {
    /// Returns the room that these levels leave, given the room before.
    pub fn of(levels: &[(Place, Level)], before: Self) -> Self {
        let was = match before {
            Self::Enough => None,
            Self::Scarce(place) | Self::None(place) => Some(place),
        };
        let is_full = |place: Place, level: &Level| {
            let again = if was == Some(place) { AGAIN } else { 0 };
            level.permille() >= RELEASE_BELOW - again
        };
        let full = levels.iter().filter(|(place, level)| is_full(*place, level));
        let full: Vec<Place> = full.map(|(place, _)| *place).collect();
        let stops = full.iter().find(|place| place.empties_by_itself());
        match (stops, full.first()) {
            (Some(place), _) => Self::None(*place),
            (None, Some(place)) => Self::Scarce(*place),
            (None, None) => Self::Enough,
        }
    }

    /// Returns the place that is nearly full.
    pub fn full(self) -> Option<Place> {
        match self {
            Self::Enough => None,
            Self::Scarce(place) | Self::None(place) => Some(place),
        }
    }
}

/// Returns the place in which a pipeline's new blocks have no room. `own` of the `waiting` blocks are the
/// pipeline's, and `waits` says whether the pipeline's ingester waits already. `witnesses` is the number of bytes that
/// come to the blob store: those of the blocks, and those under way that the levels may not show yet.
pub fn full_for_blocks(
    levels: &[(Place, Level)],
    own: u64,
    waiting: u64,
    waits: bool,
    witnesses: u64,
) -> Option<Place> {
    let share = (own * INGEST_SHARE)
        .checked_div(waiting)
        .unwrap_or(0)
        .min(INGEST_SHARE);
    let again = if waits { AGAIN } else { 0 };
    let part = |level: &Level, permille: u64| level.bytes_max / 1000 * permille;
    let is_full = |(place, level): &&(Place, Level)| {
        let coming = match place {
            Place::Blobs => witnesses.min(part(level, WITNESS_COUNTS)),
            _ => 0,
        };
        level.permille() >= INGEST_BELOW - share - again
            || (coming > 0 && level.bytes.saturating_add(coming) > part(level, WITNESSES_TO))
    };
    levels.iter().find(is_full).map(|(place, _)| *place)
}

impl Bus {
    /// Returns the fill levels of these places.
    pub async fn levels(&self, places: &[Place]) -> Result<Vec<(Place, Level)>, BusError> {
        let ask = |place: Place| async move { Ok((place, self.level_of(&place.name()).await?)) };
        try_join_all(places.iter().map(|place| ask(*place))).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(place: Place, permille: u64) -> (Place, Level) {
        let level = Level {
            messages: 1,
            bytes: permille,
            bytes_max: 1000,
        };
        (place, level)
    }

    const CHECKS: Place = Place::Stream(Stream::Checks);

    #[test]
    fn a_full_store_lets_only_the_next_blocks_go_on_and_full_checks_none() {
        let room = |blobs, checks| Room::of(&[at(Place::Blobs, blobs), at(CHECKS, checks)], Room::Enough);
        assert_eq!(room(899, 899), Room::Enough);
        assert_eq!(room(900, 899), Room::Scarce(Place::Blobs));
        assert_eq!(room(950, 900), Room::None(CHECKS));
    }

    #[test]
    fn work_goes_on_some_way_below_the_mark_where_it_stopped() {
        let room = |permille| Room::of(&[at(Place::Blobs, permille)], Room::Scarce(Place::Blobs));
        assert_eq!(room(885), Room::Scarce(Place::Blobs));
        assert_eq!(room(879), Room::Enough);
    }

    #[test]
    fn the_pipeline_with_the_backlog_waits_before_the_others() {
        let levels = [at(Place::Facts, 850)];
        assert_eq!(full_for_blocks(&levels, 90, 100, false, 0), Some(Place::Facts));
        assert_eq!(full_for_blocks(&levels, 1, 100, false, 0), None);
        assert_eq!(full_for_blocks(&levels, 0, 0, false, 0), None);
        let levels = [at(Place::Facts, 880)];
        assert_eq!(full_for_blocks(&levels, 1, 100, false, 0), Some(Place::Facts));
        // Facts of emitted blocks may stay up to 80 %: no ingester waits for them.
        let levels = [at(Place::Facts, SWEEP_ABOVE)];
        assert_eq!(full_for_blocks(&levels, 100, 100, true, 0), None);
    }

    #[test]
    fn witnesses_under_way_leave_room_for_proofs_and_the_largest_one_is_not_waited_for_in_vain() {
        let full = |place, permille: u64, witnesses: u64| {
            let mut level = at(place, permille);
            level.1.bytes = permille * 1_000_000;
            level.1.bytes_max = 1_000_000_000;
            full_for_blocks(&[level], 0, 100, false, witnesses * 1_000_000)
        };
        assert_eq!(full(Place::Blobs, 879, 71), None);
        assert_eq!(full(Place::Blobs, 879, 72), Some(Place::Blobs));
        assert_eq!(full(Place::Facts, 879, 72), None);
        // Emitted blocks make room above 80 %, so nothing may wait for a lower level than that.
        assert_eq!(full(Place::Blobs, SWEEP_ABOVE, 5000), None);
    }
}
