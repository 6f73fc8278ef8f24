//! Runs one task per pipeline, as pipelines come and go.

use crate::{config::Config, metrics::Metrics, pipeline::Emitting};
use futures::StreamExt;
use push0_bus::{Backoff, Bus, BusError, Leadership, PipelineChange, Pipelines};
use push0_domain::PipelineId;
use push0_runtime::{BoxError, Component, Health, Service, Serving, UnreadableState};
use std::{collections::HashMap, convert::Infallible, time::Instant};
use tokio::task::{JoinSet, LocalSet};

/// Runs the collector until it is asked to stop.
pub async fn run(service: Service<Config>) -> Result<(), BoxError> {
    let broker = service.health.component("broker");
    let permissions = service.health.component("permissions").reporter();
    let connection = service.health.component("connection").quiet_reporter();
    let metrics = Metrics::register()?;
    let bus = Bus::connect_reporting(&service.config.nats, "collector", permissions, connection).await?;
    let health = service.health.clone();
    let _known = bus.introduce(service.name, service.version, move || health.trouble());
    let mut collecting = Collecting {
        bus: bus.clone(),
        definitions: service.health.unreadable("definition")?,
        state: service.health.unreadable("state")?,
        health: service.health.clone(),
        metrics,
        known: HashMap::new(),
        tasks: JoinSet::new(),
    };
    let tasks = LocalSet::new();
    let following = tasks.run_until(collecting.follow_always(&broker));
    tokio::select! {
        () = service.shutdown.requested() => {}
        never = following => match never {},
    }
    // Unacknowledged results pass to another collector, so nothing here needs to be finished.
    drop(tasks);
    bus.flush().await;
    Ok(())
}

struct Collecting {
    bus: Bus,
    health: Health,
    definitions: UnreadableState,
    state: UnreadableState,
    metrics: Metrics,
    /// The pipelines with a task, and whether that task serves.
    known: HashMap<PipelineId, Serving>,
    tasks: JoinSet<Infallible>,
}

impl Collecting {
    /// Follows the definitions, and starts over when some changes may have been missed.
    async fn follow_always(&mut self, broker: &Component) -> Infallible {
        let (mut backoff, bus) = (Backoff::default(), self.bus.clone());
        loop {
            let began = Instant::now();
            let ended = bus.permitted(self.follow(broker)).await;
            let error = ended.err().unwrap_or(BusError::Interrupted);
            broker.not_ready(error.to_string());
            tracing::warn!(%error, "waiting for the broker");
            backoff.pause_after(began).await;
        }
    }

    /// Starts a task for each pipeline that appears, and for each removed one with blocks in flight. A removed
    /// pipeline is collected until this process ends.
    async fn follow(&mut self, broker: &Component) -> Result<(), BusError> {
        self.bus.connected().await;
        self.bus.check_provisioned().await?;
        let pipelines = Pipelines::bind(&self.bus).await?;
        let (current, mut changes) = pipelines.watch().await?;
        // Removals that this process did not hear of count as well.
        let is_current = |name: &PipelineId| current.iter().any(|pipeline| pipeline.name == *name);
        let gone = self.known.iter().filter(|(name, _)| !is_current(name));
        gone.for_each(|(_, serving)| serving.withdraw());
        for pipeline in current {
            self.definitions.mended(pipeline.name.as_str());
            self.collect(pipeline.name.clone());
        }
        for pipeline in pipelines.removed().await? {
            let in_flight = self.bus.in_flight(&pipeline).await?;
            if in_flight > 0 {
                tracing::info!(%pipeline, in_flight, "collecting a removed pipeline, whose blocks are in flight");
                self.collect(pipeline.clone());
                self.withdraw(&pipeline);
            }
        }
        broker.ready();
        while let Some(change) = changes.next().await {
            match change? {
                PipelineChange::Defined(name) => self.collect(name),
                PipelineChange::Current(pipeline) => {
                    self.definitions.mended(pipeline.name.as_str());
                    self.collect(pipeline.name.clone());
                }
                PipelineChange::Removed(name) => {
                    self.definitions.mended(name.as_str());
                    self.withdraw(&name);
                }
                // Its blocks in flight go on: they name revisions, and not the current definition.
                PipelineChange::Unreadable(name, reason) => {
                    self.definitions.found(name.as_str(), reason);
                    self.collect(name);
                }
            }
        }
        Ok(())
    }

    /// Shows no trouble of a removed pipeline any more.
    fn withdraw(&self, pipeline: &PipelineId) {
        if let Some(serving) = self.known.get(pipeline) {
            serving.withdraw();
        }
    }

    /// Starts the task of a pipeline, unless it runs.
    fn collect(&mut self, pipeline: PipelineId) {
        if let Some(serving) = self.known.get(&pipeline) {
            return serving.restore();
        }
        let serving = Serving::new(&self.health, "collecting", pipeline.as_str());
        self.known.insert(pipeline.clone(), serving.clone());
        let role = format!("collector.{pipeline}");
        let mut candidate = Leadership::candidate(&self.bus, &role);
        match self.health.role(&role) {
            Ok(role) => {
                let losses = role.losses;
                candidate = candidate.watched(move || losses.inc(), role.component.reporter());
            }
            Err(error) => tracing::error!(%error, "cannot count losses of leadership for this role"),
        }
        let emitting = Emitting {
            bus: self.bus.clone(),
            pipeline,
            metrics: self.metrics.clone(),
            state: self.state.clone(),
            serving,
        };
        self.tasks
            .spawn_local(async move { candidate.lead(&emitting).await });
    }
}
