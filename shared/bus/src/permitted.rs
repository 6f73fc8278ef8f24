//! Ending work at once when the broker refuses an action that the work needs.

use crate::{Bus, BusError, Refusal};
use std::sync::Arc;
use tokio::sync::broadcast;

impl Bus {
    /// Runs `work`, and ends it when the broker refuses an action of this connection, events excepted.
    ///
    /// Fails with [`BusError::Forbidden`] after a refusal, otherwise with the error of `work`.
    pub async fn permitted<T>(&self, work: impl Future<Output = Result<T, BusError>>) -> Result<T, BusError> {
        tokio::select! {
            biased;
            refusal = self.refused() => Err(BusError::Forbidden(refusal)),
            done = work => done,
        }
    }

    /// Waits until the broker refuses an action other than an event.
    pub async fn refused(&self) -> Arc<Refusal> {
        let mut passing = self.refusals.passing.subscribe();
        loop {
            match passing.recv().await {
                Ok(refusal) if refusal.is_waited_for() => return refusal,
                Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
                // The sender lives in `self`: the channel cannot close.
                Err(broadcast::error::RecvError::Closed) => std::future::pending().await,
            }
        }
    }
}
