//! Whether the receiver of traces takes spans.
//!
//! A receiver that does not answer is asked again after a pause. Meanwhile no span is kept for it. Spans count as lost
//! only for a receiver that has taken some.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::metrics::IntCounter;

/// How long a receiver that did not answer is left alone.
const PAUSE: Duration = Duration::from_secs(10);
/// Most spans waiting for export: 2 MiB at about 1 KiB each.
pub(super) const MAX_QUEUE: usize = 2048;

/// The state of the receiver by the last exports. At first it is taken for reachable.
#[derive(Debug)]
pub(super) struct Receiver {
    endpoint: String,
    lost: IntCounter,
    began: Instant,
    /// Until when nothing is sent, in milliseconds since `began`.
    away_until: AtomicU64,
    was_reached: AtomicBool,
    is_down: AtomicBool,
    /// Spans in the queue.
    queued: AtomicUsize,
}

impl Receiver {
    pub(super) fn new(endpoint: String, lost: IntCounter) -> Self {
        Self {
            endpoint,
            lost,
            began: Instant::now(),
            away_until: AtomicU64::new(0),
            was_reached: AtomicBool::new(false),
            is_down: AtomicBool::new(false),
            queued: AtomicUsize::new(0),
        }
    }

    fn millis(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns whether spans are sent now.
    pub(super) fn takes(&self) -> bool {
        self.away_until.load(Ordering::Relaxed) <= self.millis()
    }

    /// Returns whether a span is to be queued, and counts a lost one: the receiver is away, or the queue is full.
    pub(super) fn admits(&self) -> bool {
        let has_room = |queued| (queued < MAX_QUEUE).then_some(queued + 1);
        let (set, fetch) = (Ordering::Relaxed, Ordering::Relaxed);
        let admits = self.takes() && self.queued.fetch_update(set, fetch, has_room).is_ok();
        if !admits {
            self.dropped(1);
        }
        admits
    }

    /// Handles spans that left the queue.
    pub(super) fn unqueued(&self, spans: usize) {
        self.queued.fetch_sub(spans, Ordering::Relaxed);
    }

    /// Handles spans that are not sent.
    pub(super) fn dropped(&self, spans: usize) {
        if self.was_reached.load(Ordering::Relaxed) {
            self.lost.inc_by(spans as u64);
        }
    }

    /// Handles the end of an export of so many spans. An outage is told once, and quietly: work does not suffer from it.
    pub(super) fn answered(&self, spans: usize, error: Option<&dyn std::fmt::Display>) {
        let was_down = self.is_down.swap(error.is_some(), Ordering::Relaxed);
        let Some(error) = error else {
            self.away_until.store(0, Ordering::Relaxed);
            self.was_reached.store(true, Ordering::Relaxed);
            if was_down {
                tracing::info!(endpoint = self.endpoint, "traces are received again");
            }
            return;
        };
        self.dropped(spans);
        let pause = u64::try_from(PAUSE.as_millis()).unwrap_or(u64::MAX);
        self.away_until
            .store(self.millis().saturating_add(pause), Ordering::Relaxed);
        if !was_down {
            tracing::info!(
                endpoint = self.endpoint,
                %error,
                "traces are not received: none are made until the receiver answers, and work goes on"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn receiver() -> Receiver {
        let lost = IntCounter::new("lost", "Lost spans.").expect("a metric");
        Receiver::new("http://receiver:4317".to_owned(), lost)
    }

    #[test]
    fn nothing_is_kept_for_a_receiver_that_does_not_answer() {
        let receiver = receiver();
        assert!(receiver.admits(), "at first it is asked");
        receiver.answered(5, Some(&"refused"));
        assert!(!receiver.admits());
        assert_eq!(receiver.lost.get(), 0, "nobody waits for these spans");
        receiver.answered(0, None);
        assert!(receiver.admits(), "it is back");
    }

    #[test]
    fn spans_that_find_the_queue_full_are_lost() {
        let receiver = receiver();
        receiver.answered(1, None);
        let admitted = (0..MAX_QUEUE + 3).filter(|_| receiver.admits()).count();
        assert_eq!((admitted, receiver.lost.get()), (MAX_QUEUE, 3));
        receiver.unqueued(1);
        assert!(receiver.admits(), "there is room for one");
        assert!(!receiver.admits());
    }

    #[test]
    fn spans_are_lost_to_a_receiver_that_took_some() {
        let receiver = receiver();
        receiver.answered(5, None);
        receiver.answered(7, Some(&"refused"));
        assert!(!receiver.admits());
        assert_eq!(
            receiver.lost.get(),
            8,
            "those of the export and the one that came then"
        );
    }
}
