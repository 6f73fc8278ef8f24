//! Time limits of the requests to one node. Light requests and those for whole blocks have limits of their own,
//! because quick answers to the light ones say nothing about the others.

use crate::decide::patience::Patience;
use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The work that a request costs the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// A block without transactions, or a question about the node.
    Light,
    /// A block with its transactions.
    Full,
}

/// The limits by kind of work.
pub(super) struct Patiences(Mutex<[Patience; 2]>);

impl Patiences {
    pub(super) fn new(least: Duration) -> Self {
        Self(Mutex::new([Patience::new(least); 2]))
    }

    pub(super) fn limit(&self, work: Work) -> Duration {
        self.lock()[work as usize].limit()
    }

    pub(super) fn are_strained(&self) -> bool {
        self.lock().iter().any(Patience::is_strained)
    }

    pub(super) fn answered(&self, work: Work, took: Duration) {
        self.lock()[work as usize].answered(took);
    }

    pub(super) fn timed_out(&self, work: Work, limit: Duration) {
        self.lock()[work as usize].timed_out(limit);
    }

    fn lock(&self) -> MutexGuard<'_, [Patience; 2]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
