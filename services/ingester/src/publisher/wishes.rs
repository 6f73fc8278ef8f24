//! A look at the wishes of operators, which needs no publisher: it has blocks to store meanwhile.

use push0_bus::{BusError, Facts};
use push0_domain::{PipelineId, pipeline::Reset};

/// The wishes of operators that were not carried out yet.
pub(crate) struct Wishes {
    pub(super) resets: Facts<Reset>,
    pub(super) pipeline: PipelineId,
    /// Revision of the last wish that was carried out.
    pub(super) carried_out: u64,
}

impl Wishes {
    /// Returns whether an operator wishes something that was neither carried out nor refused.
    pub(crate) async fn are_open(&self) -> Result<bool, BusError> {
        let found = self.find().await?;
        Ok(found.is_some_and(|(wish, revision)| self.is_open(&wish, revision)))
    }

    pub(super) async fn find(&self) -> Result<Option<(Reset, u64)>, BusError> {
        let fact = self.resets.get(&Reset::key(&self.pipeline)).await?;
        Ok(fact.and_then(|fact| Some((fact.value?, fact.revision))))
    }

    pub(super) fn is_open(&self, wish: &Reset, revision: u64) -> bool {
        revision > self.carried_out && wish.refused.is_none()
    }
}
