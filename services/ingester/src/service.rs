//! The service: connects, waits for provisioning, then runs one task for each pipeline.

use crate::{
    Config, Error,
    metrics::Metrics,
    session::Session,
    source::http::{Desk, server},
    status::Status,
};
use futures::StreamExt;
use push0_bus::{Backoff, Bus, BusError, Leadership, PipelineChange, Pipelines};
use push0_domain::{
    PipelineId,
    pipeline::{Pipeline, Source},
};
use push0_runtime::{Component, Health, Service, Shutdown, TaskGroup, UnreadableState, memory};
use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, sync::watch};

/// Time limit for the end of the tasks: a publish may take 5 s to finish, then the lead is given up. The
/// limit lies within the grace period of the process.
const GRACE: Duration = Duration::from_secs(15);

/// Runs the ingester until its stop is requested.
///
/// # Errors
/// Unusable configuration, an address that is taken, or a task that panicked. Trouble with the broker, a
/// chain or a pipeline is never an error here.
pub async fn run(service: Service<Config>) -> Result<(), Error> {
    let Service {
        config,
        shutdown,
        health,
        name,
        version,
    } = service;
    memory::return_large_buffers();
    let broker = health.component("broker");
    let definitions = health.component("pipelines");
    let metrics = Metrics::register()?;
    let permissions = health.component("permissions").reporter();
    let connection = health.component("connection").quiet_reporter();
    let bus = Bus::connect_reporting(&config.nats, &format!("push0-{name}"), permissions, connection).await?;
    let told = health.clone();
    let _known = bus.introduce(name, version, move || told.trouble());
    let listener = match config.submit.listen {
        None => None,
        Some(address) => {
            let failed = |source| Error::Listen { address, source };
            let listener = TcpListener::bind(address).await.map_err(failed)?;
            let address = listener.local_addr().map_err(failed)?;
            tracing::info!(%address, "listening for blocks");
            Some(listener)
        }
    };
    tokio::select! {
        () = shutdown.requested() => return Ok(()),
        () = provisioned(&bus, &broker) => {}
    }
    let group = TaskGroup::new();
    let desk = Desk::default();
    group.spawn("broker", follow_connection(bus.clone(), broker, shutdown.clone()));
    if let Some(listener) = listener {
        let token = config.submit.token().map_err(Error::Token)?;
        group.spawn(
            "submit",
            server::serve(listener, desk.clone(), token, shutdown.clone()),
        );
    }
    let mut roster = Roster {
        bus: bus.clone(),
        group: group.clone(),
        desk,
        unreadable: health.unreadable("definition")?,
        health,
        definitions,
        metrics,
        shutdown: shutdown.clone(),
        running: BTreeMap::new(),
    };
    let (ended, ()) = tokio::join!(group.run_until(&shutdown, GRACE), roster.follow());
    bus.flush().await;
    Ok(ended?)
}

/// Waits until the broker is reachable and has everything created by `push0 provision`.
async fn provisioned(bus: &Bus, broker: &Component) {
    let mut backoff = Backoff::default();
    loop {
        bus.connected().await;
        match bus.check_provisioned().await {
            Ok(()) => return,
            Err(error) => broker.not_ready(error.to_string()),
        }
        backoff.pause().await;
    }
}

async fn follow_connection(bus: Bus, broker: Component, shutdown: Shutdown) -> Result<(), Infallible> {
    let mut connection = bus.connection();
    loop {
        if connection.borrow_and_update().up {
            broker.ready();
        } else {
            broker.not_ready("not connected");
        }
        tokio::select! {
            () = shutdown.requested() => return Ok(()),
            // The bus outlives the receiver, so this cannot fail.
            _ = connection.changed() => {}
        }
    }
}

/// The pipelines served by this process.
struct Roster {
    bus: Bus,
    group: TaskGroup,
    desk: Desk,
    health: Health,
    /// Ready while changes of definitions arrive.
    definitions: Component,
    unreadable: UnreadableState,
    metrics: Metrics,
    shutdown: Shutdown,
    /// Dropping a sender ends the pipeline's task.
    running: BTreeMap<PipelineId, watch::Sender<Arc<Pipeline>>>,
}

