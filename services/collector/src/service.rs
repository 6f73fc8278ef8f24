//! One task per pipeline, as pipelines come and go.

use crate::{config::Config, metrics::Metrics, pipeline};
use futures::StreamExt;
use push0_bus::{Backoff, Bus, BusError, Pipelines};
use push0_domain::PipelineId;
use push0_runtime::{BoxError, Component, Service};
use std::collections::HashSet;
use tokio::task::JoinSet;

/// Runs the collector until it is asked to stop.
pub async fn run(service: Service<Config>) -> Result<(), BoxError> {
    let broker = service.health.component("broker");
    let metrics = Metrics::register()?;
    let bus = Bus::connect(&service.config.nats, "collector").await?;
    let mut collecting = Collecting {
        bus: bus.clone(),
        metrics,
        known: HashSet::new(),
        tasks: JoinSet::new(),
    };
    let mut backoff = Backoff::default();
    loop {
        let error = tokio::select! {
            () = service.shutdown.requested() => break,
            ended = collecting.follow(&broker) => ended.err().unwrap_or(BusError::Interrupted),
        };
        broker.not_ready(error.to_string());
        tracing::warn!(%error, "waiting for the broker");
        tokio::select! {
            () = service.shutdown.requested() => break,
            () = backoff.pause() => {}
        }
    }
    // What is not acknowledged is somebody else's to do; nothing here needs to be finished.
    collecting.tasks.shutdown().await;
    bus.flush().await;
    Ok(())
}

struct Collecting {
    bus: Bus,
    metrics: Metrics,
    known: HashSet<PipelineId>,
    tasks: JoinSet<()>,
}

impl Collecting {
    /// Starts a task for each pipeline that appears. One that was removed is collected until this
    /// process ends: its last blocks may still be on their way.
    async fn follow(&mut self, broker: &Component) -> Result<(), BusError> {
        self.bus.connected().await;
        self.bus.check_provisioned().await?;
        let mut changes = Pipelines::bind(&self.bus).await?.watch().await?;
        broker.ready();
        while let Some(change) = changes.next().await {
            let change = change?;
            if change.current.is_some() && self.known.insert(change.name.clone()) {
                self.tasks
                    .spawn(collect(self.bus.clone(), change.name, self.metrics.clone()));
            }
        }
        Ok(())
    }
}

async fn collect(bus: Bus, pipeline: PipelineId, metrics: Metrics) {
    let mut backoff = Backoff::default();
    loop {
        match pipeline::session(&bus, &pipeline, &metrics).await {
            Ok(()) => backoff.reset(),
            Err(error) => {
                tracing::warn!(%pipeline, %error, "starting over from what is stored");
                backoff.pause().await;
            }
        }
    }
}
