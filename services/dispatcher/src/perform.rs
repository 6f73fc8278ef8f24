//! Carries out decisions: releases into TASKS, purges, ends, acknowledgements.

use crate::{
    decide::{Effect, Release, SourceId},
    service::{Active, IN_FLIGHT_MAX, PATIENCE},
    task::Body,
};
use push0_bus::{BusError, Message, PublishError, Stream, now};
use push0_domain::{
    ZkvmId,
    message::{BlockEnded, ResultEvent, Task},
    subject::{self, AttemptKey, Kind},
    trace::{Trace, TraceContext},
    wanted::Claims,
};
use push0_runtime::trace;
use std::collections::{HashMap, HashSet};

impl Active<'_> {
    /// Releases tasks as long as provers can take them.
    pub(crate) async fn release(&mut self) -> Result<(), BusError> {
        // A message not replayed yet may be more urgent.
        if self.lanes.are_replaying() || self.stages.to_replay() > 0 {
            return Ok(());
        }
        let mut releases = Vec::new();
        while self.outbox.len() + releases.len() < IN_FLIGHT_MAX
            && let Some(release) = self.core.release(now())
        {
            releases.push(release);
        }
        let bodies = self.bodies.of(self.bus, &releases).await?;
        for release in &releases {
            match bodies.get(&release.source).cloned().flatten() {
                Some(body) => self.publish(release, &body).await?,
                // An operator purged the message meanwhile, so there is nothing left to release.
                None => self.stored(release.source, release.index, Ok(())).await?,
            }
        }
        self.waits.round_is_over();
        Ok(())
    }

    async fn publish(
        &mut self,
        release: &Release,
        (body, came): &(Body, TraceContext),
    ) -> Result<(), BusError> {
        let (name, revision) = match body {
            Body::Block(block, _) => (&block.pipeline, block.revision),
            Body::Stage(stage) => (&stage.stage.pipeline, stage.context.revision),
        };
        let pipeline = self.pipelines.named(name, revision).await?;
        let keys = self.seals.keys();
        let held_us = self.waits.held_us(release.source, now());
        let Some(task) = pipeline.and_then(|pipeline| body.task(release, held_us, &pipeline, keys)) else {
            return self.stored(release.source, release.index, Ok(())).await;
        };
        let corrupt = |source| BusError::Corrupt {
            what: release.stage.task(release.index).to_string(),
            source,
        };
        let task = task.map_err(corrupt)?;
        let message =
            Message::new(subject::task(&release.key), &task, &traced(body, came)).map_err(corrupt)?;
        let message = message.claiming::<Task>(Stream::Tasks, task.claim());
        self.outbox.push(message, (release.source, release.index));
        self.metrics
            .released(&release.stage.pipeline, self.waits.since(release.source), now());
        Ok(())
    }

    pub(crate) async fn stored<S>(
        &mut self,
        source: SourceId,
        index: u32,
        stored: Result<S, PublishError>,
    ) -> Result<(), BusError> {
        match stored {
            Ok(_) | Err(PublishError::Occupied { .. }) => {
                let effects = self.core.stored(source, index);
                self.apply(effects).await
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) async fn apply(&mut self, effects: Vec<Effect>) -> Result<(), BusError> {
        for effect in effects {
            match effect {
                Effect::Done(source) => self.done(source).await,
                Effect::SaveCursor(source, next) => {
                    self.cursors.put(&cursor_key(source), &next).await?;
                }
                Effect::DropCursor(source) => {
                    if let Err(error) = self.cursors.delete(&cursor_key(source)).await {
                        tracing::debug!(%error, "could not delete the cursor of an acknowledged message");
                    }
                }
                Effect::Hold(zkvm, turn) => self.hold(&zkvm, turn).await?,
                Effect::Purge(key, ended) => self.purge(&key, &ended).await?,
                Effect::End(ended, source) => {
                    let subject = subject::ended(&ended.pipeline);
                    let message = Message::new(
                        subject.clone(),
                        &ResultEvent::Ended(ended),
                        &TraceContext::default(),
                    );
                    let message = message.map_err(|source| BusError::Corrupt {
                        what: subject,
                        source,
                    })?;
                    self.bus.publish_patiently(message, PATIENCE).await?;
                    self.metrics.ended.inc();
                    if let Some(source) = source {
                        self.done(source).await;
                    }
                }
            }
        }
        Ok(())
    }

    /// Removes an attempt from TASKS, unless it is wanted after the end. Only its body distinguishes work
    /// for a replaced block from work for the same block announced again after the chain went back to it.
    async fn purge(&mut self, key: &AttemptKey, ended: &BlockEnded) -> Result<(), BusError> {
        let subject = subject::task(key);
        let task = self.bus.last::<Task>(Stream::Tasks, &subject).await?;
        let is_wanted = |task: Task| {
            let claim = task.claim();
            ended.assess(&task.header.id.stage, claim).is_wanted()
        };
        if task.and_then(|kept| kept.body.ok()).is_some_and(is_wanted) {
            return Ok(());
        }
        self.bus.purge(Stream::Tasks, &subject).await?;
        self.core.ended(key);
        Ok(())
    }

    pub(crate) async fn done(&mut self, source: SourceId) {
        self.bodies.forget(source);
        self.waits.end(source);
        match source {
            SourceId::Block(sequence) => self.lanes.done(sequence).await,
            SourceId::Stage(sequence) => self.stages.done(sequence).await,
        }
    }

    /// Returns the attempts in TASKS by zkVM.
    pub(crate) async fn released(&self) -> Result<HashMap<ZkvmId, HashSet<AttemptKey>>, BusError> {
        let mut released: HashMap<_, HashSet<_>> = HashMap::new();
        for (subject, _) in self
            .bus
            .subjects(Stream::Tasks, &subject::all(Kind::Task))
            .await?
        {
            if let Ok(key) = AttemptKey::parse(&subject, Kind::Task) {
                released.entry(key.zkvm.clone()).or_default().insert(key);
            }
        }
        Ok(released)
    }
}

pub(crate) fn cursor_key(source: SourceId) -> String {
    format!("cursor.dispatcher.{}", source.sequence())
}

/// Returns the trace context of a task. A block whose ingester began no trace has one from here on.
fn traced(body: &Body, came: &TraceContext) -> TraceContext {
    let Body::Block(block, stored_at) = body else {
        return came.clone();
    };
    if came.trace().is_some() {
        return came.clone();
    }
    let trace = trace::of_block(came, &block.pipeline, &block.block, block.observed_at);
    let trace = trace.map(|trace| trace.begun(*stored_at));
    trace.as_ref().map_or_else(|| came.clone(), Trace::context)
}
