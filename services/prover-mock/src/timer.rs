//! Timer with a precision of some tens of microseconds.
//!
//! The runtime's timers are a millisecond coarse: an attempt of 10 ms would take 11, and a measurement
//! would blame the orchestrator for the difference. One thread serves all waiting attempts.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    sync::{
        LazyLock,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::{Duration, Instant},
};
use tokio::sync::oneshot;

static TIMER: LazyLock<Sender<Alarm>> = LazyLock::new(|| {
    let (alarms, set) = channel();
    // The sender is a static, so the thread runs until the process ends.
    std::thread::spawn(move || ring(&set));
    alarms
});

struct Alarm {
    at: Instant,
    bell: oneshot::Sender<()>,
}

impl PartialEq for Alarm {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Alarm {}

impl PartialOrd for Alarm {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Alarm {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

/// Sleeps for `time`; returns at once if it is zero.
pub async fn sleep(time: Duration) {
    if time.is_zero() {
        return;
    }
    let (bell, rings) = oneshot::channel();
    let alarm = Alarm {
        at: Instant::now() + time,
        bell,
    };
    // Sending fails only if the thread is gone, and then there is no alarm to wait for.
    let _ = TIMER.send(alarm);
    let _ = rings.await;
}

fn ring(set: &Receiver<Alarm>) {
    let mut waiting: BinaryHeap<Reverse<Alarm>> = BinaryHeap::new();
    loop {
        let now = Instant::now();
        while waiting.peek().is_some_and(|Reverse(next)| next.at <= now) {
            if let Some(Reverse(due)) = waiting.pop() {
                let _ = due.bell.send(());
            }
        }
        let heard = match waiting.peek() {
            Some(Reverse(next)) => set.recv_timeout(next.at.saturating_duration_since(now)),
            None => set.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match heard {
            Ok(alarm) => waiting.push(Reverse(alarm)),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn timers_end_in_the_order_of_their_times_and_not_before() {
        let began = Instant::now();
        let each = [30_u64, 10, 20, 0].map(|millis| async move {
            sleep(Duration::from_millis(millis)).await; // wait: the sleep under test
            (began.elapsed(), millis)
        });
        let mut ended = futures::future::join_all(each).await;
        ended.sort();
        let order: Vec<u64> = ended.iter().map(|(_, millis)| *millis).collect();
        assert_eq!(order, [0, 10, 20, 30]);
        assert!(
            ended
                .iter()
                .all(|(took, millis)| *took >= Duration::from_millis(*millis))
        );
    }
}
