//! Asks again for the next block of a pipeline if no message names it any more.

use super::Active;
use push0_bus::{Bucket, BusError, Stream, now};
use push0_domain::{
    PipelineId,
    message::{BlockEvent, KnownBlock},
    pipeline::Pipeline,
    subject::{self, Kind},
    trace::TraceContext,
};
use push0_operate::{OperateError, retry};

/// The streams whose messages keep a block alive, in the order in which messages move through them.
const STREAMS: [(Stream, Kind); 4] = [
    (Stream::Stages, Kind::Stage),
    (Stream::Tasks, Kind::Task),
    (Stream::Checks, Kind::Check),
    (Stream::Results, Kind::Result),
];

impl Active<'_> {
    /// Looks at the next block of every pipeline that stands.
    pub(super) async fn look_for_lost_blocks(&mut self) -> Result<(), BusError> {
        let current = self.pipelines.current().await?;
        self.heads
            .keep(|name| current.iter().any(|pipeline| pipeline.name == *name));
        for pipeline in current {
            // The blocks of a range wait for each other, and the range is named by its last block.
            if pipeline.range().is_some() {
                continue;
            }
            match self.look_at_head(&pipeline).await {
                // The state of the pipeline cannot be read, which its services report.
                Ok(()) | Err(BusError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    async fn look_at_head(&mut self, pipeline: &Pipeline) -> Result<(), BusError> {
        let name = &pipeline.name;
        let known = self.bus.facts::<KnownBlock>(Bucket::Blocks).await?;
        let next = match self.bus.output(name).await? {
            Some((output, _)) => output.next(),
            None => match known
                .first(&format!("{name}.>"), 1)
                .await?
                .pop()
                .and_then(|fact| fact.value)
            {
                Some(first) => first.block.number,
                None => return Ok(()),
            },
        };
        if !self.heads.stands(name, next, now()) {
            return Ok(());
        }
        let facts = known.list(&subject::facts::known_blocks(name, next)).await?;
        let Some(block) = facts
            .into_iter()
            .max_by_key(|fact| fact.revision)
            .and_then(|fact| fact.value)
        else {
            return Ok(());
        };
        let is_named = self.is_named(name, &block).await?;
        let Some(attempt) = self.heads.looked(name, is_named, now()) else {
            return Ok(());
        };
        self.ask_again(name, &block, attempt).await
    }

    /// Returns whether any message may be about a block.
    async fn is_named(&self, name: &PipelineId, block: &KnownBlock) -> Result<bool, BusError> {
        let announced = self
            .bus
            .scan::<BlockEvent>(
                Stream::Blocks,
                &subject::block(name),
                block.announced_after.0 + 1,
                1,
            )
            .await?;
        // The oldest announcement that is left: of this block or an earlier one, unless this block's is done with.
        let waits = announced.first().is_some_and(|kept| match &kept.body {
            Ok(BlockEvent::Observed(observed)) => observed.block.number <= block.block.number,
            _ => true,
        });
        if waits {
            return Ok(true);
        }
        for (stream, kind) in STREAMS {
            let filter = subject::attempts_of_block(kind, name, block.block.key());
            if !self.bus.subjects(stream, &filter).await?.is_empty() {
                return Ok(true);
            }
        }
        let verdicts = subject::attempts_of_block(Kind::Verdict, name, block.block.key());
        let ends = subject::ended(name);
        for filter in [verdicts, ends] {
            if !self.bus.subjects(Stream::Results, &filter).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn ask_again(
        &mut self,
        name: &PipelineId,
        block: &KnownBlock,
        attempt: u32,
    ) -> Result<(), BusError> {
        let number = block.block.number;
        let (Some(input), Some(pipeline)) =
            (&block.input, self.pipelines.revision(name, block.revision).await?)
        else {
            tracing::error!(
                pipeline = %name, number,
                "no message names the next block and its witness is not known: cancel the block or submit it again"
            );
            return Ok(());
        };
        tracing::warn!(
            pipeline = %name, number, attempt,
            "no message names the next block, so a prover took its task and gave no result: the block is asked for again"
        );
        self.metrics.acts.with_label_values(&["lost"]).inc();
        let context = retry::context(&pipeline, block);
        for mut ready in retry::first_stages(&pipeline, block, &context, input) {
            ready.attempt = attempt;
            match retry::ask(self.bus, &ready, &TraceContext::default()).await {
                Ok(()) => {}
                Err(OperateError::Bus(error)) => return Err(error),
                Err(error) => {
                    tracing::warn!(pipeline = %name, number, %error, "the block could not be asked for")
                }
            }
        }
        Ok(())
    }
}
