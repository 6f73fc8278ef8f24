//! Waiting for a value, with a limit: the only place where tests sleep.

use std::{fmt::Debug, time::Duration};
use tokio::time::Instant;

/// The pause between two probes of a value.
const INTERVAL: Duration = Duration::from_millis(10);

/// The outcome of a probe: the awaited value, or a description of the present state for the panic message.
pub trait Probed {
    /// The awaited value.
    type Value;

    /// Returns the value, or a description of the present state.
    fn found(self) -> Result<Self::Value, String>;
}

impl Probed for bool {
    type Value = ();

    fn found(self) -> Result<(), String> {
        self.then_some(()).ok_or_else(|| "false".into())
    }
}

impl<T> Probed for Option<T> {
    type Value = T;

    fn found(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing".into())
    }
}

/// Maps `Err` to the state so far rather than to a failure: `Err(count)` shows the progress.
impl<T, E: Debug> Probed for Result<T, E> {
    type Value = T;

    fn found(self) -> Result<T, String> {
        self.map_err(|seen| format!("{seen:?}"))
    }
}

/// Calls `probe` repeatedly until it finds a value, and returns the value.
///
/// # Panics
/// The value is not found within `timeout`; the message has `what` and the last state seen. A probe that
/// hangs counts as not found.
#[track_caller]
pub fn wait_for<P: Probed>(
    what: &str,
    timeout: Duration,
    probe: impl AsyncFnMut() -> P,
) -> impl Future<Output = P::Value> {
    // An async fn could not capture the caller's line for the panic message.
    let caller = std::panic::Location::caller();
    async move {
        match look(timeout, probe).await {
            Ok(value) => value,
            Err(seen) => panic!("{caller}: waited {timeout:?} for {what}; last seen: {seen}"),
        }
    }
}

/// Waits like [`wait_for`], but returns the last state seen as an error instead of panicking.
pub(crate) async fn look<P: Probed>(
    timeout: Duration,
    mut probe: impl AsyncFnMut() -> P,
) -> Result<P::Value, String> {
    let end = Instant::now() + timeout;
    let mut seen = String::from("nothing: the probe did not return");
    loop {
        match tokio::time::timeout_at(end, probe()).await {
            Ok(probed) => match probed.found() {
                Ok(value) => return Ok(value),
                Err(instead) => seen = instead,
            },
            Err(_) => return Err(seen),
        }
        if Instant::now() >= end {
            return Err(seen);
        }
        tokio::time::sleep(INTERVAL).await; // wait: the poll of every wait in the tests
    }
}
