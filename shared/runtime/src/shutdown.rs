//! The request to stop a process, and the signals making the request.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::exit;

/// The request to stop this process. Clones share one request, which is never taken back.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// Creates a handle whose stop is not requested yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Completes once the stop is requested, immediately if that has already happened. Safe to
    /// use in `select!`.
    pub async fn requested(&self) {
        self.0.cancelled().await;
    }

    /// Returns whether the stop is requested.
    pub fn is_requested(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Requests the stop of the process.
    pub fn trigger(&self) {
        self.0.cancel();
    }
}

/// Handlers of `SIGTERM` and `SIGINT`, which catch both signals from their creation on.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Installs the handlers; needs the context of a runtime.
    pub(crate) fn register() -> io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// Requests the stop on the first signal. Exits at once on the second signal, even if
    /// work still runs.
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
