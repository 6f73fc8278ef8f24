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
            News::Of(lane, Arrival::Turn(message, is_replay)) => {
                self.received(&lane, message, is_replay).await
            }
            News::Of(lane, Arrival::Cancels(cancels)) => self.early_cancels(&lane, cancels).await,
            News::Of(lane, Arrival::Late(blocks)) => self.late_blocks(&lane, blocks).await,
            News::Sight(sight) => self.look(sight).await,
            News::Lane => Ok(()),
        }
    }

    /// Takes a message in, or parks its lane if it is a block that is too far ahead.
    async fn received(
        &mut self,
        lane: &PipelineId,
        message: Announced,
        is_replay: bool,
    ) -> Result<(), BusError> {
        let has_room = self.has_room(lane, &message).await?;
        let Some(open) = self.lanes.get(lane) else {
            return Ok(());
        };
        if !has_room {
            open.park(message, is_replay);
            return Ok(());
        }
        if open.pass(message.sequence).await {
            return Ok(());
        }
        self.core.replays(is_replay);
        match message.body {
            BlockEvent::Observed(_) => self.block(lane, message).await,
            BlockEvent::Cancelled(_) => self.cancel(lane, &message, false).await,
        }
    }

    /// Ends blocks that may be unread.
    async fn early_cancels(
        &mut self,
        lane: &PipelineId,
        cancels: Vec<Kept<BlockEvent>>,
    ) -> Result<(), BusError> {
        for kept in cancels {
            let is_ahead = self
                .lanes
                .get(lane)
                .is_some_and(|lane| lane.is_ahead(kept.sequence));
            if let Some(announced) = announced(kept).filter(|_| is_ahead) {
                if !self.core.has_room_for_cancels(lane) {
                    // It takes effect in its turn.
                    return Ok(());
                }
                self.cancel(lane, &announced, true).await?;
            }
        }
        Ok(())
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
    async fn late_blocks(
        &mut self,
        lane: &PipelineId,
        blocks: Vec<Kept<BlockEvent>>,
    ) -> Result<(), BusError> {
        for kept in blocks {
            let is_new = self.lanes.get(lane).is_some_and(|lane| lane.takes(kept.sequence));
            if let Some(announced) = announced(kept).filter(|_| is_new) {
                // A predecessor may have found it as well.
                self.core.replays(true);
                self.block(lane, announced).await?;
            }
        }
        Ok(())
    }

    /// Opens and closes lanes as pipelines come and go, and searches where the output stands still.
    async fn look(&mut self, sight: Sight) -> Result<(), BusError> {
        for name in &sight.cancelled {
            if self.core.has_room_for_cancels(name)
                && let Some(lane) = self.lanes.get(name)
            {
                lane.look_for_cancels(self.bus);
            }
        }
        for gone in self.lanes.see(sight) {
            if self.core.forget(&gone) {
                self.lanes.close(&gone).await?;
                self.pipelines.forget(&gone);
                self.metrics.forget(&gone);
                tracing::info!(pipeline = %gone, "nothing is left of it, its consumer is removed");
            }
        }
        let now = Instant::now();
        for name in self.lanes.with_parked() {
            let ahead = self.lanes.ahead(0);
            let (Some(front), Some(lane)) = (self.core.front(&name), self.lanes.get(&name)) else {
                continue;
            };
            if lane.look_for_late_blocks(self.bus, front, ahead, now) {
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
        let outputs: Vec<(PipelineId, u64)> = self
            .core
            .outputs()
            .map(|(name, next)| (name.clone(), next))
            .collect();
        for (name, next) in outputs {
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
}

/// A message that was read straight from the stream, as if it had been received.
fn announced(kept: Kept<BlockEvent>) -> Option<Announced> {
    Some(Announced {
        body: kept.body.ok()?,
        trace: kept.trace,
        subject: kept.subject,
        sequence: kept.sequence,
        stored_at: kept.stored_at,
        deliveries: 1,
        ack: (),
    })
}
