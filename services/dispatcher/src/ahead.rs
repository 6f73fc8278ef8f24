//! How far blocks are read ahead of the output, and what follows when that moves on.

use crate::{
    decide::SourceId,
    lane::{Announced, Arrival},
    lanes::{News, Sight},
    service::Active,
};
use push0_bus::{BusError, Kept, Stream};
use push0_domain::{PipelineId, message::BlockEvent, subject};
use serde::de::IgnoredAny;
use std::time::Instant;

impl Active<'_> {
    pub(crate) async fn news(&mut self, news: News) -> Result<(), BusError> {
        match news {
            News::Of(lane, Arrival::Block(block, is_replay)) => self.received(&lane, block, is_replay).await,
            News::Of(lane, Arrival::Found(found)) => self.found(&lane, found).await,
            News::Of(lane, Arrival::Cancel(announced)) => {
                let source = SourceId::Cancel(announced.sequence);
                self.cancelled(&lane, source, &announced).await?;
                self.finish_cancels_of(&lane).await
            }
            News::Sight(sight) => self.look(sight).await,
            News::Lane => Ok(()),
        }
    }

    /// Takes a block in, or parks its lane if the block is too far ahead.
    async fn received(
        &mut self,
        lane: &PipelineId,
        block: Announced,
        is_replay: bool,
    ) -> Result<(), BusError> {
        let has_room = self.has_room(lane, &block).await?;
        let Some(open) = self.lanes.get(lane) else {
            return Ok(());
        };
        if !has_room {
            open.park(block, is_replay);
            return Ok(());
        }
        if open.pass(block.sequence).await {
            return Ok(());
        }
        self.core.replays(is_replay);
        if matches!(block.body, BlockEvent::Cancelled(_)) {
            // Earlier ingesters cancel on the subject of blocks.
            return self
                .cancelled(lane, SourceId::Block(block.sequence), &block)
                .await;
        }
        self.block(lane, block).await
    }

    async fn cancelled(
        &mut self,
        lane: &PipelineId,
        source: SourceId,
        announced: &Announced,
    ) -> Result<(), BusError> {
        match &announced.body {
            BlockEvent::Cancelled(cancel) if cancel.pipeline == *lane => {
                self.cancel(source, announced, cancel).await
            }
            _ => {
                let letter = (Stream::Blocks, &*announced.subject, source);
                let reason = format!("not a cancel of blocks of `{lane}`");
                self.refuse(letter, &reason).await?;
                self.done(source).await;
                Ok(())
            }
        }
    }

    /// Whether a block is near enough to the output to be taken in.
    async fn has_room(&mut self, lane: &PipelineId, block: &Announced) -> Result<bool, BusError> {
        let BlockEvent::Observed(observed) = &block.body else {
            return Ok(true);
        };
        // Nobody collects for it: nothing would ever be emitted.
        let is_defined = self.lanes.get(lane).is_some_and(|lane| lane.is_defined);
        if !is_defined || observed.pipeline != *lane {
            return Ok(true);
        }
        let definition = self.pipeline(lane, observed.revision).await?;
        let range = definition.as_ref().and_then(|pipeline| pipeline.range());
        let ahead = self
            .lanes
            .ahead(range.and_then(|range| range.every).unwrap_or(0).into());
        self.core.announced(lane, observed.block.number);
        let source = SourceId::Block(block.sequence);
        Ok(self.core.has_room(source, lane, &observed.block, ahead))
    }

    /// Reads on where the output has moved on, or where the parked block was cancelled.
    pub(crate) async fn unpark(&mut self) -> Result<(), BusError> {
        for lane in self.lanes.with_parked() {
            let Some((block, is_replay)) = self.lanes.get(&lane).and_then(|lane| lane.unpark()) else {
                continue;
            };
            self.received(&lane, block, is_replay).await?;
        }
        Ok(())
    }

    /// Takes in blocks that were published late, before their turn.
    async fn found(&mut self, lane: &PipelineId, found: Vec<Kept<BlockEvent>>) -> Result<(), BusError> {
        for kept in found {
            let Ok(body) = kept.body else { continue };
            let is_new = self
                .lanes
                .get(lane)
                .is_some_and(|lane| lane.takes_early(kept.sequence));
            if is_new {
                let announced = Announced {
                    body,
                    trace: kept.trace,
                    subject: kept.subject,
                    sequence: kept.sequence,
                    stored_at: kept.stored_at,
                    deliveries: 1,
                    ack: (),
                };
                // A predecessor may have found it as well.
                self.core.replays(true);
                self.block(lane, announced).await?;
            }
        }
        Ok(())
    }

    /// Opens and closes lanes as pipelines come and go, and searches where the output stands still.
    async fn look(&mut self, sight: Sight) -> Result<(), BusError> {
        for gone in self.lanes.see(sight) {
            if self.core.forget(&gone) {
                self.lanes.close(&gone).await?;
                self.pipelines.forget(&gone);
                self.metrics.forget(&gone);
                tracing::info!(pipeline = %gone, "nothing is left of it, its consumers are removed");
            }
        }
        let now = Instant::now();
        let fronts: Vec<(PipelineId, u64)> = self
            .core
            .fronts()
            .map(|(name, next)| (name.clone(), next))
            .collect();
        for (name, front) in fronts {
            let ahead = self.lanes.ahead(0);
            let Some(lane) = self.lanes.get(&name) else {
                continue;
            };
            if lane.look(self.bus, front, ahead, now) {
                let parked = lane.parked().map(|parked| parked.sequence);
                tracing::info!(
                    pipeline = %name,
                    block.number = front,
                    parked,
                    ahead,
                    "the output waits for this block and dispatch for the output: looking for it behind the \
                     blocks that wait; `push0 block` says where it is"
                );
            }
        }
        Ok(())
    }

    /// Reads how outputs stand, in case records passed by unheard.
    pub(crate) async fn catch_up(&mut self) -> Result<(), BusError> {
        let fronts: Vec<(PipelineId, u64)> = self
            .core
            .fronts()
            .map(|(name, next)| (name.clone(), next))
            .collect();
        for (name, next) in fronts {
            let subject = match next {
                0 => subject::proofs_of_pipeline(&name),
                // Not the newest of all: for that the broker looks through all subjects.
                next => subject::proof(&name, next),
            };
            let missed = self.bus.last::<IgnoredAny>(Stream::Proofs, &subject).await?;
            if missed.is_some()
                && let Some((output, _)) = self.bus.output(&name).await?
            {
                let effects = self.core.recall(&name, output);
                self.apply(effects).await?;
            }
        }
        Ok(())
    }

    /// Acknowledges the cancels that have nothing left to end.
    pub(crate) async fn finish_cancels(&mut self) -> Result<(), BusError> {
        let open: Vec<PipelineId> = self.core.with_open_cancels().cloned().collect();
        for name in open {
            self.finish_cancels_of(&name).await?;
        }
        Ok(())
    }

    async fn finish_cancels_of(&mut self, name: &PipelineId) -> Result<(), BusError> {
        let Some(lane) = self.lanes.get(name) else {
            return Ok(());
        };
        let unread = lane.unread(self.bus).await?;
        for finished in self.core.finished_cancels(name, unread) {
            if self.is_any_stored(&finished.let_go).await? {
                continue;
            }
            let effects = self.core.close_cancel(name, finished.source);
            self.apply(effects).await?;
        }
        Ok(())
    }

    /// Whether one of these messages is still in its stream: its acknowledgement is on its way, or lost.
    async fn is_any_stored(&self, sources: &[SourceId]) -> Result<bool, BusError> {
        for source in sources {
            let stream = match source {
                SourceId::Stage(_) => Stream::Stages,
                SourceId::Block(_) | SourceId::Cancel(_) => Stream::Blocks,
            };
            if self
                .bus
                .at::<IgnoredAny>(stream, source.sequence())
                .await?
                .is_some()
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The block of a pipeline of which the ingester wrote first: before its first record, its output
    /// begins there.
    pub(crate) async fn first_known(&self, name: &PipelineId) -> Result<Option<u64>, BusError> {
        self.bus.first_known(name).await
    }
}
