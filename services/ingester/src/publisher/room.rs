//! Waits before blocks are stored, while a place they fill is nearly full.

use super::Publisher;
use push0_bus::{BusError, Place, Stream, full_for_blocks};
use push0_domain::subject;
use push0_runtime::metrics::IntGauge;
use std::time::{Duration, Instant};

/// How often the levels are read. Blocks stored in the meantime are far fewer than fit above the mark.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Shows that the pipeline waits for room, until dropped: the process may lose the lead while it waits.
struct Waiting(IntGauge);

impl Waiting {
    fn new(gauge: IntGauge) -> Self {
        gauge.set(1);
        Self(gauge)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.set(0);
    }
}

impl Publisher {
    /// Waits until there is room for more blocks.
    pub(super) async fn wait_for_room(&mut self) {
        if self.room_at.is_some_and(|at| at.elapsed() < LOOK_EVERY) {
            return;
        }
        let pipeline = self.status.pipeline().clone();
        let mut waiting = None;
        // Without an answer the blocks are stored as if there were room: that fails with a reason of its own.
        while let Ok(Some(place)) = self.full(waiting.is_some()).await {
            if waiting.is_none() {
                tracing::warn!(
                    %pipeline,
                    stream = %place,
                    "nearly full of blocks that are not emitted yet: taking in no more blocks until there is room; \
                     `push0 status` shows the levels"
                );
                let gauge = &self.status.metrics().waits_for_room;
                waiting = Some(Waiting::new(gauge.with_label_values(&[pipeline.as_str()])));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        if waiting.is_some() {
            tracing::info!(%pipeline, "there is room for blocks again");
        }
        self.room_at = Some(Instant::now());
    }

    async fn full(&self, waits: bool) -> Result<Option<Place>, BusError> {
        let levels = self.bus.levels(&Place::OF_BLOCKS).await?;
        let subject = subject::block(self.status.pipeline());
        let own = self.bus.subjects(Stream::Blocks, &subject).await?;
        let own = own.iter().map(|(_, count)| *count as u64).sum();
        let in_blocks = |(place, _): &&(Place, _)| *place == Place::Stream(Stream::Blocks);
        let waiting = levels
            .iter()
            .find(in_blocks)
            .map_or(0, |(_, level)| level.messages);
        Ok(full_for_blocks(&levels, own, waiting, waits))
    }
}
