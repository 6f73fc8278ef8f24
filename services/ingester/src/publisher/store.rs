//! Storage of a block's facts and witness, before the block is published.

use super::{NewBlock, Publisher};
use futures::future::try_join_all;
use push0_bus::{Blobs, Facts};
use push0_domain::{Announcement, Payload, message::KnownBlock, pipeline::Pipeline, subject};
use std::sync::Arc;

impl Publisher {
    /// Stores facts and witnesses of all blocks concurrently, with retries until all are stored. Returns
    /// the blocks' inputs in order.
    pub(super) async fn store_known(&mut self, definition: &Pipeline, window: &[NewBlock]) -> Vec<Payload> {
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
                try_join_all(stored).await
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
) -> Result<Payload, (&'static str, String)> {
    let fact = KnownBlock {
        block: block.link.block,
        parent_hash: block.link.parent_hash,
        revision: definition.revision,
        observed_at: block.observed_at,
        announced_after,
        facts: block.facts,
    };
    let key = subject::known_block(&definition.name, &block.link.block);
    let put = known.put(&key, &fact).await;
    put.map_err(|error| ("unavailable", error.to_string()))?;
    let input = blobs.payload(&block.witness).await;
    input.map_err(|error| ("unavailable", error.to_string()))
}
