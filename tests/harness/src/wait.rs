//! Waiting for a value, with a limit: the only place where tests sleep.

use std::{fmt::Debug, time::Duration};
use tokio::time::Instant;

/// How often a value is looked at.
const INTERVAL: Duration = Duration::from_millis(10);

/// What a probe found: either what was awaited, or what is there instead (for the panic's message).
pub trait Probed {
    /// What was awaited.
    type Value;

    /// The value, or what was seen in its place.
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

/// An error is not a failure but the state so far: `Err(count)` shows how far it came.
impl<T, E: Debug> Probed for Result<T, E> {
    type Value = T;

    fn found(self) -> Result<T, String> {
        self.map_err(|seen| format!("{seen:?}"))
    }
}

/// Looks again and again until `probe` finds what is awaited, and returns it.
///
/// # Panics
/// After `timeout`, with `what` and the last thing seen. A probe that hangs counts as not found.
#[track_caller]
pub fn wait_for<P: Probed>(
    what: &str,
    timeout: Duration,
    probe: impl AsyncFnMut() -> P,
) -> impl Future<Output = P::Value> {
    // Not an async fn: the panic should name the caller's line.
    let caller = std::panic::Location::caller();
    async move {
        match look(timeout, probe).await {
            Ok(value) => value,
            Err(seen) => panic!("{caller}: waited {timeout:?} for {what}; last seen: {seen}"),
        }
    }
}

/// As [`wait_for`]; what was last seen instead comes back as the error.
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
