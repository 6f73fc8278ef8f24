//! The request to stop, and the signals that make it.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::exit;

/// Whether this process was asked to stop. Clones share one request, which is never taken back.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// Nobody has asked yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Completes once the stop is requested, at once if it already is. Safe to use in `select!`.
    pub async fn requested(&self) {
        self.0.cancelled().await;
    }

    /// Whether the stop is requested.
    pub fn is_requested(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Requests the stop.
    pub fn trigger(&self) {
        self.0.cancel();
    }
}

/// `SIGTERM` and `SIGINT`, caught from the moment this exists.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Catches the signals; needs the context of a runtime.
    pub(crate) fn register() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The first signal requests the stop; the second ends the process at once, whatever still runs.
    pub(crate) async fn watch(mut self, shutdown: Shutdown) {
        let first = self.next().await;
        tracing::info!(signal = first, "stopping");
        shutdown.trigger();
        let second = self.next().await;
        tracing::warn!(signal = second, "second signal, exiting at once");
        std::process::exit(i32::from(exit::SECOND_SIGNAL));
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
