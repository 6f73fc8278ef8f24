//! Bodies of waiting messages, cached in memory up to a limit and otherwise read from their stream.

use crate::{
    decide::{Release, SourceId},
    task::Body,
};
use futures::{StreamExt, TryStreamExt};
use push0_bus::{Bus, BusError, Stream};
use push0_domain::{
    message::{BlockEvent, StageReady},
    trace::TraceContext,
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

/// Most bytes of cached bodies, enough for some 2,000 blocks, so most releases need no read.
const BYTES_MAX: usize = 1024 * 1024;
/// Most reads in flight at once.
const READS_MAX: usize = 64;

/// A body and the trace context of its message.
pub(crate) type Traced = Arc<(Body, TraceContext)>;

/// Cached bodies by source message.
#[derive(Default)]
pub(crate) struct Bodies {
    kept: HashMap<SourceId, Traced>,
    bytes: usize,
}

impl Bodies {
    /// Caches a body if there is room.
    pub(crate) fn keep(&mut self, source: SourceId, body: Body, trace: TraceContext) {
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

    /// Returns the bodies of these releases' messages, with `None` for a deleted message.
    pub(crate) async fn of(
        &self,
        bus: &Bus,
        releases: &[Release],
    ) -> Result<HashMap<SourceId, Option<Traced>>, BusError> {
        let sources: BTreeSet<SourceId> = releases.iter().map(|release| release.source).collect();
        let read = async |source| Ok((source, self.get(bus, source).await?));
        futures::stream::iter(sources)
            .map(read)
            .buffer_unordered(READS_MAX)
            .try_collect()
            .await
    }

    /// Returns a body from the cache or from its stream.
    async fn get(&self, bus: &Bus, source: SourceId) -> Result<Option<Traced>, BusError> {
        if let Some(kept) = self.kept.get(&source) {
            return Ok(Some(kept.clone()));
        }
        match source {
            SourceId::Block(sequence) => {
                let kept = bus.at::<BlockEvent>(Stream::Blocks, sequence).await?;
                Ok(kept.and_then(|kept| match kept.body {
                    Ok(BlockEvent::Observed(block)) => {
                        Some(Arc::new((Body::Block(block, kept.stored_at), kept.trace)))
                    }
                    _ => None,
                }))
            }
            SourceId::Stage(sequence) => {
                let kept = bus.at::<StageReady>(Stream::Stages, sequence).await?;
                Ok(kept.and_then(|kept| Some(Arc::new((Body::Stage(kept.body.ok()?), kept.trace)))))
            }
        }
    }
}
