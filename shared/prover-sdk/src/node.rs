//! The state of a running adapter, which its parts share.

use crate::{ledger::Ledger, metrics::Metrics};
use push0_bus::{Blobs, Bus, Facts, Pipelines};
use push0_domain::{ProverId, ZkvmId, message::KnownBlock};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// State shared by all parts of a running adapter.
pub(crate) struct Node {
    pub(crate) bus: Bus,
    pub(crate) blobs: Blobs,
    pub(crate) known: Facts<KnownBlock>,
    pub(crate) pipelines: Pipelines,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) slots: Semaphore,
    /// Cancelled when no more work is taken. Tasks that have not begun are handed back.
    pub(crate) draining: CancellationToken,
    /// Cancelled when the process ends. Attempts that still run are handed back.
    pub(crate) leaving: CancellationToken,
    pub(crate) id: ProverId,
    pub(crate) zkvm: ZkvmId,
    /// The rank among standby provers; 0 if the process is no standby.
    pub(crate) standby: u8,
    pub(crate) verify_own: bool,
    pub(crate) metrics: Metrics,
}

impl Node {
    /// Stops taking work and hands back tasks that have not begun.
    pub(crate) fn drain(&self) {
        self.ledger.drain();
        self.draining.cancel();
    }
}
