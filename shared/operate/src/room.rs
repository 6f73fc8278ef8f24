//! Names the waits for room, by the marks at which services react.

use push0_bus::{Level, Place, Room, Stream, full_for_blocks};

/// Returns a place with its fill.
fn full(place: Place, levels: &[(&str, Level)]) -> String {
    let level = levels.iter().find(|(stream, _)| *stream == place.name());
    let percent = level.map_or(0, |(_, level)| level.permille() / 10);
    format!("{place} is {percent} % full")
}

/// Used thousandths of DEAD above which the watchdog drops the oldest letters.
const LETTERS_ABOVE: u64 = 900;

/// Returns the levels of these places.
fn of(places: &[Place], levels: &[(&str, Level)]) -> Vec<(Place, Level)> {
    let level = |place: &Place| {
        let name = place.name();
        let found = levels.iter().find(|(stream, _)| *stream == name);
        found.map(|(_, level)| (*place, *level))
    };
    places.iter().filter_map(level).collect()
}

/// Returns what says that work waits for room; `None` while there is enough.
pub fn of_work(levels: &[(&str, Level)]) -> Option<String> {
    match Room::of(&of(&Place::OF_WORK, levels), Room::Enough) {
        Room::Enough => None,
        Room::Scarce(place) => Some(format!(
            "{}: only work for the next block of each pipeline is released",
            full(place, levels)
        )),
        Room::None(place) => Some(format!(
            "{}: no work is released until it empties",
            full(place, levels)
        )),
    }
}

/// Returns a sentence for everything that waits, given the levels by stream name.
pub(crate) fn waits(levels: &[(&str, Level)]) -> Vec<String> {
    let of = |places: &[Place]| of(places, levels);
    let mut waits: Vec<String> = of_work(levels).into_iter().collect();
    let for_blocks = of(&Place::OF_BLOCKS);
    if let Some(place) = full_for_blocks(&for_blocks, 0, 0, false, 0) {
        waits.push(format!("{}: no blocks are taken in", full(place, levels)));
    } else if let Some(place) = full_for_blocks(&for_blocks, 1, 1, false, 0) {
        // The longest backlog waits first; a single pipeline has it.
        waits.push(format!(
            "{}: the pipeline with the longest backlog takes in no blocks",
            full(place, levels)
        ));
    }
    let dead = of(&[Place::Stream(Stream::Dead)]);
    if dead.iter().any(|(_, level)| level.permille() > LETTERS_ABOVE) {
        waits.push(format!(
            "{}: the oldest dead letters are dropped",
            full(Place::Stream(Stream::Dead), levels)
        ));
    }
    waits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_named_with_its_stream() {
        let at = |bytes| Level {
            messages: 1,
            bytes,
            bytes_max: 1000,
        };
        assert!(waits(&[("PUSH0_BLOBS", at(829)), ("PUSH0_CHECKS", at(899))]).is_empty());
        assert_eq!(
            waits(&[("PUSH0_BLOBS", at(830))]),
            ["PUSH0_BLOBS is 83 % full: the pipeline with the longest backlog takes in no blocks"]
        );
        let both = waits(&[("PUSH0_BLOBS", at(920)), ("PUSH0_DEAD", at(950))]);
        assert_eq!(both.len(), 3, "{both:?}");
        assert!(
            both[0].starts_with("PUSH0_BLOBS is 92 % full: only work"),
            "{both:?}"
        );
        assert!(both[1].ends_with("no blocks are taken in"), "{both:?}");
        let checks = waits(&[("PUSH0_BLOBS", at(820)), ("PUSH0_CHECKS", at(900))]);
        assert_eq!(
            checks,
            ["PUSH0_CHECKS is 90 % full: no work is released until it empties"]
        );
    }
}
