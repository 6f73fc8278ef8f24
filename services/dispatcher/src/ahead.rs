//! Tells the session of the messages and the searches of the lanes, and opens and closes lanes.

use crate::{
    lane::{Arrival, kept},
    lanes::{News, Sight},
    service::Active,
    session::Received,
};
use push0_bus::{BusError, Kept, Stream, now};
use push0_domain::{PipelineId, message::BlockEvent, subject};
use serde::de::IgnoredAny;

impl Active<'_> {
    pub(crate) async fn news(&mut self, news: News) -> Result<(), BusError> {
        match news {
            News::Of(lane, Arrival::Turn(message)) => self.receive(&lane, message).await,
            News::Of(lane, Arrival::Cancels(cancels)) => {
                let cancels = cancels.into_iter().filter_map(|kept| match kept.body {
                    Ok(BlockEvent::Cancelled(cancel)) => Some((kept.sequence, cancel)),
                    _ => None,
                });
                let ops = self.session.receive_early(&lane, cancels);
                self.perform(ops).await
            }
            News::Of(lane, Arrival::Late(blocks)) => self.late_blocks(&lane, blocks).await,
            News::Sight(sight) => self.look(sight).await,
            News::Lane(Some(name)) => {
                let is_defined = self.lanes.defined().contains(&name);
                self.session.open(&name, is_defined, now());
                Ok(())
            }
            News::Lane(None) => Ok(()),
        }
    }

    /// Passes on a message in its turn, unless the state of its pipeline cannot be read.
    async fn receive(&mut self, lane: &PipelineId, message: Received<BlockEvent>) -> Result<(), BusError> {
        let definition = match &message.body {
            BlockEvent::Observed(block) if block.pipeline == *lane => {
                match self.readable(lane, block.revision).await? {
                    Ok(definition) => definition,
                    Err(_) => {
                        self.session.park(lane, message);
                        return Ok(());
                    }
                }
            }
            _ => None,
        };
        let ops = self.session.receive(lane, message, definition);
        self.perform(ops).await
    }

    /// Reads on in lanes whose output has moved on, or whose parked block was cancelled.
    pub(crate) async fn unpark(&mut self) -> Result<(), BusError> {
        for lane in self.session.parked() {
            if !self.unreadable.rests(&lane)
                && let Some(block) = self.session.unpark(&lane, now())
            {
                self.receive(&lane, block).await?;
            }
        }
        Ok(())
    }

    /// Passes on blocks published late, before their turn.
    async fn late_blocks(
        &mut self,
        lane: &PipelineId,
        blocks: Vec<Kept<BlockEvent>>,
    ) -> Result<(), BusError> {
        for block in blocks.into_iter().filter_map(kept) {
            let definition = match &block.body {
                BlockEvent::Observed(block) if block.pipeline == *lane => {
                    self.pipeline(lane, block.revision).await?
                }
                _ => None,
            };
            let ops = self.session.receive_late(lane, block, definition);
            self.perform(ops).await?;
        }
        Ok(())
    }

    /// Opens and closes lanes as pipelines come and go, and looks for late blocks where an
    /// output stands still.
    async fn look(&mut self, sight: Sight) -> Result<(), BusError> {
        for name in &sight.cancelled {
            if let Some(behind) = self.session.seeks_cancels(name)
                && let Some(lane) = self.lanes.get(name)
            {
                lane.look_for_cancels(self.bus, behind);
            }
        }
        for gone in self.lanes.see(sight) {
            if self.session.forget(&gone) {
                self.lanes.close(&gone).await?;
                self.pipelines.forget(&gone);
                self.metrics.forget(&gone);
                tracing::info!(pipeline = %gone, "pipeline is gone, removed its consumer");
            }
        }
        self.session.define(self.lanes.defined());
        for name in self.session.parked() {
            if self.unreadable.stands(&name) {
                continue;
            }
            let search = self.session.seeks_late_blocks(&name, now());
            let (Some(search), Some(lane)) = (search, self.lanes.get(&name)) else {
                continue;
            };
            if lane.look_for_late_blocks(self.bus, &search) {
                tracing::info!(
                    pipeline = %name,
                    block.number = search.front,
                    parked = search.parked,
                    ahead = search.ahead,
                    "dispatch is paused until the output moves on, and the output waits for this block: \
                     searching the stream for it; `push0 block` shows its state"
                );
            }
        }
        Ok(())
    }

    /// Reads the outputs from the stream, in case signals of records were missed.
    pub(crate) async fn catch_up(&mut self) -> Result<(), BusError> {
        for (name, next) in self.session.outputs() {
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
                let ops = self.session.recall(&name, Some(output), None);
                self.perform(ops).await?;
            }
        }
        Ok(())
    }
}