impl Roster {
    /// Follows the definitions until the stop is requested.
    async fn follow(&mut self) {
        let (shutdown, bus) = (self.shutdown.clone(), self.bus.clone());
        let mut backoff = Backoff::default();
        loop {
            let began = Instant::now();
            let outcome = tokio::select! {
                () = shutdown.requested() => return,
                outcome = bus.permitted(self.watch()) => outcome,
            };
            match outcome {
                Ok(()) | Err(BusError::Interrupted) => {
                    self.definitions
                        .not_ready("the watch of the pipeline definitions was interrupted");
                }
                Err(error) => {
                    let reason = format!("the pipeline definitions cannot be watched: {error}");
                    self.definitions.not_ready(reason);
                }
            }
            tokio::select! {
                () = shutdown.requested() => return,
                () = backoff.pause_after(began) => {}
            }
        }
    }

    /// Reads all definitions, then applies each change. Returns when changes may have been missed.
    async fn watch(&mut self) -> Result<(), BusError> {
        let bus = self.bus.clone();
        bus.connected().await;
        let pipelines = Pipelines::bind(&bus).await?;
        let (current, mut changes) = pipelines.watch().await?;
        let names: BTreeSet<_> = current.iter().map(|p| p.name.clone()).collect();
        let (_, unreadable) = pipelines.all().await?;
        let is_there =
            |name: &PipelineId| names.contains(name) || unreadable.iter().any(|(there, _)| there == name);
        let gone: Vec<_> = self
            .running
            .keys()
            .filter(|name| !is_there(name))
            .cloned()
            .collect();
        for name in gone {
            self.remove(&name);
        }
        for definition in current {
            self.apply(definition);
        }
        self.definitions.ready();
        loop {
            match changes.next().await {
                Some(Ok(PipelineChange::Current(definition))) => self.apply(definition),
                Some(Ok(PipelineChange::Removed(name))) => self.remove(&name),
                // Blocks are ingested by the current definition only.
                Some(Ok(PipelineChange::Defined(_))) => {}
                // A pipeline that runs goes on as it was defined before.
                Some(Ok(PipelineChange::Unreadable(name, reason))) => {
                    self.unreadable.found(name.as_str(), reason);
                }
                Some(Err(error)) => return Err(error),
                None => return Ok(()),
            }
        }
    }

    fn apply(&mut self, definition: Arc<Pipeline>) {
        let name = definition.name.clone();
        self.unreadable.mended(name.as_str());
        let posted = definition.source == Source::Http;
        if let Some(running) = self.running.get(&name)
            && !running.is_closed()
        {
            // A change may be one that was listed already; only a revision newer than the running one is new.
            let newer = |there: &mut Arc<Pipeline>| {
                let newer = definition.revision > there.revision;
                if newer {
                    *there = definition;
                }
                newer
            };
            if running.send_if_modified(newer) {
                self.desk.define(&name, posted);
                tracing::info!(pipeline = %name, "the pipeline has a new definition");
            }
            return;
        }
        tracing::info!(pipeline = %name, revision = definition.revision, "serving the pipeline");
        self.desk.define(&name, posted);
        let (sender, receiver) = watch::channel(definition);
        let role = format!("ingester.{name}");
        let mut candidate = Leadership::candidate(&self.bus, &role);
        match self.health.role(&role) {
            Ok(role) => {
                let losses = role.losses;
                candidate = candidate.watched(move || losses.inc(), role.component.reporter());
            }
            Err(error) => tracing::error!(%error, "a role's losses are not counted"),
        }
        let session = Session {
            bus: self.bus.clone(),
            candidate,
            definition: receiver,
            desk: self.desk.clone(),
            status: Status::new(&self.bus, &name, &self.health, self.metrics.clone()),
            shutdown: self.shutdown.clone(),
        };
        self.group.spawn("pipeline", session.run());
        self.running.insert(name, sender);
    }

    fn remove(&mut self, name: &PipelineId) {
        self.unreadable.mended(name.as_str());
        self.desk.define(name, false);
        if self.running.remove(name).is_some() {
            tracing::info!(pipeline = %name, "the pipeline was removed");
        }
    }
}
