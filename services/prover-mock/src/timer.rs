//! A timer that is exact to some tens of microseconds.
//!
//! The runtime's timers are a millisecond coarse: an attempt of 10 ms would take 11, and whoever
//! measures an orchestrator with it would charge that to the orchestrator. Here the kernel's own timer
//! wakes the runtime, like a message that comes; a thread that slept for it would be woken twice.

use std::{io, time::Duration};

/// Returns after this time; at once if it is none.
pub async fn sleep(time: Duration) {
    if time.is_zero() {
        return;
    }
    if exactly(time).await.is_err() {
        // Another system, or more attempts at once than the process may open files.
        tokio::time::sleep(time).await;
    }
}

#[cfg(not(target_os = "linux"))]
async fn exactly(_: Duration) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(target_os = "linux")]
#[expect(
    deprecated,
    reason = "its successor is `unsafe`, for descriptors that somebody else may close: nobody else has this one"
)]
async fn exactly(time: Duration) -> io::Result<()> {
    use nix::sys::{
        time::TimeSpec,
        timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    };
    use std::os::fd::OwnedFd;
    use tokio::io::{Interest, unix::AsyncFd};

    let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
    let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?;
    let once = Expiration::OneShot(TimeSpec::from(time));
    timer.set(once, TimerSetTimeFlags::empty())?;
    let timer = AsyncFd::with_interest(OwnedFd::from(timer), Interest::READABLE)?;
    timer.readable().await.map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[tokio::test]
    async fn timers_end_in_the_order_of_their_times_and_not_before() {
        let began = Instant::now();
        let each = [30_u64, 10, 20, 0].map(|millis| async move {
            sleep(Duration::from_millis(millis)).await; // wait: what is tested
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
