//! The numbered stream of changes: each is encoded once, kept for a while, and given to all clients.
//!
//! A client has a place in the stream and takes copied pieces from there. So the bytes kept are those of the stream and
//! not those of its clients, however slow these are.

use crate::view::Change;
use bytes::Bytes;
use serde::Serialize;
use std::{collections::VecDeque, ops::Range};
use tokio::sync::watch;

/// Bytes of changes kept for clients that come back or are slow.
const KEPT_BYTES: usize = 4 << 20;
/// Longest change. Clients get a snapshot in place of a longer one, which is as long.
const CHANGE_MAX: usize = 1 << 20;
/// How many bytes a client takes at once.
const PIECE: usize = 16 << 10;

/// An encoded event of the stream.
pub type Frame = Bytes;

/// How much of the stream a client has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The newest change that the client has as a whole.
    has: u64,
    /// How many bytes the client has of the change after it.
    offset: usize,
}

impl Place {
    /// Returns the place after a change.
    pub fn after(change: u64) -> Self {
        Self {
            has: change,
            offset: 0,
        }
    }
}

/// What a client gets at its place.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// The next bytes.
    Bytes(Bytes),
    /// Nothing until the next change.
    Later,
    /// The change at the place is not kept any more, so the client starts over from a snapshot.
    Lost,
    /// The same in the middle of a change: what the client has makes no sense any more.
    Torn,
}

/// The changes since the start of the process.
#[derive(Debug)]
pub struct Feed {
    /// Differs between processes, so that ids of another one are told apart.
    epoch: u32,
    newest: u64,
    kept: VecDeque<Frame>,
    bytes: usize,
    told: watch::Sender<u64>,
}

impl Feed {
    /// Creates a feed without changes. `epoch` is random.
    pub fn new(epoch: u32) -> Self {
        Self {
            epoch,
            newest: 0,
            kept: VecDeque::new(),
            bytes: 0,
            told: watch::Sender::new(0),
        }
    }

    /// Returns the number of the newest change.
    pub fn newest(&self) -> u64 {
        self.newest
    }

    /// Returns the id of a change.
    pub fn id_of(&self, change: u64) -> String {
        format!("{:08x}-{change}", self.epoch)
    }

    /// Encodes a change and gives it to all clients.
    ///
    /// # Errors
    /// The change cannot be encoded.
    pub fn publish(&mut self, change: &Change) -> Result<(), serde_json::Error> {
        let frame = if change.is_too_long {
            None
        } else {
            let encoded = encode(&self.id_of(self.newest + 1), "change", change)?;
            Some(encoded.frame).filter(|frame| frame.len() <= CHANGE_MAX)
        };
        self.newest += 1;
        if let Some(frame) = frame {
            self.bytes += frame.len();
            self.kept.push_back(frame);
        } else {
            self.kept.clear();
            self.bytes = 0;
        }
        while self.bytes > KEPT_BYTES {
            let Some(oldest) = self.kept.pop_front() else {
                break;
            };
            self.bytes -= oldest.len();
        }
        self.told.send_replace(self.newest);
        Ok(())
    }

    /// Returns the place of a client that has the changes up to the id `last`; `None` if the client must start over from
    /// a snapshot, because it names no change of this process or one that is not kept any more.
    pub fn place(&self, last: &str) -> Option<Place> {
        let (epoch, number) = last.split_once('-')?;
        let number: u64 = number.parse().ok()?;
        let is_ours = u32::from_str_radix(epoch, 16) == Ok(self.epoch) && number <= self.newest;
        (is_ours && self.keeps_after(number)).then(|| Place::after(number))
    }

    /// Returns whether every change after this one is kept.
    pub fn keeps_after(&self, change: u64) -> bool {
        self.newest - change.min(self.newest) <= self.kept.len() as u64
    }

    /// Returns what a client gets at its place, and moves the place on.
    pub fn piece(&self, place: &mut Place) -> Piece {
        if place.has >= self.newest {
            return Piece::Later;
        }
        // The kept changes are the newest ones.
        let from_end = usize::try_from(self.newest - place.has).unwrap_or(usize::MAX);
        let at = self.kept.len().checked_sub(from_end);
        let Some(frame) = at.and_then(|at| self.kept.get(at)) else {
            return if place.offset == 0 {
                Piece::Lost
            } else {
                Piece::Torn
            };
        };
        let rest = frame.get(place.offset..).unwrap_or_default();
        let piece = Bytes::copy_from_slice(rest.get(..PIECE).unwrap_or(rest));
        if piece.len() == rest.len() {
            *place = Place::after(place.has + 1);
        } else {
            place.offset += piece.len();
        }
        Piece::Bytes(piece)
    }

