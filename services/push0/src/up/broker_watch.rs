//! Watches the broker of `push0 up`: names a full disk, and restarts a broker that no longer stores.
//!
//! After a failed write, the broker may refuse further writes until it is restarted, also when the disk has room
//! again, and it may switch JetStream off. So the broker is restarted once the disk has room after it was full,
//! and when JetStream has not answered for a while.

use super::log::Prefix;
use crate::table;
use nix::sys::statvfs::statvfs;
use push0_bus::Bus;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, interval, timeout};

/// Interval of the looks at the disk and the broker.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Free space below which the disk counts as full: less than one block of a stream's store.
const FULL_BELOW: u64 = 8 << 20;
/// Free space from which a disk that was full has room again.
const ROOM_FROM: u64 = 32 << 20;
/// How long JetStream may be silent before the broker is restarted. A broker that starts reads its store first.
const SILENT_MAX: Duration = Duration::from_secs(10);
/// Least time between two restarts. The time doubles with each restart that did not help.
const RESTART_AFTER: Duration = Duration::from_secs(15);
const RESTART_AFTER_MAX: Duration = Duration::from_secs(300);
/// How often a full disk is named again.
const SAY_EVERY: Duration = Duration::from_secs(60);
/// Time limit for one question to the broker.
const ASK_MAX: Duration = Duration::from_secs(3);

/// A finding to name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    DiskFull,
    RoomAgain,
    NoJetStream,
}

/// What is known about disk and broker.
#[derive(Debug)]
struct Watch {
    full_since_start: bool,
    said_full_at: Option<Instant>,
    answered_at: Instant,
    restart_at: Option<Instant>,
    pause: Duration,
}

impl Watch {
    fn new(now: Instant) -> Self {
        Self {
            full_since_start: false,
            said_full_at: None,
            answered_at: now,
            restart_at: None,
            pause: RESTART_AFTER,
        }
    }

    /// Returns the finding of a look. Both `RoomAgain` and `NoJetStream` come with a restart of the broker.
    fn look(&mut self, free: u64, answers: bool, now: Instant) -> Option<Finding> {
        if answers {
            self.answered_at = now;
        }
        if free < FULL_BELOW {
            self.full_since_start = true;
            let is_due = self.said_full_at.is_none_or(|at| now - at >= SAY_EVERY);
            return is_due.then(|| {
                self.said_full_at = Some(now);
                Finding::DiskFull
            });
        }
        if self.full_since_start {
            if free < ROOM_FROM {
                return None;
            }
            (self.full_since_start, self.said_full_at) = (false, None);
            self.restarts(now);
            return Some(Finding::RoomAgain);
        }
        if now - self.answered_at < SILENT_MAX {
            if answers && self.restart_at.is_some_and(|at| now >= at) {
                (self.restart_at, self.pause) = (None, RESTART_AFTER);
            }
            return None;
        }
        if self.restart_at.is_some_and(|at| now < at) {
            return None;
        }
        self.restarts(now);
        Some(Finding::NoJetStream)
    }

    fn restarts(&mut self, now: Instant) {
        self.answered_at = now;
        self.restart_at = Some(now + self.pause);
        self.pause = (self.pause * 2).min(RESTART_AFTER_MAX);
    }
}

/// Watches for ever. `restart` restarts the broker.
pub(crate) async fn watch(dir: PathBuf, bus: Bus, restart: Arc<Notify>, prefix: Prefix) {
    let mut watch = Watch::new(Instant::now());
    let mut look = interval(LOOK_EVERY);
    loop {
        look.tick().await;
        let free = statvfs(&dir).map_or(u64::MAX, |stats| {
            stats.blocks_available().saturating_mul(stats.fragment_size())
        });
        // A broker that is not connected is being restarted already, or reads its store.
        let answers = !bus.connection().borrow().up
            || timeout(ASK_MAX, bus.check_provisioned())
                .await
                .is_ok_and(|asked| asked.is_ok());
        let act = watch.look(free, answers, Instant::now());
        let place = dir.display();
        match act {
            None => continue,
            Some(Finding::DiskFull) => {
                prefix.line(&format!(
                    "the disk of {place} is full ({} free): nothing can be stored, all work waits; make room",
                    table::bytes(free)
                ));
                continue;
            }
            Some(Finding::RoomAgain) => prefix.line(&format!(
                "the disk of {place} has room again ({} free): restarting the broker, which may refuse to store \
                 after a failed write",
                table::bytes(free)
            )),
            Some(Finding::NoJetStream) => prefix.line(&format!(
                "the broker is connected, but its JetStream has not answered for {}: restarting it (its log is \
                 {place}/nats/nats.log)",
                table::span(SILENT_MAX)
            )),
        }
        restart.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: u64 = 1 << 30;

    #[test]
    fn a_full_disk_is_named_once_a_minute_and_the_broker_restarted_when_there_is_room() {
        let began = Instant::now();
        let mut watch = Watch::new(began);
        let mut look =
            |free, answers, seconds| watch.look(free, answers, began + Duration::from_secs(seconds));
        assert_eq!(look(ROOM, true, 0), None);
        assert_eq!(look(0, false, 1), Some(Finding::DiskFull));
        assert_eq!(look(0, false, 60), None);
        assert_eq!(look(0, false, 61), Some(Finding::DiskFull));
        assert_eq!(look(FULL_BELOW, false, 62), None);
        assert_eq!(look(ROOM_FROM, false, 63), Some(Finding::RoomAgain));
        assert_eq!(look(ROOM, false, 64), None);
        assert_eq!(look(ROOM, true, 65), None);
    }

    #[test]
    fn a_broker_without_jetstream_is_restarted_less_and_less_often() {
        let began = Instant::now();
        let mut watch = Watch::new(began);
        let mut restarts = Vec::new();
        for second in 0..200 {
            if watch.look(ROOM, false, began + Duration::from_secs(second)) == Some(Finding::NoJetStream) {
                restarts.push(second);
            }
        }
        assert_eq!(restarts, [10, 25, 55, 115]);
        assert_eq!(watch.look(ROOM, true, began + Duration::from_secs(600)), None);
        assert_eq!(watch.pause, RESTART_AFTER, "the broker was well for long enough");
    }
}
