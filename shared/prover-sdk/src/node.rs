//! The state of a running adapter, which its parts share.

use crate::{
    adopted::Adopted, judged::Judged, ledger::Ledger, metrics::Metrics, signer::Signer, spool::Spool,
};
use push0_bus::{Blobs, Bus, Facts, Pipelines};
use push0_domain::{Participant, ProverId, ZkvmId, message::KnownBlock};
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// State shared by all parts of a running adapter.
pub(crate) struct Node {
    pub(crate) bus: Bus,
    pub(crate) blobs: Blobs,
    /// `None` for provers, which may not read them.
    pub(crate) facts: Option<StatementFacts>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) slots: Semaphore,
    /// Cancelled when no more work is taken. Tasks that have not begun are handed back.
    pub(crate) draining: CancellationToken,
    /// Cancelled when the process ends. Attempts that still run are handed back.
    pub(crate) leaving: CancellationToken,
    /// `None` on a broker without accounts.
    pub(crate) signer: Option<Signer>,
    pub(crate) id: ProverId,
    pub(crate) zkvm: ZkvmId,
    /// The rank among standby provers; 0 if the process is no standby.
    pub(crate) standby: u8,
    pub(crate) verify_own: bool,
    /// For how long the transfer of an input may make no progress.
    pub(crate) stall: Duration,
    pub(crate) spool: Spool,
    pub(crate) adopted: Adopted,
    pub(crate) judged: Judged,
    pub(crate) metrics: Metrics,
}

/// The facts for the statement of a proof.
pub(crate) struct StatementFacts {
    pub(crate) known: Facts<KnownBlock>,
    pub(crate) pipelines: Pipelines,
}

impl Node {
    /// Returns this process as subjects name it.
    pub(crate) fn participant(&self) -> Participant {
        Participant {
            zkvm: self.zkvm.clone(),
            name: self.id.clone(),
        }
    }

    /// Stops taking work and hands back tasks that have not begun.
    pub(crate) fn drain(&self) {
        self.ledger.drain();
        self.draining.cancel();
    }
}
