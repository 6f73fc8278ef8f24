//! Ranges whose work may be lost.

use super::Collector;
use crate::intake::Handle;
use push0_domain::{
    BlockKey,
    pipeline::Pipeline,
    subject::{AttemptKey, Kind},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

impl Collector {
    /// Returns the ranges for which a result must come, as subjects name them, each with the newest message about it. Each
    /// has a message in STAGES, TASKS or CHECKS, or its work is lost.
    pub fn waiting_ranges(&self) -> BTreeMap<BlockKey, Option<Handle>> {
        self.ranges.waiting()
    }

    /// Returns the ranges that one of these attempts may bring forward: found in STAGES and TASKS, and in CHECKS with a seal.
    pub fn ranges_in_flight(
        &self,
        found: &[(Kind, AttemptKey)],
        definition: impl Fn(u32) -> Option<Arc<Pipeline>>,
    ) -> BTreeSet<BlockKey> {
        self.ranges.in_flight(found, definition)
    }

    /// Handles the loss of a range's work. [`Self::advance`] begins the range anew, with attempts that follow all earlier
    /// ones, unless a message about the range has come since `newest`.
    pub fn lost(&mut self, range: BlockKey, newest: Option<Handle>) {
        self.ranges.lose(range, newest);
    }
}
