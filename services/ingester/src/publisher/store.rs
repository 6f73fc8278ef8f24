//! Storage of a block's facts and witness, before the block is published.

use super::{
    NewBlock, Publisher, Unstored,
    storing::{Storing, Wait},
};
use futures::future::try_join_all;
use push0_bus::{Backoff, BlobError, BlobWriter, Blobs, Facts, Service};
use push0_domain::{
    Announcement, Payload, message::KnownBlock, payload::INLINE_MAX, pipeline::Pipeline, subject,
};
use std::sync::Arc;

/// Largest input in bytes that a block's fact holds itself: more than a header.
const REMEMBERED_INLINE_MAX: usize = 1024;

/// Reasons why a block's facts and witness were not stored.
enum Refused {
    /// The store is full.
    Full(String),
    Away(String),
}

impl Publisher {
    /// Stores facts and witnesses of all blocks concurrently, with retries until all are stored. A full store is not
    /// asked again before it has room: freed room is for proofs first. Returns the blocks' inputs in order.
    pub(super) async fn store_known(
        &mut self,
        definition: &Pipeline,
        window: &[NewBlock],
        mut room: Storing,
        wait: Wait,
    ) -> Result<Vec<Payload>, Unstored> {
        let mut backoff = Backoff::default();
        let mut was_full = false;
        loop {
            match self.try_known(definition, window).await {
                Ok(inputs) => {
                    if was_full {
                        self.status.fine();
                    }
                    return Ok(inputs);
                }
                Err(reason) => self.retries("full", &reason),
            }
            was_full = true;
            drop(room);
            self.found = None;
            backoff.pause().await;
            room = self.room_for(window, wait).await?;
        }
    }

    /// Stores facts and witnesses once. Returns the reason if the store is full.
    async fn try_known(
        &mut self,
        definition: &Pipeline,
        window: &[NewBlock],
    ) -> Result<Vec<Payload>, String> {
        let (known, blobs) = (self.known.clone(), self.blobs.clone());
        let blocks: Arc<[NewBlock]> = window.into();
        let definition = Arc::new(definition.clone());
        let after = self.newest;
        self.patiently(|| {
            let (known, blobs) = (known.clone(), blobs.clone());
            let (blocks, definition) = (blocks.clone(), definition.clone());
            async move {
                let stored = blocks
                    .iter()
                    .map(|b| store(&known, &blobs, &definition, after, b));
                match try_join_all(stored).await {
                    Ok(inputs) => Ok(Ok(inputs)),
                    Err(Refused::Full(reason)) => Ok(Err(reason)),
                    Err(Refused::Away(reason)) => Err(("unavailable", reason)),
                }
            }
        })
        .await
    }
}

async fn store(
    known: &Facts<KnownBlock>,
    blobs: &Blobs,
    definition: &Pipeline,
    announced_after: Announcement,
    block: &NewBlock,
) -> Result<Payload, Refused> {
    let blobs = blobs.of_service(Service::Ingester, &definition.name, block.link.block.number);
    let (input, remembered) = named(&blobs, &block.witness).await;
    let fact = KnownBlock {
        block: block.link.block,
        parent_hash: block.link.parent_hash,
        revision: definition.revision,
        observed_at: block.observed_at,
        announced_after,
        input: Some(remembered.clone()),
        facts: block.facts,
    };
    let key = subject::facts::known_block(&definition.name, &block.link.block);
    let put = known.put(&key, &fact).await;
    put.map_err(|error| Refused::Away(error.to_string()))?;
    // The fact comes first: the janitor removes blobs of a number whose known blocks are all emitted.
    if matches!(remembered, Payload::Blob(_)) {
        let stored = blobs.put_shared(&block.witness).await;
        stored.map_err(|error| match error {
            BlobError::Full(reason) => Refused::Full(reason),
            error => Refused::Away(error.to_string()),
        })?;
    }
    Ok(input)
}

/// Returns a block's input for its message, and for its fact in case of a retry: facts are small, and
/// blobs are not.
async fn named(blobs: &BlobWriter, witness: &[u8]) -> (Payload, Payload) {
    let inline = || Payload::Inline(witness.to_vec());
    if witness.len() <= REMEMBERED_INLINE_MAX {
        return (inline(), inline());
    }
    let blob = Payload::Blob(blobs.name(witness).await);
    if witness.len() <= INLINE_MAX {
        (inline(), blob)
    } else {
        (blob.clone(), blob)
    }
}
