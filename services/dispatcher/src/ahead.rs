//! Limits how far blocks are read ahead of the output, and reads on when the output moves.

use crate::{
    decide::SourceId,
    lane::{Announced, Arrival},
    lanes::{News, Sight},
    service::Active,
};
use push0_bus::{BusError, Kept, Stream};
use push0_domain::{PipelineId, message::BlockEvent, subject};
use serde::de::IgnoredAny;
use std::time::{Duration, Instant};

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

    /// Takes a message in, or parks its lane if the message is a block too far ahead.
    async fn received(
        &mut self,
        lane: &PipelineId,
        message: Announced,
        is_replay: bool,
    ) -> Result<(), BusError> {
        let revision = match &message.body {
            BlockEvent::Observed(block) if block.pipeline == *lane => Some(block.revision),
            _ => None,
        };
        let can_go_on = match revision {
            Some(revision) => self.can_read(lane, revision).await?,
            None => true,
        };
        let has_room = can_go_on && self.has_room(lane, &message).await?;
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

    /// Applies cancellations read before their turn, whose blocks may be unread.
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
                    // This and the remaining cancellations take effect in their turn.
                    return Ok(());
                }
                self.cancel(lane, &announced, true).await?;
            }
        }
        Ok(())
    }

    /// Returns whether a block is near enough to the output to be taken in.
    async fn has_room(&mut self, lane: &PipelineId, block: &Announced) -> Result<bool, BusError> {
        let BlockEvent::Observed(observed) = &block.body else {
            return Ok(true);
        };
        // A pipeline without a definition has no collector and never emits, so its blocks would wait forever.
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

    /// Reads on in lanes whose output has moved on, or whose parked block was cancelled.
    pub(crate) async fn unpark(&mut self) -> Result<(), BusError> {
        for lane in self.lanes.with_parked() {
            if self.unreadable.rests(&lane) {
                continue;
            }
            let Some((block, is_replay)) = self.lanes.get(&lane).and_then(|lane| lane.unpark()) else {
                continue;
            };
            self.received(&lane, block, is_replay).await?;
        }
        Ok(())
    }

    /// Takes in blocks published late, before their turn.
    async fn late_blocks(
        &mut self,
        lane: &PipelineId,
        blocks: Vec<Kept<BlockEvent>>,
    ) -> Result<(), BusError> {
        for kept in blocks {
            let is_new = self.lanes.get(lane).is_some_and(|lane| lane.takes(kept.sequence));
            if let Some(announced) = announced(kept).filter(|_| is_new) {
                // Treat the block as replayed: a predecessor may have found and released it already.
                self.core.replays(true);
                self.block(lane, announced).await?;
            }
        }
        Ok(())
    }

    /// Opens and closes lanes as pipelines come and go, and looks for late blocks where an
    /// output stands still.
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
                tracing::info!(pipeline = %gone, "pipeline is gone, removed its consumer");
            }
        }
        let now = Instant::now();
        for name in self.lanes.with_parked() {
            if self.unreadable.stands(&name) {
                continue;
            }
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
                    "dispatch is paused until the output moves on, and the output waits for this block: \
                     searching the stream for it; `push0 block` shows its state"
                );
            }
        }
        Ok(())
    }

    /// Reads the outputs from the stream, in case signals of records were missed.
    pub(crate) async fn catch_up(&mut self) -> Result<(), BusError> {
        let outputs: Vec<(PipelineId, u64)> = self
            .core
            .outputs()
            .map(|(name, next)| (name.clone(), next))
            .collect();
        for (name, next) in outputs {
            let subject = match next {
                0 => subject::proofs_of_pipeline(&name),
                // Ask for one number: to find the newest record, the broker would search all subjects.
                next => subject::proof(&name, next),
            };
            let missed = self.bus.last::<IgnoredAny>(Stream::Proofs, &subject).await?;
            if missed.is_none() {
                if !self.unreadable.stands(&name) {
                    self.unreadable.mended(&name);
                }
                continue;
            }
            let output = match self.bus.output(&name).await {
                Err(error) if error.is_damage() => {
                    self.unreadable.found(&name, error);
                    continue;
                }
                output => output?,
            };
            if let Some((output, _)) = output {
                self.unreadable.mended(&name);
                let effects = self.core.recall(&name, output);
                self.apply(effects).await?;
            }
        }
        Ok(())
    }
}

/// Converts a message read straight from the stream into the form of a received one.
fn announced(kept: Kept<BlockEvent>) -> Option<Announced> {
    Some(Announced {
        body: kept.body.ok()?,
        trace: kept.trace,
        subject: kept.subject,
        sequence: kept.sequence,
        stored_at: kept.stored_at,
        deliveries: 1,
        waited: Duration::ZERO,
        ack: (),
    })
}
