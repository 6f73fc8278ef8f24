//! Tells the session of stages and signals, with the stored facts it needs.

use crate::{decide::SourceId, lane::kept, perform::cursor_key, service::Active, session::Received};
use push0_bus::{BusError, Signal, Stream, now};
use push0_domain::{
    PipelineId,
    message::{Emission, Lease, ResultEvent, StageReady, TaskResult},
    pipeline::Pipeline,
    subject::Kind,
};
use std::sync::Arc;

/// The stored state of a pipeline cannot be read, so its work waits.
pub(crate) struct Unreadable;

impl Active<'_> {
    pub(crate) async fn stage(&mut self, message: Received<StageReady>) -> Result<(), BusError> {
        let (stage, sequence) = (&message.body, message.sequence);
        let (name, revision) = (stage.stage.pipeline.clone(), stage.context.revision);
        let Ok(definition) = self.readable(&name, revision).await? else {
            self.unreadable.set_aside(name, sequence);
            return Ok(());
        };
        // Only a stage of several tasks can have been released in part, so only such stages have a cursor.
        let cursor = match stage.tasks.count {
            0 | 1 => None,
            // Without the cursor, tasks that were released are released again, and those still there are refused.
            _ => self
                .cursors
                .look(&cursor_key(SourceId::Stage(sequence)))
                .await?
                .and_then(Result::ok)
                .and_then(|fact| fact.value),
        };
        let ops = self
            .session
            .stage(message, cursor.unwrap_or(0), definition, now());
        self.perform(ops).await
    }

    /// Returns a revision of a pipeline, and reads the pipeline's output on the first call.
    pub(crate) async fn pipeline(
        &mut self,
        name: &PipelineId,
        revision: u32,
    ) -> Result<Option<Arc<Pipeline>>, BusError> {
        if !self.session.core.knows(name) {
            let output = self.bus.output(name).await?.map(|(output, _)| output);
            let first = match &output {
                Some(_) => None,
                None => self
                    .known
                    .first(&format!("{name}.>"), 1)
                    .await?
                    .first()
                    .and_then(|fact| Some(fact.value.as_ref()?.block.number)),
            };
            let ops = self.session.recall(name, output, first);
            self.perform(ops).await?;
        }
        self.pipelines.named(name, revision).await
    }

    /// Returns a revision like [`Self::pipeline`], unless stored state of the pipeline cannot be read.
    pub(crate) async fn readable(
        &mut self,
        name: &PipelineId,
        revision: u32,
    ) -> Result<Result<Option<Arc<Pipeline>>, Unreadable>, BusError> {
        if self.unreadable.rests(name) {
            return Ok(Err(Unreadable));
        }
        match self.pipeline(name, revision).await {
            Ok(definition) => {
                self.unreadable.mended(name);
                Ok(Ok(definition))
            }
            Err(error) if error.is_damage() => {
                self.unreadable.found(name, error);
                Ok(Err(Unreadable))
            }
            Err(error) => Err(error),
        }
    }

    /// Takes in stages whose pipeline stood still.
    pub(crate) async fn resume(&mut self) -> Result<(), BusError> {
        while let Some(stages) = self.unreadable.due() {
            for sequence in stages {
                let stored = self.bus.at::<StageReady>(Stream::Stages, sequence).await?;
                if let Some(message) = stored.and_then(kept) {
                    let is_replay = self.stages.is_replay();
                    self.stage(Received { is_replay, ..message }).await?;
                }
            }
        }
        Ok(())
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
                    let ops = self.session.emitted(&emission);
                    self.perform(ops).await?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Passes on the end of an attempt, unless it is not to be believed. The collector counts those.
    async fn report(&mut self, subject: &str, kind: Kind, result: &TaskResult) -> Result<(), BusError> {
        if let Ok(report) = self.seals.admit(subject, kind, result).await? {
            let ops = self.session.report(kind, &report.attempt, result, now());
            self.perform(ops).await?;
        }
        Ok(())
    }

    /// Passes on a heartbeat, unless it is not to be believed. The watchdog counts those.
    pub(crate) async fn lease(&mut self, subject: &str, mut lease: Lease) -> Result<(), BusError> {
        if self.seals.admit_lease(subject, &mut lease).await?.is_ok() {
            self.session.core.heard(&lease, now());
        }
        Ok(())
    }
}
