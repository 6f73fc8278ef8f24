//! Receives blocks, stages and signals, and applies the dispatcher's decisions on each.

use crate::{
    decide::{Effect, Outcome, Ready, SourceId},
    lane::Announced,
    perform::cursor_key,
    service::Active,
    task::Body,
};
use push0_bus::{BusError, DeadLetters, Delivery, Signal, Stream, now};
use push0_domain::{
    Announcement, BlockRef, PipelineId,
    message::{
        self, BlockEnded, BlockEvent, Emission, EndReason, Lease, ResultEvent, StageReady, TaskResult,
    },
    pipeline::Pipeline,
    subject::Kind,
};
use std::{ops::RangeInclusive, sync::Arc, time::Duration};

/// Returns the bytes that an attempt stored in the blob store; `None` if the report tells of no output for the first
/// time.
fn stored_bytes(kind: Kind, result: &TaskResult) -> Option<u64> {
    match &result.outcome {
        message::Outcome::Completed { outputs } if kind != Kind::Verdict => Some(outputs.blob_len()),
        _ => None,
    }
}

impl Active<'_> {
    /// Takes in a block received in turn or found late. A body about another pipeline than the lane's is
    /// refused with a dead letter.
    pub(crate) async fn block(&mut self, lane: &PipelineId, announced: Announced) -> Result<(), BusError> {
        let (source, stored_at) = (SourceId::Block(announced.sequence), announced.stored_at);
        let BlockEvent::Observed(block) = announced.body else {
            return Ok(());
        };
        if block.pipeline != *lane {
            let reason = format!(
                "a block of pipeline `{}` on the subject of `{lane}`",
                block.pipeline
            );
            let letter = (Stream::Blocks, &*announced.subject, source);
            self.refuse(letter, &reason).await?;
            return self.apply(vec![Effect::Done(source)]).await;
        }
        let Some(pipeline) = self.pipeline(&block.pipeline, block.revision).await? else {
            let blocks = (block.pipeline, block.block..=block.block);
            let letter = (Stream::Blocks, &*announced.subject, source);
            let announcement = Announcement(source.sequence());
            return self.unknown(letter, announcement, blocks, block.revision).await;
        };
        let effects = self.core.block(source, block.block, block.deadline_at, &pipeline);
        if effects.is_empty() {
            let lane = self.lanes.get(lane);
            let was_held_back = lane.is_some_and(|lane| lane.held_back(stored_at));
            self.waits.begin(source, stored_at, was_held_back);
            self.bodies
                .keep(source, Body::Block(block, stored_at), announced.trace);
        }
        self.apply(effects).await
    }

    /// Applies a cancellation, which also ends blocks not read yet.
    pub(crate) async fn cancel(
        &mut self,
        lane: &PipelineId,
        announced: &Announced,
        is_early: bool,
    ) -> Result<(), BusError> {
        let source = SourceId::Block(announced.sequence);
        let BlockEvent::Cancelled(cancel) = &announced.body else {
            return Ok(());
        };
        if cancel.pipeline != *lane {
            if !is_early {
                let reason = format!(
                    "a cancel of pipeline `{}` on the subject of `{lane}`",
                    cancel.pipeline
                );
                let letter = (Stream::Blocks, &*announced.subject, source);
                self.refuse(letter, &reason).await?;
                self.done(source).await;
            }
            return Ok(());
        }
        // Wait for in-flight releases: an attempt must be in TASKS before it can be purged.
        while !self.outbox.is_empty() {
            let ((source, index), stored) = self.outbox.next().await;
            self.stored(source, index, stored).await?;
        }
        let held = self.released().await?;
        let held = held.values().flatten();
        let effects = self.core.cancel(source, cancel, held, is_early);
        self.apply(effects).await
    }

    pub(crate) async fn stage(&mut self, delivery: Delivery<StageReady, ()>) -> Result<(), BusError> {
        let source = SourceId::Stage(delivery.sequence);
        self.core.replays(self.stages.is_replay());
        let stage = delivery.body;
        let (name, revision) = (stage.stage.pipeline.clone(), stage.context.revision);
        if !self.can_read(&name, revision).await? {
            self.unreadable.set_aside(name, delivery.sequence);
            return Ok(());
        }
        let Some(pipeline) = self.pipeline(&name, revision).await? else {
            let blocks = (name, stage.stage.first_block()..=stage.stage.block);
            let letter = (Stream::Stages, &*delivery.subject, source);
            let announcement = stage.context.announcement.max(stage.context.first_announcement());
            return self.unknown(letter, announcement, blocks, revision).await;
        };
        // Only a stage of several tasks can have been released in part, so only such stages have a cursor.
        let cursor = match stage.tasks.count {
            0 | 1 => None,
            // Without the cursor, tasks that were released are released again, and those still there are refused.
            _ => self
                .cursors
                .look(&cursor_key(source))
                .await?
                .and_then(Result::ok)
                .and_then(|fact| fact.value),
        };
        let ready = Ready::from(&stage);
        let effects = self
            .core
            .stage(source, ready, cursor.unwrap_or(0), &pipeline, now());
        if effects.is_empty() {
            self.waits.begin(source, delivery.stored_at, false);
            self.bodies.keep(source, Body::Stage(stage), delivery.trace);
        }
        self.apply(effects).await
    }

    /// Returns a revision of a pipeline, and reads the pipeline's output on the first call.
    pub(crate) async fn pipeline(
        &mut self,
        name: &PipelineId,
        revision: u32,
    ) -> Result<Option<Arc<Pipeline>>, BusError> {
        if !self.core.knows(name) {
            let output = self.bus.output(name).await?.map(|(output, _)| output);
            if output.is_none()
                && let Some(first) = self.known.first(&format!("{name}.>"), 1).await?.first()
                && let Some(known) = &first.value
            {
                // Without a record, the output begins with the first block the ingester wrote a fact about.
                self.core.announced(name, known.block.number);
            }
            let effects = self.core.recall(name, output.unwrap_or_default());
            self.apply(effects).await?;
        }
        self.pipelines.named(name, revision).await
    }

    /// Handles a message whose pipeline or revision never was defined: stores a dead letter for an operator, and
    /// ends the blocks so the ones behind them are emitted.
    async fn unknown(
        &mut self,
        (stream, subject, source): (Stream, &str, SourceId),
        announcement: Announcement,
        (pipeline, blocks): (PipelineId, RangeInclusive<BlockRef>),
        revision: u32,
    ) -> Result<(), BusError> {
        let reason = format!("pipeline `{pipeline}` has no revision {revision} and never had one");
        let dead_letter = self.refuse((stream, subject, source), &reason).await?;
        let is_defined = match self.pipelines.current_of(&pipeline).await {
            // The pipeline is defined, and its collector goes on.
            Err(error) if error.is_damage() => true,
            current => current?.is_some(),
        };
        if !is_defined {
            // The pipeline has no definition at all, so no collector emits its blocks and no consumer
            // waits for them.
            return self.apply(vec![Effect::Done(source)]).await;
        }
        let (first, last) = blocks.into_inner();
        let ended = BlockEnded {
            pipeline,
            first: first.number,
            last: last.number,
            // The inner hashes of a range are unknown here. An empty list names them, and `before` excludes
            // blocks announced later.
            hashes: if first == last {
                vec![last.hash]
            } else {
                Vec::new()
            },
            before: announcement.next(),
            reason: EndReason::Refused { dead_letter, reason },
        };
        self.apply(vec![Effect::End(ended, Some(source))]).await
    }

    /// Stores a dead letter about a message, and returns its id.
    pub(crate) async fn refuse(
        &self,
        (stream, subject, source): (Stream, &str, SourceId),
        reason: &str,
    ) -> Result<String, BusError> {
        let letters = DeadLetters::new(self.bus.clone());
        letters.refused(stream, subject, source.sequence(), reason).await
    }

    pub(crate) async fn hear(&mut self, signal: &Signal) -> Result<(), BusError> {
        let subject = signal.subject();
        match Kind::of(subject) {
            Some(kind @ (Kind::Result | Kind::Verdict)) => {
                if let Ok(ResultEvent::Attempt(result)) = signal.body() {
                    self.report(subject, kind, &result).await?;
                }
            }
            Some(kind @ Kind::Check) => {
                if let Ok(result) = signal.body::<TaskResult>() {
                    self.report(subject, kind, &result).await?;
                }
            }
            Some(Kind::Lease) => {
                if let Ok(lease) = signal.body::<Lease>() {
                    self.lease(subject, lease).await?;
                }
            }
            Some(Kind::Proof) => {
                if let Ok(emission) = signal.body::<Emission>() {
                    let effects = self.core.emitted(&emission);
                    self.apply(effects).await?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Handles the end of an attempt, unless it is not to be believed. The collector counts those.
    async fn report(&mut self, subject: &str, kind: Kind, result: &TaskResult) -> Result<(), BusError> {
        if let Ok(report) = self.seals.admit(subject, kind, result).await? {
            let outcome = match kind {
                Kind::Check => Outcome::Unverified,
                _ => Outcome::of(result),
            };
            if let Some(bytes) = stored_bytes(kind, result) {
                self.core.stores(&report.attempt, bytes);
                self.metrics.ran(&self.core, &report.attempt, result, now());
            }
            let effects = self.core.came(&report.attempt, outcome, now());
            self.apply(effects).await?;
        }
        Ok(())
    }

    /// Handles a heartbeat, unless it is not to be believed. The watchdog counts those.
    pub(crate) async fn lease(&mut self, subject: &str, mut lease: Lease) -> Result<(), BusError> {
        if self.seals.admit_lease(subject, &mut lease).await?.is_ok() {
            self.core.heard(&lease, now());
        }
        Ok(())
    }
}

impl Active<'_> {
    /// Returns whether the stored state of a pipeline, needed for work of this revision, can be read.
    pub(crate) async fn can_read(&mut self, name: &PipelineId, revision: u32) -> Result<bool, BusError> {
        if self.unreadable.rests(name) {
            return Ok(false);
        }
        match self.pipeline(name, revision).await {
            Ok(_) => {
                self.unreadable.mended(name);
                Ok(true)
            }
            Err(error) if error.is_damage() => {
                self.unreadable.found(name, error);
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Takes in stages whose pipeline stood still.
    pub(crate) async fn resume(&mut self) -> Result<(), BusError> {
        while let Some(stages) = self.unreadable.due() {
            for sequence in stages {
                let kept = self.bus.at::<StageReady>(Stream::Stages, sequence).await?;
                if let Some(kept) = kept
                    && let Ok(body) = kept.body
                {
                    let (trace, subject, stored_at) = (kept.trace, kept.subject, kept.stored_at);
                    let delivery = Delivery {
                        body,
                        trace,
                        subject,
                        sequence,
                        stored_at,
                        deliveries: 1,
                        waited: Duration::ZERO,
                        ack: (),
                    };
                    self.stage(delivery).await?;
                }
            }
        }
        Ok(())
    }
}
