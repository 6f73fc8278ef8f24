//! Watches the room for results of released work, and stops releases before a place refuses them.

use crate::metrics::Metrics;
use futures::{FutureExt, future::BoxFuture};
use push0_bus::{Bus, BusError, Level, Place, Room};
use std::time::{Duration, Instant};

/// How often the levels are read, and how often once a place is half full: provers may fill the rest soon.
const LOOK_EVERY: Duration = Duration::from_secs(1);
const LOOK_OFTEN: Duration = Duration::from_millis(250);
const HALF: u64 = 500;

type Looking = BoxFuture<'static, Result<Vec<(Place, Level)>, BusError>>;

/// The watch over the room, and its last look.
pub(crate) struct RoomWatch {
    bus: Bus,
    room: Room,
    blobs: Option<Level>,
    looking: Option<Looking>,
    next_look: Instant,
}

impl RoomWatch {
    /// Reads the levels for the first time.
    pub(crate) async fn start(bus: &Bus, metrics: &Metrics) -> Result<Self, BusError> {
        let mut watch = Self {
            bus: bus.clone(),
            room: Room::Enough,
            blobs: None,
            looking: None,
            next_look: Instant::now(),
        };
        let levels = bus.levels(&Place::OF_WORK).await?;
        watch.see(&levels, metrics);
        Ok(watch)
    }

    pub(crate) fn room(&self) -> Room {
        self.room
    }

    /// Returns the level of the blob store, once after each look.
    pub(crate) fn blobs(&mut self) -> Option<Level> {
        self.blobs.take()
    }

    /// Starts to read the levels, if that is due. Returns whether it does.
    pub(crate) fn tick(&mut self, now: Instant) -> bool {
        let looks = self.looking.is_none() && now >= self.next_look;
        if looks {
            self.next_look = now + LOOK_EVERY;
            let bus = self.bus.clone();
            self.looking = Some(async move { bus.levels(&Place::OF_WORK).await }.boxed());
        }
        looks
    }

    /// Returns once levels were read. Pending while none are being read. Cancel safe.
    pub(crate) async fn seen(&mut self, metrics: &Metrics) -> Room {
        let Some(looking) = &mut self.looking else {
            return std::future::pending().await;
        };
        let levels = looking.await;
        self.looking = None;
        // Without an answer, the room is as it was: the next look follows soon.
        if let Ok(levels) = levels {
            self.see(&levels, metrics);
        }
        self.room
    }

    fn see(&mut self, levels: &[(Place, Level)], metrics: &Metrics) {
        if levels.iter().any(|(_, level)| level.permille() >= HALF) {
            self.next_look = self.next_look.min(Instant::now() + LOOK_OFTEN);
        }
        let blobs = levels.iter().find(|(place, _)| *place == Place::Blobs);
        self.blobs = blobs.map(|(_, level)| *level);
        let room = Room::of(levels, self.room);
        for place in Place::OF_WORK {
            metrics.waits_for_room(place, room.full() == Some(place));
        }
        if room == self.room {
            return;
        }
        self.room = room;
        match room {
            Room::Enough => tracing::info!("there is room in every stream again: releasing all work"),
            Room::Scarce(place) => tracing::warn!(
                stream = %place,
                "nearly full: releasing only work for the next block of each pipeline, until emitted blocks make \
                 room; `push0 status` shows the levels"
            ),
            Room::None(place) => tracing::warn!(
                stream = %place,
                "nearly full: releasing no work until it empties; provers take from PUSH0_TASKS and verifiers from \
                 PUSH0_CHECKS, so look whether there are enough of them (`push0 status`)"
            ),
        }
    }
}
