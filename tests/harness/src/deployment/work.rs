//! Submission of blocks to a deployment, and reading of the emitted records.

use super::{Deployment, PATIENCE};
use crate::{blocks, cluster::Broker, wait_for};
use futures::{StreamExt, TryStreamExt};
use push0_bus::{Bucket, Kept, Message, Stream};
use push0_domain::{
    Announcement, Payload, PipelineId,
    message::{BlockEvent, BlockFacts, Emission, KnownBlock, ObservedBlock},
    pipeline::Pipeline,
    subject,
};
use std::{ops::RangeInclusive, time::Duration};

/// Number of block facts written at once.
const FACTS_IN_FLIGHT: usize = 64;

impl<B: Broker> Deployment<B> {
    /// Publishes synthetic blocks in ascending order, as an external ingester would: first the facts of all
    /// blocks, then the blocks. The witness is the block's number as JSON.
    ///
    /// # Panics
    /// The pipeline was not applied, or the broker does not store the blocks.
    pub async fn submit_blocks(&self, pipeline: &PipelineId, numbers: RangeInclusive<u64>) {
        // The read is safe to repeat; brokers may be electing at the moment.
        let current = wait_for("the definitions", PATIENCE, async || {
            self.pipelines.current().await
        })
        .await;
        let definition = current.iter().find(|p| p.name == *pipeline);
        let definition = definition.unwrap_or_else(|| panic!("no pipeline is called {pipeline}"));
        let blocks: Vec<ObservedBlock> = numbers.map(|number| observed(definition, number)).collect();
        wait_for("the facts to be stored", PATIENCE, async || {
            let known = self.bus.facts::<KnownBlock>(Bucket::Blocks).await?;
            let after = Announcement(self.bus.newest(Stream::Blocks).await?);
            let put = |block| {
                let (known, block): (_, &ObservedBlock) = (&known, block);
                let key = subject::facts::known_block(pipeline, &block.block);
                async move { known.put(&key, &fact_of(block, after)).await }
            };
            let all = futures::stream::iter(&blocks).map(put);
            all.buffer_unordered(FACTS_IN_FLIGHT)
                .try_collect::<Vec<u64>>()
                .await
        })
        .await;
        for block in blocks {
            let trace = blocks::synthetic_trace(pipeline, block.block.number);
            let event = BlockEvent::Observed(block);
            let message = Message::new(subject::block(pipeline), &event, &trace).expect("it can be written");
            let stored = self.bus.publish_patiently(message, PATIENCE).await;
            stored.expect("the block is stored");
        }
    }

    /// Returns all records emitted for a pipeline, in order.
    ///
    /// # Panics
    /// The broker does not answer.
    pub async fn emissions(&self, pipeline: &PipelineId) -> Vec<Kept<Emission>> {
        let subjects = subject::proofs_of_pipeline(pipeline);
        wait_for("the records", PATIENCE, async || {
            self.bus.scan(Stream::Proofs, &subjects, 1, usize::MAX).await
        })
        .await
    }

    /// Waits until at least `count` records were emitted for a pipeline, and returns all of them.
    ///
    /// # Panics
    /// Fewer records exist after `timeout`.
    pub async fn wait_emitted(
        &self,
        pipeline: &PipelineId,
        count: usize,
        timeout: Duration,
    ) -> Vec<Kept<Emission>> {
        let subjects = subject::proofs_of_pipeline(pipeline);
        let what = format!("{count} emissions of {pipeline}");
        wait_for(&what, timeout, async || {
            // A count takes a single request and a read takes one per record, so reading waits for the end.
            let counted = self.bus.subjects(Stream::Proofs, &subjects).await;
            let there = counted.map_err(|e| e.to_string())?.len();
            if there >= count {
                Ok(())
            } else {
                Err(format!("{there} emissions"))
            }
        })
        .await;
        self.emissions(pipeline).await
    }
}

fn observed(pipeline: &Pipeline, number: u64) -> ObservedBlock {
    let observed_at = push0_bus::now();
    ObservedBlock {
        pipeline: pipeline.name.clone(),
        revision: pipeline.revision,
        block: blocks::synthetic_block(&pipeline.name, number),
        parent_hash: blocks::synthetic_hash(&pipeline.name, number.wrapping_sub(1)),
        input: Payload::Inline(number.to_string().into_bytes()),
        observed_at,
        deadline_at: pipeline.deadline_at(observed_at),
        facts: BlockFacts::default(),
    }
}

fn fact_of(block: &ObservedBlock, announced_after: Announcement) -> KnownBlock {
    KnownBlock {
        block: block.block,
        parent_hash: block.parent_hash,
        revision: block.revision,
        observed_at: block.observed_at,
        announced_after,
        input: Some(block.input.clone()),
        facts: block.facts,
    }
}
