//! Runs one task per pipeline, as pipelines come and go.

use crate::{config::Config, metrics::Metrics, pipeline};
use futures::{FutureExt, StreamExt};
use push0_bus::{Backoff, Bus, BusError, Leadership, PipelineChange, Pipelines};
use push0_domain::PipelineId;
use push0_runtime::{BoxError, Component, Health, Service};
use std::{collections::HashSet, panic::AssertUnwindSafe, time::Instant};
use tokio::task::JoinSet;

/// Runs the collector until it is asked to stop.
pub async fn run(service: Service<Config>) -> Result<(), BoxError> {
    let broker = service.health.component("broker");
    let permissions = service.health.component("permissions").reporter();
    let metrics = Metrics::register()?;
    let bus = Bus::connect_reporting(&service.config.nats, "collector", permissions).await?;
    let mut collecting = Collecting {
        bus: bus.clone(),
        health: service.health.clone(),
        metrics,
        known: HashSet::new(),
        tasks: JoinSet::new(),
    };
    let mut backoff = Backoff::default();
    loop {
        let began = Instant::now();
        let error = tokio::select! {
            () = service.shutdown.requested() => break,
            ended = bus.permitted(collecting.follow(&broker)) => ended.err().unwrap_or(BusError::Interrupted),
        };
        broker.not_ready(error.to_string());
        tracing::warn!(%error, "waiting for the broker");
        tokio::select! {
            () = service.shutdown.requested() => break,
            () = backoff.pause_after(began) => {}
        }
    }
    // Unacknowledged results pass to another collector, so nothing here needs to be finished.
    collecting.tasks.shutdown().await;
    bus.flush().await;
    Ok(())
}

struct Collecting {
    bus: Bus,
    health: Health,
    metrics: Metrics,
    known: HashSet<PipelineId>,
    tasks: JoinSet<()>,
}

impl Collecting {
    /// Starts a task for each pipeline that appears. A removed pipeline is collected until this process ends,
    /// because its last blocks may still be in flight.
    async fn follow(&mut self, broker: &Component) -> Result<(), BusError> {
        self.bus.connected().await;
        self.bus.check_provisioned().await?;
        let (current, mut changes) = Pipelines::bind(&self.bus).await?.watch().await?;
        for pipeline in current {
            self.collect(pipeline.name.clone());
        }
        broker.ready();
        while let Some(change) = changes.next().await {
            match change? {
                PipelineChange::Defined(name) => self.collect(name),
                PipelineChange::Current(pipeline) => self.collect(pipeline.name.clone()),
                PipelineChange::Removed(_) => {}
            }
        }
        Ok(())
    }

    /// Starts the task of a pipeline, unless it runs.
    fn collect(&mut self, pipeline: PipelineId) {
        if !self.known.insert(pipeline.clone()) {
            return;
        }
        let role = format!("collector.{pipeline}");
        let mut candidate = Leadership::candidate(&self.bus, &role);
        match self.health.role(&role) {
            Ok(role) => {
                let losses = role.losses;
                candidate = candidate.watched(move || losses.inc(), role.component.reporter());
            }
            Err(error) => tracing::error!(%error, "cannot count losses of leadership for this role"),
        }
        let collecting = collect(self.bus.clone(), candidate, pipeline, self.metrics.clone());
        self.tasks.spawn(collecting);
    }
}

async fn collect(bus: Bus, candidate: Leadership, pipeline: PipelineId, metrics: Metrics) {
    let mut backoff = Backoff::default();
    loop {
        let began = Instant::now();
        let session = pipeline::session(&bus, &candidate, &pipeline, &metrics);
        match AssertUnwindSafe(bus.permitted(session)).catch_unwind().await {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => tracing::warn!(%pipeline, %error, "starting over from stored state"),
            // One message must not stop a pipeline: after a restart another message may settle it first, and
            // an operator who reads this can cancel the block.
            Err(_) => {
                metrics.leading.with_label_values(&[pipeline.as_str()]).set(0);
                tracing::error!(
                    %pipeline,
                    "the collector of this pipeline panicked and starts over from stored state; \
                     the message before this one says where: please report both"
                );
            }
        }
        backoff.pause_after(began).await;
    }
}
