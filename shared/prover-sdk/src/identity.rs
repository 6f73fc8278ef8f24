//! The identity of this process, as its heartbeats and its name tell it.

use push0_domain::{
    Participant, ProverId, ZkvmId,
    message::{Origin, Role},
};

/// The process for which the heartbeats are sent.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) prover: ProverId,
    pub(crate) zkvm: ZkvmId,
    pub(crate) role: Role,
    pub(crate) slots: u32,
    pub(crate) incarnation: u64,
    pub(crate) origin: Origin,
}

impl Identity {
    /// Returns the process as subjects name it.
    pub(crate) fn participant(&self) -> Participant {
        Participant {
            zkvm: self.zkvm.clone(),
            name: self.prover.clone(),
        }
    }
}