    /// Returns a receiver that is told of each new change.
    pub fn follow(&self) -> watch::Receiver<u64> {
        self.told.subscribe()
    }

    /// Returns the number of clients that follow.
    pub fn followers(&self) -> usize {
        self.told.receiver_count()
    }
}

/// An encoded event.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The whole event.
    pub frame: Frame,
    /// Where its data lie.
    data: Range<usize>,
}

impl Encoded {
    /// Returns the data, which share the memory of the event.
    pub fn json(&self) -> Bytes {
        self.frame.slice(self.data.clone())
    }
}

/// Encodes an event as the standard on server-sent events says. JSON text has no line breaks.
///
/// # Errors
/// The data cannot be encoded.
pub fn encode(id: &str, event: &str, data: &impl Serialize) -> Result<Encoded, serde_json::Error> {
    let mut text = format!("id: {id}\nevent: {event}\ndata: ").into_bytes();
    let begin = text.len();
    serde_json::to_writer(&mut text, data)?;
    let data = begin..text.len();
    text.extend_from_slice(b"\n\n");
    // A text that grew may hold twice its length.
    text.shrink_to_fit();
    Ok(Encoded {
        frame: Frame::from(text),
        data,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(at: u64) -> Change {
        Change {
            at,
            ..Change::default()
        }
    }

    fn large(bytes: usize) -> Change {
        Change {
            gone: Some(crate::view::Gone {
                provers: vec![("z".into(), "x".repeat(bytes), "prover")],
                blocks: Vec::new(),
            }),
            ..Change::default()
        }
    }

    fn all(feed: &Feed, place: &mut Place) -> (Vec<u8>, Piece) {
        let mut bytes = Vec::new();
        loop {
            match feed.piece(place) {
                Piece::Bytes(piece) => bytes.extend_from_slice(&piece),
                end => return (bytes, end),
            }
        }
    }

    #[test]
    fn a_client_that_comes_back_gets_all_that_it_missed() {
        let mut feed = Feed::new(7);
        for at in 1..=3 {
            feed.publish(&change(at)).unwrap();
        }
        let (missed, end) = all(&feed, &mut feed.place("00000007-1").unwrap());
        let missed = String::from_utf8(missed).unwrap();
        assert_eq!(missed.matches("event: change").count(), 2);
        assert!(missed.starts_with("id: 00000007-2\nevent: change\ndata: {\"at\":2}\n\nid: 00000007-3"));
        assert_eq!(end, Piece::Later);
        let newest = feed.id_of(feed.newest());
        assert_eq!(feed.piece(&mut feed.place(&newest).unwrap()), Piece::Later);
    }

    #[test]
    fn a_client_with_an_unknown_id_starts_over() {
        let mut feed = Feed::new(7);
        feed.publish(&change(1)).unwrap();
        for last in ["", "00000008-1", "00000007-2", "x", "00000007-"] {
            assert_eq!(feed.place(last), None, "{last:?}");
        }
    }

    #[test]
    fn memory_is_bounded_by_what_is_kept_and_not_by_slow_clients() {
        let mut feed = Feed::new(7);
        let mut slow = feed.place("00000007-0").unwrap();
        feed.publish(&large(1 << 19)).unwrap();
        assert!(matches!(feed.piece(&mut slow), Piece::Bytes(piece) if piece.len() == PIECE));
        let mut idle = Place::after(0);
        for _ in 0..20 {
            feed.publish(&large(1 << 19)).unwrap();
        }
        assert!(feed.bytes <= KEPT_BYTES && feed.kept.len() < 9);
        assert_eq!(feed.piece(&mut slow), Piece::Torn);
        assert_eq!(feed.piece(&mut idle), Piece::Lost);
        assert_eq!(feed.place("00000007-1"), None);
    }

    #[test]
    fn a_change_longer_than_a_snapshot_makes_clients_start_over() {
        let mut feed = Feed::new(7);
        feed.publish(&change(1)).unwrap();
        feed.publish(&large(CHANGE_MAX)).unwrap();
        assert_eq!((feed.bytes, feed.piece(&mut Place::after(1))), (0, Piece::Lost));
        feed.publish(&change(3)).unwrap();
        assert_eq!(feed.piece(&mut Place::after(1)), Piece::Lost);
        assert!(matches!(feed.piece(&mut Place::after(2)), Piece::Bytes(_)));
        let too_long = Change {
            is_too_long: true,
            ..change(4)
        };
        assert!(!too_long.is_empty());
        feed.publish(&too_long).unwrap();
        assert_eq!((feed.bytes, feed.piece(&mut Place::after(3))), (0, Piece::Lost));
    }
}
