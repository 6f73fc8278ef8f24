//! The bytes that a process stores at the moment, and the room left by them.

use crate::decide::under_way::UnderWay;
use push0_bus::{Level, Place, Stream, full_for_blocks};
use push0_runtime::metrics::IntGauge;
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// The writes in flight of this process's pipelines.
static UNDER_WAY: Mutex<UnderWay> = Mutex::new(UnderWay::nothing());

fn under_way() -> MutexGuard<'static, UnderWay> {
    UNDER_WAY.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns the moment at which levels are asked for.
pub(super) fn moment() -> u64 {
    under_way().moment()
}

/// Whether blocks without room wait in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// Blocks wait until there is room.
    ForRoom,
    /// Blocks without room are dropped: the caller holds room that others need.
    Never,
}

/// The room found by the last look.
pub(super) struct Found {
    pub(super) at: Instant,
    /// Bytes of witnesses stored since.
    pub(super) used: u64,
}

/// The levels of the places that blocks fill.
pub(super) struct Levels {
    pub(super) of_places: Vec<(Place, Level)>,
    /// The number of the pipeline's blocks that wait.
    pub(super) own: u64,
}

/// Bytes that count as under way until dropped.
pub(super) struct Storing(u64);

impl Storing {
    pub(super) fn begin(bytes: u64) -> Self {
        under_way().begin(bytes);
        Self(bytes)
    }
}

impl Drop for Storing {
    fn drop(&mut self) {
        under_way().end(self.0);
    }
}

/// Shows that the pipeline waits for room, until dropped: the process may lose the lead while it waits.
pub(super) struct Waiting(IntGauge);

impl Waiting {
    pub(super) fn new(gauge: IntGauge) -> Self {
        gauge.set(1);
        Self(gauge)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.set(0);
    }
}

impl Levels {
    /// Begins to store witnesses of so many bytes if the levels, asked for at this moment, leave room.
    pub(super) fn begin(&self, bytes: u64, asked: u64, waits: bool) -> Result<Storing, Place> {
        let in_blocks = |(place, _): &&(Place, Level)| *place == Place::Stream(Stream::Blocks);
        let waiting = self.of_places.iter().find(in_blocks);
        let waiting = waiting.map_or(0, |(_, level)| level.messages);
        // The pipelines decide one after the other, so that each counts the writes begun by the others.
        let mut under_way = under_way();
        let witnesses = under_way.unseen_since(asked).saturating_add(bytes);
        if let Some(place) = full_for_blocks(&self.of_places, self.own, waiting, waits, witnesses) {
            return Err(place);
        }
        under_way.begin(bytes);
        Ok(Storing(bytes))
    }
}
