//! Waits before blocks are stored, while a place they fill is nearly full.

use super::{
    NewBlock, Publisher, Unstored,
    storing::{self, Found, Levels, Storing, Wait, Waiting},
};
use push0_bus::{BusError, Place, Stream};
use push0_domain::subject;
use std::time::{Duration, Instant};

/// How often the levels are read.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Bytes of witnesses after which the levels are read earlier.
const LOOK_AFTER: u64 = 256 << 10;

impl Publisher {
    /// Waits until there is room for witnesses of so many bytes.
    pub(crate) async fn wait_for_room(&mut self, bytes: u64) {
        while self.look(bytes).await.is_err() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Returns whether there is room for witnesses of so many bytes now.
    pub(crate) async fn has_room(&mut self, bytes: u64) -> bool {
        self.look(bytes).await.is_ok()
    }

    /// Returns once the witnesses of these blocks may be stored.
    pub(super) async fn room_for(&mut self, blocks: &[NewBlock], wait: Wait) -> Result<Storing, Unstored> {
        let bytes = blocks.iter().map(|block| block.witness.len() as u64).sum();
        loop {
            match self.look(bytes).await {
                Ok(storing) => return Ok(storing),
                Err(_) if wait == Wait::Never => return Err(Unstored::NoRoom),
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    /// Returns the full place unless witnesses of so many bytes have room now.
    async fn look(&mut self, bytes: u64) -> Result<Storing, Place> {
        if let Some(found) = &mut self.found
            && found.at.elapsed() < LOOK_EVERY
            && found.used.saturating_add(bytes) <= LOOK_AFTER
        {
            found.used += bytes;
            return Ok(Storing::begin(bytes));
        }
        self.found = None;
        let asked = storing::moment();
        let storing = match self.levels().await {
            // Without an answer the blocks are stored as if there were room: that fails with a reason of its own.
            Err(_) => Storing::begin(bytes),
            Ok(levels) => match levels.begin(bytes, asked, self.waiting.is_some()) {
                Ok(storing) => storing,
                Err(place) => {
                    self.waits_for(place);
                    return Err(place);
                }
            },
        };
        if self.waiting.take().is_some() {
            tracing::info!(pipeline = %self.status.pipeline(), "there is room for blocks again");
        }
        self.found = Some(Found {
            at: Instant::now(),
            used: bytes,
        });
        Ok(storing)
    }

    fn waits_for(&mut self, place: Place) {
        if self.waiting.is_some() {
            return;
        }
        let pipeline = self.status.pipeline();
        tracing::warn!(
            %pipeline,
            stream = %place,
            "nearly full of blocks that are not emitted yet: taking in no more blocks until there is room; \
             `push0 status` shows the levels"
        );
        let gauge = &self.status.metrics().waits_for_room;
        self.waiting = Some(Waiting::new(gauge.with_label_values(&[pipeline.as_str()])));
    }

    async fn levels(&self) -> Result<Levels, BusError> {
        let of_places = self.bus.levels(&Place::OF_BLOCKS).await?;
        let subject = subject::block(self.status.pipeline());
        let own = self.bus.subjects(Stream::Blocks, &subject).await?;
        Ok(Levels {
            of_places,
            own: own.iter().map(|(_, count)| *count as u64).sum(),
        })
    }
}
