//! Resumption of a pipeline's ingestion where the last leader stopped, and the moves of its cursor since.

use super::{Deposed, Publisher, cursor::Cursor};
use crate::{decide::History, status::Status};
use push0_bus::{Bucket, Bus, BusError, Facts, Stream};
use push0_domain::{Announcement, BlockRef, PipelineId, message::KnownBlock, pipeline::Pipeline, subject};
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::watch;

/// A publisher and the history for its next blocks.
pub(crate) struct Opened {
    pub(crate) publisher: Publisher,
    pub(crate) history: History,
}

impl Publisher {
    /// Reads the position at which the last leader stopped, and the last `depth` published blocks.
    pub(crate) async fn open(
        bus: &Bus,
        depth: usize,
        definition: watch::Receiver<Arc<Pipeline>>,
        status: Status,
    ) -> Result<Opened, BusError> {
        let pipeline = status.pipeline().clone();
        let cursors: Facts<Cursor> = bus.facts(Bucket::State).await?;
        let known = bus.facts(Bucket::Blocks).await?;
        let (cursor, cursor_revision) = match cursors.get(&Cursor::key(&pipeline)).await? {
            Some(fact) => (fact.value.unwrap_or_default(), fact.revision),
            None => (Cursor::default(), 0),
        };
        let recent = recent(&known, &pipeline, &cursor, depth).await?;
        let history = History::resumed(depth, cursor.first, recent, cursor.ahead.clone());
        let publisher = Self {
            bus: bus.clone(),
            known,
            cursors,
            resets: bus.facts(Bucket::State).await?,
            blobs: bus.blobs(),
            definition,
            cursor,
            cursor_revision,
            newest: Announcement(bus.newest(Stream::Blocks).await?),
            found: None,
            waiting: None,
            status,
        };
        Ok(Opened { publisher, history })
    }

    /// Returns the number of lines of the file read so far, by earlier leaders included.
    pub(crate) fn lines_read(&self) -> u64 {
        self.cursor.line
    }

    /// Moves the cursor, unless another process has moved it.
    pub(super) async fn move_cursor(&mut self, cursor: Cursor) -> Result<(), Deposed> {
        let key = Cursor::key(self.status.pipeline());
        let (cursors, revision) = (self.cursors.clone(), self.cursor_revision);
        let moved = self
            .patiently(|| {
                let (cursors, key, cursor) = (cursors.clone(), key.clone(), cursor.clone());
                async move { swap(&cursors, &key, &cursor, revision).await }
            })
            .await;
        self.cursor_revision = moved.ok_or(Deposed)?;
        self.cursor = cursor;
        Ok(())
    }
}

async fn swap(
    cursors: &Facts<Cursor>,
    key: &str,
    cursor: &Cursor,
    revision: u64,
) -> Result<Option<u64>, (&'static str, String)> {
    let unavailable = |error: BusError| ("unavailable", error.to_string());
    if let Some(moved) = cursors.swap(key, cursor, revision).await.map_err(unavailable)? {
        return Ok(Some(moved));
    }
    // An attempt that seemed to fail may have been stored. Then the stored cursor is our own; an unreadable one is not.
    let there = cursors.look(key).await.map_err(unavailable)?;
    Ok(there
        .and_then(Result::ok)
        .filter(|fact| fact.value.as_ref() == Some(cursor))
        .map(|fact| fact.revision))
}

/// Reads the last published blocks, from the cursor back along the parents.
async fn recent(
    known: &Facts<KnownBlock>,
    pipeline: &PipelineId,
    cursor: &Cursor,
    depth: usize,
) -> Result<Vec<BlockRef>, BusError> {
    let mut recent = VecDeque::new();
    let mut next = cursor.block;
    while let Some(block) = next {
        recent.push_front(block);
        if recent.len() == depth || cursor.first == Some(block.number) {
            break;
        }
        let fact = known.find(&subject::facts::known_block(pipeline, &block)).await?;
        // A missing fact ends the search, so a reorg beyond its block cannot be followed.
        let known = fact
            .and_then(|fact| fact.value)
            .filter(|known| known.block == block);
        next = known
            .zip(block.number.checked_sub(1))
            .map(|(known, number)| BlockRef {
                number,
                hash: known.parent_hash,
            });
    }
    Ok(recent.into())
}
