//! How far one transfer of a blob came.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// The farthest reach of one transfer, in bytes. A try that begins anew and comes no farther than the last
/// one is no progress.
#[derive(Clone, Debug, Default)]
pub struct Reached(Arc<AtomicU64>);

impl Reached {
    /// Returns the number of bytes reached so far.
    pub fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn note(&self, bytes: usize) {
        self.0.fetch_max(bytes as u64, Ordering::Relaxed);
    }
}
