//! The state between the shell that listens and the shell that answers.

use crate::{
    feed::{Encoded, Feed, Piece, Place, encode},
    model::Model,
};
use bytes::Bytes;
use push0_domain::Timestamp;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::sync::watch;

/// How many snapshots are held at most: clients that take theirs slowly hold older ones.
const SNAPSHOTS_MAX: usize = 3;
/// How long a snapshot serves clients that start over, who get what came later as changes.
const SNAPSHOT_FOR: Duration = Duration::from_millis(500);

/// Model and feed, which change together.
#[derive(Clone)]
pub(crate) struct Shared(Arc<Mutex<State>>);

struct State {
    model: Model,
    feed: Feed,
    /// Encoded snapshots, oldest first.
    snapshots: VecDeque<Snapshot>,
}

struct Snapshot {
    /// The newest change in it.
    change: u64,
    made_at: Timestamp,
    encoded: Encoded,
}

/// A snapshot cannot be given.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoSnapshot {
    #[error("slow clients hold {SNAPSHOTS_MAX} older snapshots")]
    Busy,
    #[error("the state cannot be encoded: {0}")]
    Unencodable(#[from] serde_json::Error),
}

/// What a client of the stream gets first, and where it continues.
pub(crate) struct Start {
    /// A snapshot, for a client that starts over.
    pub(crate) snapshot: Option<Bytes>,
    pub(crate) place: Place,
}

impl Shared {
    pub(crate) fn new(epoch: u32) -> Self {
        Self(Arc::new(Mutex::new(State {
            model: Model::default(),
            feed: Feed::new(epoch),
            snapshots: VecDeque::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the model is complete in itself, so a panic elsewhere leaves a usable state.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `look` on the model.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Model) -> T) -> T {
        look(&mut self.state().model)
    }

    /// Gives everything that changed to all clients.
    pub(crate) fn flush(&self, now: Timestamp) -> Result<(), serde_json::Error> {
        let state = &mut *self.state();
        let change = state.model.changes(now);
        if change.is_empty() {
            return Ok(());
        }
        state.feed.publish(&change)
    }

    /// Returns the whole state as JSON text, at most [`SNAPSHOT_FOR`] old unless many clients are slow.
    pub(crate) fn snapshot(&self, now: Timestamp) -> Result<Bytes, NoSnapshot> {
        let mut state = self.state();
        state.snapshot(now).map(|snapshot| snapshot.encoded.json())
    }

    /// Returns what a client gets first, and where it continues.
    pub(crate) fn start(&self, last: Option<&str>, now: Timestamp) -> Result<Start, NoSnapshot> {
        let mut state = self.state();
        if let Some(place) = last.and_then(|last| state.feed.place(last)) {
            return Ok(Start {
                snapshot: None,
                place,
            });
        }
        let snapshot = state.snapshot(now)?;
        Ok(Start {
            snapshot: Some(snapshot.encoded.frame.clone()),
            place: Place::after(snapshot.change),
        })
    }

    /// Returns what a client gets at its place, and moves the place on.
    pub(crate) fn piece(&self, place: &mut Place) -> Piece {
        self.state().feed.piece(place)
    }

    /// Returns a receiver that is told of each new change.
    pub(crate) fn follow(&self) -> watch::Receiver<u64> {
        self.state().feed.follow()
    }

    pub(crate) fn followers(&self) -> usize {
        self.state().feed.followers()
    }
}

impl State {
    /// Returns a snapshot that a client can continue from.
    fn snapshot(&mut self, now: Timestamp) -> Result<&Snapshot, NoSnapshot> {
        let feed = &self.feed;
        let is_fit = |snapshot: &Snapshot| feed.keeps_after(snapshot.change);
        let is_fresh = |snapshot: &Snapshot| is_fit(snapshot) && now.since(snapshot.made_at) <= SNAPSHOT_FOR;
        if !self.snapshots.back().is_some_and(is_fresh) {
            // What no client holds makes room.
            self.snapshots
                .retain(|snapshot| !snapshot.encoded.frame.is_unique());
            if self.snapshots.len() < SNAPSHOTS_MAX {
                let change = feed.newest();
                let id = feed.id_of(change);
                let whole = self.model.snapshot(id.clone(), now);
                self.snapshots.push_back(Snapshot {
                    change,
                    made_at: now,
                    encoded: encode(&id, "reset", &whole)?,
                });
            }
        }
        let newest = self.snapshots.back();
        newest.filter(|snapshot| is_fit(snapshot)).ok_or(NoSnapshot::Busy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use push0_domain::message::{Event, Happening};

    fn at(ms: u64) -> Timestamp {
        Timestamp(ms * 1_000)
    }

    /// Makes a change that clients are told of.
    fn change(shared: &Shared, ms: u64) {
        let what = Happening::DeadLetter {
            id: "l".into(),
            reason: "r".into(),
        };
        shared.with(|model| model.happened(Event { at: at(ms), what }, at(ms)));
        shared.flush(at(ms)).unwrap();
    }

    #[test]
    fn clients_that_start_over_at_once_share_a_snapshot() {
        let shared = Shared::new(7);
        let first = shared.start(None, at(0)).unwrap();
        change(&shared, 100);
        let second = shared.start(None, at(500)).unwrap();
        assert_eq!(first.snapshot, second.snapshot);
        let mut place = second.place;
        assert!(matches!(shared.piece(&mut place), Piece::Bytes(_)));
        let later = shared.start(None, at(501)).unwrap();
        assert_ne!(first.snapshot, later.snapshot);
        let known = shared.start(Some("00000007-1"), at(501)).unwrap();
        assert_eq!((known.snapshot, known.place), (None, later.place));
    }

    #[test]
    fn slow_clients_hold_few_snapshots() {
        let shared = Shared::new(7);
        let mut held = Vec::new();
        for second in 0..10 {
            change(&shared, 1000 * second);
            held.push(shared.start(None, at(1000 * second)).unwrap().snapshot);
        }
        held.dedup();
        assert_eq!(held.len(), SNAPSHOTS_MAX);
        // Without the changes since then, nobody can continue from those.
        let state = &mut *shared.state();
        let too_long = crate::view::Change {
            is_too_long: true,
            ..crate::view::Change::default()
        };
        state.feed.publish(&too_long).unwrap();
        assert!(matches!(state.snapshot(at(20_000)), Err(NoSnapshot::Busy)));
        drop(held);
        assert!(state.snapshot(at(20_000)).is_ok());
    }
}
