//! Bodies of waiting messages, cached in memory up to a limit and otherwise read from their stream.

use crate::{
    decide::SourceId,
    task::{Body, Traced},
};
use push0_domain::trace::TraceContext;
use std::{collections::HashMap, sync::Arc};

/// Most bytes of cached bodies, enough for some 2,000 blocks, so most releases need no read.
const BYTES_MAX: usize = 1024 * 1024;

/// Cached bodies by source message.
#[derive(Debug, Default)]
pub(crate) struct Bodies {
    kept: HashMap<SourceId, Traced>,
    bytes: usize,
}

impl Bodies {
    /// Caches a body if there is room.
    pub(crate) fn keep(&mut self, source: SourceId, body: Body, trace: TraceContext) {
        self.forget(source);
        if self.bytes + body.size() <= BYTES_MAX {
            self.bytes += body.size();
            self.kept.insert(source, Arc::new((body, trace)));
        }
    }

    /// Drops the cached body of a message.
    pub(crate) fn forget(&mut self, source: SourceId) {
        if let Some(gone) = self.kept.remove(&source) {
            self.bytes -= gone.0.size();
        }
    }

    /// Returns the cached body of a message.
    pub(crate) fn get(&self, source: SourceId) -> Option<Traced> {
        self.kept.get(&source).cloned()
    }
}
