//! Carries out operations: releases into TASKS, purges, ends, acknowledgements.

use crate::{
    decide::SourceId,
    service::{Active, PATIENCE},
    session::{Attempts, Found, Op, Outgoing, Refusal, Token},
    task::{Body, Traced},
};
use futures::{StreamExt, TryStreamExt};
use push0_bus::{Bus, BusError, DeadLetters, Message, PublishError, Stored, Stream, now};
use push0_domain::{
    message::{BlockEnded, BlockEvent, ResultEvent, StageReady, Task},
    subject::{self, AttemptKey, Kind},
    trace::{Trace, TraceContext},
    wanted::Claims,
};
use push0_runtime::trace;
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

/// Most reads of bodies in flight at once.
const READS_MAX: usize = 64;

impl Active<'_> {
    /// Releases tasks as long as provers can take them.
    pub(crate) async fn release(&mut self) -> Result<(), BusError> {
        if self.lanes.are_opening() {
            return Ok(());
        }
        let (stages, lanes) = (self.stages.to_replay(), self.lanes.to_replay());
        let Some(releases) = self.session.release(stages, lanes, now()) else {
            return Ok(());
        };
        let sources: BTreeSet<SourceId> = releases.iter().map(|release| release.source).collect();
        let (bus, session) = (self.bus, &self.session);
        let read = async |source| match session.body(source) {
            None => Ok::<_, BusError>((source, read(bus, source).await?)),
            cached => Ok((source, cached)),
        };
        let bodies: HashMap<SourceId, Option<Traced>> = futures::stream::iter(sources)
            .map(read)
            .buffer_unordered(READS_MAX)
            .try_collect()
            .await?;
        let mut round: Vec<Found> = Vec::with_capacity(releases.len());
        for release in releases {
            let found = match bodies.get(&release.source).cloned().flatten() {
                Some(traced) => {
                    let (name, revision) = traced.0.revision();
                    let pipeline = self.pipelines.named(name, revision).await?;
                    pipeline.map(|pipeline| (traced, pipeline))
                }
                None => None,
            };
            round.push((release, found));
        }
        let ops = self.session.publish(round, self.seals.keys(), now())?;
        self.perform(ops).await
    }

    /// Tells the session of the answer to a publish. A refused task was released before.
    pub(crate) fn stored(
        &mut self,
        token: Token,
        stored: Result<Stored, PublishError>,
    ) -> Result<Vec<Op>, BusError> {
        match stored {
            Ok(_) | Err(PublishError::Occupied { .. }) => Ok(self.session.stored(token)),
            Err(error) => Err(error.into()),
        }
    }

    /// Carries out operations one by one, with all operations their answers lead to.
    pub(crate) async fn perform(&mut self, ops: Vec<Op>) -> Result<(), BusError> {
        let mut ops = VecDeque::from(ops);
        loop {
            match ops.pop_front() {
                Some(op) => ops.extend(self.carry_out(op).await?),
                None if self.session.awaits_answers() => {
                    let (token, stored) = self.outbox.next().await;
                    ops.extend(self.stored(token, stored)?);
                }
                None => return Ok(()),
            }
        }
    }

    /// Carries out an operation, and returns the operations its answer leads to.
    async fn carry_out(&mut self, op: Op) -> Result<Vec<Op>, BusError> {
        match op {
            Op::Acknowledge(SourceId::Block(sequence)) => self.lanes.done(sequence).await,
            Op::Acknowledge(SourceId::Stage(sequence)) => self.stages.done(sequence).await,
            Op::SaveCursor(source, next) => self.cursors.put(&cursor_key(source), &next).await.map(drop)?,
            Op::DropCursor(source) => {
                if let Err(error) = self.cursors.delete(&cursor_key(source)).await {
                    tracing::debug!(%error, "could not delete the cursor of an acknowledged message");
                }
            }
            Op::Publish(outgoing) => self.publish(*outgoing)?,
            Op::ListTasks => {
                let held = self.released().await?;
                return Ok(self.session.list(&held));
            }
            Op::Purge(key, ended) => self.purge(&key, &ended).await?,
            Op::End(ended) => {
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
            }
            Op::Refuse(refusal) => return self.refuse(*refusal).await,
            Op::Hold(zkvm, turn) => self.hold(&zkvm, turn).await?,
            Op::Observe(pipeline, waited) => self.metrics.waited(&pipeline, "prover", waited),
        }
        Ok(Vec::new())
    }

    fn publish(&mut self, outgoing: Outgoing) -> Result<(), BusError> {
        let Outgoing {
            release,
            task,
            traced,
        } = outgoing;
        let (body, came) = &*traced;
        let message = Message::new(subject::task(&release.key), &task, &trace_of(body, came));
        let message = message.map_err(|source| BusError::Corrupt {
            what: release.stage.task(release.index).to_string(),
            source,
        })?;
        let message = message.claiming::<Task>(Stream::Tasks, task.claim());
        self.outbox.push(message, (release.source, release.index));
        let since = self.session.waits.since(release.source);
        self.metrics.released(&release.stage.pipeline, since, now());
        Ok(())
    }

    async fn purge(&mut self, key: &AttemptKey, ended: &BlockEnded) -> Result<(), BusError> {
        let subject = subject::task(key);
        let task = self.bus.last::<Task>(Stream::Tasks, &subject).await?;
        let task = task.and_then(|kept| kept.body.ok());
        if self.session.purge(key, ended, task.as_ref()) {
            self.bus.purge(Stream::Tasks, &subject).await?;
        }
        Ok(())
    }

    /// Stores a dead letter about a message, for an operator.
    async fn refuse(&mut self, refusal: Refusal) -> Result<Vec<Op>, BusError> {
        let stream = match refusal.source {
            SourceId::Block(_) => Stream::Blocks,
            SourceId::Stage(_) => Stream::Stages,
        };
        let letters = DeadLetters::new(self.bus.clone());
        let sequence = refusal.source.sequence();
        let letter = letters
            .refused(stream, &refusal.subject, sequence, &refusal.reason)
            .await?;
        let is_defined = match &refusal.blocks {
            None => false,
            Some((pipeline, ..)) => match self.pipelines.current_of(pipeline).await {
                // The pipeline is defined, and its collector goes on.
                Err(error) if error.is_damage() => true,
                current => current?.is_some(),
            },
        };
        Ok(self.session.refused(refusal, letter, is_defined))
    }

    /// Returns the attempts in TASKS by zkVM.
    pub(crate) async fn released(&self) -> Result<Attempts, BusError> {
        let mut released = Attempts::new();
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

/// Reads a body from its stream. Returns `None` if the message is gone.
async fn read(bus: &Bus, source: SourceId) -> Result<Option<Traced>, BusError> {
    match source {
        SourceId::Block(sequence) => {
            let kept = bus.at::<BlockEvent>(Stream::Blocks, sequence).await?;
            Ok(kept.and_then(|kept| match kept.body {
                Ok(BlockEvent::Observed(block)) => {
                    Some(Arc::new((Body::Block(block, kept.stored_at), kept.trace)))
                }
                _ => None,
            }))
        }
        SourceId::Stage(sequence) => {
            let kept = bus.at::<StageReady>(Stream::Stages, sequence).await?;
            Ok(kept.and_then(|kept| Some(Arc::new((Body::Stage(kept.body.ok()?), kept.trace)))))
        }
    }
}

pub(crate) fn cursor_key(source: SourceId) -> String {
    format!("cursor.dispatcher.{}", source.sequence())
}

/// Returns the trace context of a task. A block whose ingester began no trace has one from here on.
fn trace_of(body: &Body, came: &TraceContext) -> TraceContext {
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
