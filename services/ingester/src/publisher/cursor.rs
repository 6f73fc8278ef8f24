//! How far a pipeline was published, as its next leader will read it.

use super::{Deposed, Publisher};
use crate::{
    decide::{DEPTH, History},
    status::Status,
};
use push0_bus::{Bucket, Bus, BusError, Facts, Stream};
use push0_domain::{Announcement, BlockRef, PipelineId, message::KnownBlock, pipeline::Pipeline, subject};
use serde::{Deserialize, Serialize};
use std::{collections::VecDeque, sync::Arc};
use tokio::sync::watch;

/// Where a pipeline's ingestion stands: the fact `cursor.ingester.<pipeline>`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The last block that the broker stored, after which the next leader goes on.
    pub block: Option<BlockRef>,
    /// The number of the pipeline's first block.
    pub first: Option<u64>,
    /// Blocks after `block` that may or may not have been published.
    #[serde(default)]
    pub ahead: Vec<BlockRef>,
    /// How many times published blocks were replaced.
    #[serde(default)]
    pub reorgs: u32,
    /// How many lines of the file were read; only for files.
    #[serde(default)]
    pub line: u64,
}

/// A publisher and what it goes on from.
pub(crate) struct Opened {
    pub(crate) publisher: Publisher,
    pub(crate) history: History,
}

impl Cursor {
    fn key(pipeline: &PipelineId) -> String {
        format!("cursor.ingester.{pipeline}")
    }

    /// The blocks in doubt after this number.
    pub(super) fn ahead_of(&self, number: u64) -> Vec<BlockRef> {
        let beyond = self.ahead.iter().filter(|block| block.number > number);
        beyond.copied().collect()
    }

    /// The message id of a block. A chain may return to a block that it replaced; after a reorg the
    /// id is another one, lest the broker take the block's return for a repetition and drop it.
    pub(super) fn message_id(&self, pipeline: &PipelineId, block: &BlockRef) -> String {
        match self.reorgs {
            0 => format!("{pipeline}.{}", block.key()),
            reorgs => format!("{pipeline}.{}.{reorgs}", block.key()),
        }
    }
}

impl Publisher {
    /// Reads where the last leader stopped.
    pub(crate) async fn open(
        bus: &Bus,
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
        let recent = recent(&known, &pipeline, &cursor).await?;
        let history = History::resumed(cursor.first, recent, cursor.ahead.clone());
        let publisher = Self {
            bus: bus.clone(),
            known,
            cursors,
            blobs: bus.blobs().await?,
            definition,
            cursor,
            cursor_revision,
            newest: Announcement(bus.newest(Stream::Blocks).await?),
            status,
        };
        Ok(Opened { publisher, history })
    }

    /// How many lines of the file were read by the last leader.
    pub(crate) fn lines_read(&self) -> u64 {
        self.cursor.line
    }

    /// Moves the cursor, unless somebody else has.
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
    // An attempt that seemed to fail may have been stored: then this is our own cursor.
    let there = cursors.get(key).await.map_err(unavailable)?;
    Ok(there
        .filter(|fact| fact.value.as_ref() == Some(cursor))
        .map(|fact| fact.revision))
}

/// The last published blocks, from the cursor back along the parents.
async fn recent(
    known: &Facts<KnownBlock>,
    pipeline: &PipelineId,
    cursor: &Cursor,
) -> Result<Vec<BlockRef>, BusError> {
    let mut recent = VecDeque::new();
    let mut next = cursor.block;
    while let Some(block) = next {
        recent.push_front(block);
        if recent.len() == DEPTH || cursor.first == Some(block.number) {
            break;
        }
        let fact = known.find(&subject::known_block(pipeline, &block)).await?;
        // What expired is not followed: then a reorg that deep is not either.
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
