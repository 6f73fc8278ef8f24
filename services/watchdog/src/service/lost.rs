//! Begins lost proofs anew that a pipeline's next block waits for.

use super::Active;
use crate::lost::{HeldResult, Look, first_unready, lost_proofs};
use push0_bus::{Bucket, BusError, Stream, now};
use push0_domain::{
    PipelineId, ProofType,
    message::{BlockEvent, KnownBlock, Outcome, TaskResult},
    pipeline::Pipeline,
    subject::{self, AttemptKey, Kind},
    task::{first_attempt, start_of},
    trace::TraceContext,
};
use push0_operate::{OperateError, retry};
use std::collections::BTreeSet;

/// The streams whose messages say that a proof is worked on, in the order in which messages move through them.
const STREAMS: [(Stream, Kind); 3] = [
    (Stream::Stages, Kind::Stage),
    (Stream::Tasks, Kind::Task),
    (Stream::Checks, Kind::Check),
];
/// Most results read of one block: those of its widest stage. Of a block with more, none is begun anew.
const RESULTS_MAX: usize = 20_000;

impl Active<'_> {
    /// Looks at the next block of every pipeline that stands.
    pub(super) async fn look_for_lost_blocks(&mut self) -> Result<(), BusError> {
        let current = self.pipelines.current().await?;
        self.heads
            .keep(|name| current.iter().any(|pipeline| pipeline.name == *name));
        for pipeline in current {
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
        let Some(number) = self.to_look_at(pipeline, next).await? else {
            return Ok(());
        };
        let facts = known.list(&subject::facts::known_blocks(name, number)).await?;
        let Some(block) = facts
            .into_iter()
            .max_by_key(|fact| fact.revision)
            .and_then(|fact| fact.value)
        else {
            return Ok(());
        };
        let Some(definition) = self.pipelines.revision(name, block.revision).await? else {
            return Ok(());
        };
        let collector = self.bus.leader_of(&format!("collector.{name}")).await?;
        let mut lost = BTreeSet::new();
        let mut results = Vec::new();
        if !self.has_news(name, &block).await? {
            let named = self.named(name, &block).await?;
            if definition
                .proofs
                .iter()
                .any(|proof| !named.contains(&proof.proof_type))
            {
                results = self.results(name, &block).await?;
                let held: Vec<HeldResult> = results.iter().map(held).collect();
                lost = lost_proofs(&definition, &named, &held);
            }
        }
        let look = Look {
            number,
            lost,
            collector,
        };
        let Some((lost, times)) = self.heads.looked(name, look, now()) else {
            return Ok(());
        };
        for proof_type in &lost {
            let of_proof = |result: &&TaskResult| result.header.id.stage.proof_type == *proof_type;
            let newest = results
                .iter()
                .filter(of_proof)
                .max_by_key(|result| result.header.attempt);
            self.begin_anew((&definition, &block), proof_type, newest, times)
                .await?;
        }
        Ok(())
    }

    /// Returns the number of the block that may hold up the next one: the next one itself, or in a pipeline with ranges
    /// the first one that is not ready for its range.
    async fn to_look_at(&self, pipeline: &Pipeline, next: u64) -> Result<Option<u64>, BusError> {
        if pipeline.range().is_none() {
            return Ok(Some(next));
        }
        for (stream, kind) in STREAMS {
            if !self.attempts(stream, kind, &pipeline.name).await?.is_empty() {
                return Ok(None);
            }
        }
        let mut held = self
            .attempts(Stream::Results, Kind::Result, &pipeline.name)
            .await?;
        held.extend(
            self.attempts(Stream::Results, Kind::Verdict, &pipeline.name)
                .await?,
        );
        Ok(first_unready(pipeline, next, &held))
    }

    /// Returns the attempts of a pipeline with messages of this kind.
    async fn attempts(
        &self,
        stream: Stream,
        kind: Kind,
        name: &PipelineId,
    ) -> Result<Vec<AttemptKey>, BusError> {
        let subjects = self
            .bus
            .subjects(stream, &subject::attempts_of_pipeline(kind, name))
            .await?;
        Ok(subjects
            .iter()
            .filter_map(|(subject, _)| subject::attempt_of(subject, kind))
            .collect())
    }

    /// Returns whether a message about the block may wait for the dispatcher, or an end of blocks for the collector.
    async fn has_news(&self, name: &PipelineId, block: &KnownBlock) -> Result<bool, BusError> {
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
        let ends = self.bus.subjects(Stream::Results, &subject::ended(name)).await?;
        Ok(waits || !ends.is_empty())
    }

    /// Returns the proofs of a block with a ready stage, a task or a check.
    async fn named(&self, name: &PipelineId, block: &KnownBlock) -> Result<BTreeSet<ProofType>, BusError> {
        let mut named = BTreeSet::new();
        for (stream, kind) in STREAMS {
            let filter = subject::attempts_of_block(kind, name, block.block.key());
            for (subject, _) in self.bus.subjects(stream, &filter).await? {
                named.extend(subject::attempt_of(&subject, kind).map(|attempt| attempt.proof_type));
            }
        }
        Ok(named)
    }

    /// Returns the readable results of a block that the collector holds.
    async fn results(&self, name: &PipelineId, block: &KnownBlock) -> Result<Vec<TaskResult>, BusError> {
        let mut results = Vec::new();
        for kind in [Kind::Result, Kind::Verdict] {
            let filter = subject::attempts_of_block(kind, name, block.block.key());
            let found = self.bus.scan(Stream::Results, &filter, 1, RESULTS_MAX).await?;
            results.extend(found.into_iter().filter_map(|kept| kept.body.ok()));
        }
        Ok(results)
    }

    /// Asks for the first stage of a proof. Its attempts follow all earlier ones, so that the collector forgets the
    /// results of the earlier start with the first result of this one.
    async fn begin_anew(
        &mut self,
        (pipeline, block): (&Pipeline, &KnownBlock),
        proof_type: &ProofType,
        newest: Option<&TaskResult>,
        times: u32,
    ) -> Result<(), BusError> {
        let (name, number) = (&pipeline.name, block.block.number);
        let Some(input) = &block.input else {
            tracing::error!(
                pipeline = %name, number, proof_type = %proof_type,
                "a proof that the next block waits for is lost, and the witness of the block is not known: cancel the block or submit it again"
            );
            return Ok(());
        };
        let start = newest.map_or(0, |result| start_of(result.header.attempt) + 1);
        tracing::warn!(
            pipeline = %name, number, proof_type = %proof_type, times,
            "a proof that the next block waits for is lost: a prover took a task away and gave no result. The proof is begun anew"
        );
        self.metrics.acts.with_label_values(&["lost"]).inc();
        let context = match newest {
            Some(result) => result.header.context.clone(),
            None => retry::context(pipeline, block),
        };
        let stages = retry::first_stages(pipeline, block, &context, input);
        for mut ready in stages
            .into_iter()
            .filter(|ready| ready.stage.proof_type == *proof_type)
        {
            ready.attempt = first_attempt(start.max(times));
            match retry::ask(self.bus, &ready, &TraceContext::default()).await {
                Ok(()) => {}
                Err(OperateError::Bus(error)) => return Err(error),
                Err(error) => {
                    tracing::warn!(pipeline = %name, number, %error, "the proof could not be begun anew, and is tried again later")
                }
            }
        }
        Ok(())
    }
}

fn held(result: &TaskResult) -> HeldResult {
    let header = &result.header;
    let is_valid = match &result.verdict {
        Some(verdict) => verdict.invalid.is_none(),
        None => !header.check,
    };
    HeldResult {
        proof_type: header.id.stage.proof_type.clone(),
        stage: header.id.stage.stage.clone(),
        index: header.id.index,
        of: header.of,
        is_completed: is_valid && matches!(result.outcome, Outcome::Completed { .. }),
    }
}
