//! Receiving: blocks, stages and signals, and what the dispatcher decides on each.

use crate::{
    decide::{Effect, Ready, SourceId},
    perform::cursor_key,
    service::Active,
    task::Body,
};
use push0_bus::{BusError, DeadLetters, Delivery, Signal, Stream, now};
use push0_domain::{
    PipelineId,
    message::{BlockEvent, Emission, Lease, StageReady},
    pipeline::Pipeline,
    subject::{AttemptKey, Kind},
};
use std::sync::Arc;

impl Active<'_> {
    pub(crate) async fn block(&mut self, delivery: Delivery<BlockEvent>) -> Result<(), BusError> {
        let source = SourceId::Block(delivery.sequence);
        self.acks.insert(source, delivery.ack);
        let effects = match delivery.body {
            BlockEvent::Cancelled(cancel) => {
                // What is on its way to TASKS must be there before it can be taken out.
                while !self.outbox.is_empty() {
                    let ((source, index), stored) = self.outbox.next().await;
                    self.stored(source, index, stored).await?;
                }
                let held = self.released().await?;
                self.core
                    .cancel(source, &cancel, delivery.stored_at, held.values().flatten())
            }
            BlockEvent::Observed(block) => match self.pipeline(&block.pipeline, block.revision).await? {
                Some(pipeline) => {
                    let effects = self.core.block(
                        source,
                        block.block,
                        delivery.stored_at,
                        block.deadline_at,
                        &pipeline,
                    );
                    if effects.is_empty() {
                        self.bodies
                            .keep(source, Body::Block(block, delivery.stored_at), delivery.trace);
                    }
                    effects
                }
                None => {
                    return self
                        .unknown(
                            Stream::Blocks,
                            &delivery.subject,
                            source,
                            &block.pipeline,
                            block.revision,
                        )
                        .await;
                }
            },
        };
        self.apply(effects).await
    }

    pub(crate) async fn stage(&mut self, delivery: Delivery<StageReady>) -> Result<(), BusError> {
        let source = SourceId::Stage(delivery.sequence);
        let stage = delivery.body;
        self.acks.insert(source, delivery.ack);
        let (name, revision) = (stage.stage.pipeline.clone(), stage.context.revision);
        let Some(pipeline) = self.pipeline(&name, revision).await? else {
            return self
                .unknown(Stream::Stages, &delivery.subject, source, &name, revision)
                .await;
        };
        // Only what may have been released in part before has a cursor.
        let cursor = match stage.tasks.count {
            0 | 1 => None,
            _ => self
                .cursors
                .get(&cursor_key(source))
                .await?
                .and_then(|fact| fact.value),
        };
        let ready = Ready {
            stage: stage.stage.clone(),
            tasks: stage.tasks,
            attempt: stage.attempt,
            announced_at: stage.context.stored_at,
            first_announced_at: stage.context.first_stored_at(),
            deadline_at: stage.context.deadline_at,
            amends: stage.context.amends,
        };
        let effects = self.core.stage(source, ready, cursor.unwrap_or(0), &pipeline);
        if effects.is_empty() {
            self.bodies.keep(source, Body::Stage(stage), delivery.trace);
        }
        self.apply(effects).await
    }

    /// A definition, and with its first sight how far its output is.
    async fn pipeline(
        &mut self,
        name: &PipelineId,
        revision: u32,
    ) -> Result<Option<Arc<Pipeline>>, BusError> {
        if !self.core.knows(name) {
            let output = self.bus.output(name).await?.map(|(output, _)| output);
            self.core.recall(name, output.unwrap_or_default());
        }
        self.pipelines.revision(name, revision).await
    }

    /// A message of a pipeline that nobody defined cannot be acted on: an operator must see it.
    async fn unknown(
        &mut self,
        stream: Stream,
        subject: &str,
        source: SourceId,
        name: &PipelineId,
        revision: u32,
    ) -> Result<(), BusError> {
        let reason =
            format!("pipeline `{name}` has no revision {revision}: `push0 pipeline apply` defines it");
        let (SourceId::Block(sequence) | SourceId::Stage(sequence)) = source;
        DeadLetters::new(self.bus.clone())
            .refused(stream, subject, sequence, &reason)
            .await?;
        self.apply(vec![Effect::Done(source)]).await
    }

    pub(crate) async fn hear(&mut self, signal: &Signal) -> Result<(), BusError> {
        let subject = signal.subject();
        match Kind::of(subject) {
            Some(kind @ (Kind::Result | Kind::Check | Kind::Verdict)) => {
                if let Ok(key) = AttemptKey::parse(subject, kind) {
                    self.core.ended(&key);
                }
            }
            Some(Kind::Lease) => {
                if let Ok(lease) = signal.body::<Lease>() {
                    self.core.heard(&lease, now());
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
}
