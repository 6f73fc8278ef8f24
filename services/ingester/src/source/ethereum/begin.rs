//! Looks at a node before a pipeline begins at its newest block.

use super::{Ethereum, Halt, block::FetchedBlock};
use crate::{decide::begin::Look, status::Trouble};
use push0_bus::now;
use std::time::Duration;

impl Ethereum<'_> {
    /// Returns an error while the pipeline has no first block and this one is no place to begin.
    pub(super) async fn may_begin(&mut self, head: &FetchedBlock) -> Result<(), Halt> {
        if self.follower.history().first().is_some() {
            return Ok(());
        }
        let mined_at = Duration::from_secs(head.facts.timestamp_s);
        let look = Look {
            head: head.link.block,
            age: Duration::from_micros(now().0).saturating_sub(mined_at),
            syncs: self.nodes.syncs().await.map_err(Halt::Node)?,
            at: self.opened_at.elapsed(),
        };
        let decided = self.begin.decide(&look, self.source.stale_after);
        decided.map_err(|wait| {
            let reason = format!("{}: {wait}", self.nodes.shown());
            // Another node may have the newest block.
            self.nodes.leave(&wait);
            Halt::Wait(Trouble::Begin, reason)
        })
    }
}
