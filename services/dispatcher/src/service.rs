//! The shell: messages in, decisions, publishes and acknowledgements out.

use crate::{
    bodies::Bodies,
    config::Config,
    decide::{Dispatcher, Effect, Ready, Release, SourceId},
    metrics::Metrics,
    task::Body,
};
use push0_bus::{
    Ack, Backoff, Bucket, Bus, BusError, Deliveries, Delivery, Facts, Leadership, Message, Outbox, Pipelines,
    PublishError, Replay, Signals, Stream, Term, now,
};
use push0_domain::{
    PipelineId, Timestamp, ZkvmId,
    message::{BlockEvent, Emission, Lease, ResultEvent, StageReady},
    pipeline::Pipeline,
    subject::{self, AttemptKey, Kind},
    task::StageKey,
    time::micros,
    trace::TraceContext,
};
use push0_runtime::{BoxError, Component, Service, trace};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

/// How long a publish is tried before the dispatcher starts over from what is stored.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often silent provers and deadlines are looked for: a fraction of a heartbeat.
const TICK: Duration = Duration::from_millis(50);
/// Every how many ticks the notes are compared with what TASKS holds.
const RECONCILE_EVERY: u32 = 20;
/// How old a release must be to be held against TASKS: its publish was answered long before.
const RECONCILE_AGE: Duration = Duration::from_secs(2);
/// The most publishes on their way; beyond it no more messages are read.
const IN_FLIGHT_MAX: usize = 1024;

/// Runs the dispatcher until it is asked to stop.
pub async fn run(service: Service<Config>) -> Result<(), BoxError> {
    let (broker, role) = (
        service.health.component("broker"),
        service.health.component("role"),
    );
    let metrics = Metrics::register()?;
    let bus = Bus::connect(&service.config.nats, "dispatcher").await?;
    let mut backoff = Backoff::default();
    loop {
        let session = session(&bus, &metrics, &broker, &role);
        let error = tokio::select! {
            () = service.shutdown.requested() => break,
            ended = session => match ended {
                Ok(()) => continue,
                Err(error) => error,
            },
        };
        metrics.leading.set(0);
        broker.not_ready(error.to_string());
        tracing::warn!(%error, "starting over from what is stored");
        tokio::time::sleep(backoff.next_delay()).await;
    }
    bus.flush().await;
    Ok(())
}

/// Waits for the role, holds it, and gives it up when anything is out of order.
async fn session(bus: &Bus, metrics: &Metrics, broker: &Component, role: &Component) -> Result<(), BusError> {
    bus.connected().await;
    bus.check_provisioned().await?;
    broker.ready();
    // A standby is ready: it does what a standby must.
    role.ready();
    let mut term = Leadership::candidate(bus, "dispatcher").await?.win().await?;
    tracing::info!("this dispatcher is the active one");
    metrics.leading.set(1);
    let ended = Active::start(bus, metrics).await?.serve(&mut term).await;
    metrics.leading.set(0);
    term.resign().await;
    ended
}

/// What a release's publish stands for, until it is answered.
type Token = (SourceId, u32);

struct Active<'a> {
    bus: &'a Bus,
    metrics: &'a Metrics,
    pipelines: Pipelines,
    cursors: Facts<u32>,
    core: Dispatcher,
    acks: HashMap<SourceId, Ack>,
    bodies: Bodies,
    outbox: Outbox<Token>,
    blocks: Deliveries<BlockEvent>,
    stages: Deliveries<StageReady>,
    signals: Signals,
}

impl<'a> Active<'a> {
    async fn start(bus: &'a Bus, metrics: &'a Metrics) -> Result<Self, BusError> {
        let heard = [Kind::Lease, Kind::Result, Kind::Verdict, Kind::Check, Kind::Proof].map(subject::all);
        // Listened to before anything is read: what happens in between is heard, not missed.
        let signals = bus.listen(heard).await?;
        let replay = |stream, consumer: &str, kind: Kind| Replay {
            stream,
            consumer: consumer.into(),
            filters: vec![subject::all(kind)],
        };
        let mut active = Self {
            pipelines: Pipelines::bind(bus).await?,
            cursors: bus.facts(Bucket::State).await?,
            core: Dispatcher::default(),
            acks: HashMap::new(),
            bodies: Bodies::default(),
            outbox: Outbox::new(bus.clone(), PATIENCE),
            blocks: bus
                .replay(&replay(Stream::Blocks, "dispatcher-blocks", Kind::Block))
                .await?,
            stages: bus
                .replay(&replay(Stream::Stages, "dispatcher-stages", Kind::Stage))
                .await?,
            signals,
            bus,
            metrics,
        };
        active.recall().await?;
        Ok(active)
    }

    /// Learns what provers there are and what was released before.
    async fn recall(&mut self) -> Result<(), BusError> {
        for (subject, _) in self
            .bus
            .subjects(Stream::Leases, &subject::all(Kind::Lease))
            .await?
        {
            if let Some(Ok(lease)) = self
                .bus
                .last::<Lease>(Stream::Leases, &subject)
                .await?
                .map(|kept| kept.body)
            {
                self.core.heard(&lease, now());
            }
        }
        for (zkvm, released) in self.released().await? {
            self.core.adopt(&zkvm, released, now());
        }
        Ok(())
    }

    async fn serve(mut self, term: &mut Term) -> Result<(), BusError> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks = 0_u32;
        let interrupted = self.bus.interrupted();
        let held = term.hold();
        let (mut interrupted, mut held) = (std::pin::pin!(interrupted), std::pin::pin!(held));
        loop {
            let room = self.outbox.len() < IN_FLIGHT_MAX;
            tokio::select! {
                biased;
                () = &mut held => {
                    tracing::warn!("another dispatcher is the active one");
                    return Ok(());
                }
                () = &mut interrupted => return Err(BusError::Interrupted),
                _ = tick.tick() => {
                    ticks = ticks.wrapping_add(1);
                    if ticks.is_multiple_of(RECONCILE_EVERY) {
                        self.reconcile().await?;
                        self.metrics.observe(&self.core);
                    }
                    let effects = self.core.tick(now());
                    self.apply(effects).await?;
                }
                ((source, index), stored) = self.outbox.next() => self.stored(source, index, stored).await?,
                signal = self.signals.next() => {
                    let signal = signal?;
                    self.hear(&signal).await?;
                }
                delivery = self.stages.next(), if room => self.stage(delivery?).await?,
                delivery = self.blocks.next(), if room => self.block(delivery?).await?,
            }
            self.release().await?;
        }
    }

    async fn block(&mut self, delivery: Delivery<BlockEvent>) -> Result<(), BusError> {
        let source = SourceId::Block(delivery.sequence);
        self.acks.insert(source, delivery.ack);
        let effects = match delivery.body {
            BlockEvent::Cancelled(cancel) => self.core.cancel(source, &cancel, delivery.stored_at),
            BlockEvent::Observed(block) => match self.pipeline(&block.pipeline, block.revision).await? {
                Some(pipeline) => {
                    let effects = self.core.block(source, block.block, block.deadline_at, &pipeline);
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

    async fn stage(&mut self, delivery: Delivery<StageReady>) -> Result<(), BusError> {
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
        if !self.core.knows(name)
            && let Some((output, _)) = self.bus.output(name).await?
        {
            self.core.recall(name, output);
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
        push0_bus::DeadLetters::new(self.bus.clone())
            .refused(stream, subject, sequence, &reason)
            .await?;
        self.apply(vec![Effect::Done(source)]).await
    }

    async fn hear(&mut self, signal: &push0_bus::Signal) -> Result<(), BusError> {
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
                    let effects = self
                        .core
                        .emitted(&emission.pipeline, emission.last, emission.next);
                    self.apply(effects).await?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Releases all that can be released now.
    async fn release(&mut self) -> Result<(), BusError> {
        // Until all that was there is known, something more urgent may still come.
        if self.blocks.to_replay() > 0 || self.stages.to_replay() > 0 {
            return Ok(());
        }
        while self.outbox.len() < IN_FLIGHT_MAX
            && let Some(release) = self.core.release(now())
        {
            self.publish(&release).await?;
        }
        Ok(())
    }

    async fn publish(&mut self, release: &Release) -> Result<(), BusError> {
        let Some(body) = self.bodies.get(self.bus, release.source).await? else {
            // Purged under us by an operator; nothing is left to ask for.
            return self.stored(release.source, release.index, Ok(())).await;
        };
        let (body, came) = &*body;
        let (name, revision) = match body {
            Body::Block(block, _) => (&block.pipeline, block.revision),
            Body::Stage(stage) => (&stage.stage.pipeline, stage.context.revision),
        };
        let pipeline = self.pipelines.revision(name, revision).await?;
        let Some(task) = pipeline.and_then(|pipeline| body.task(release, &pipeline)) else {
            return self.stored(release.source, release.index, Ok(())).await;
        };
        let context = trace::context(
            &span(&release.stage, release.index, release.key.attempt, came),
            came,
        );
        match Message::new(subject::task(&release.key), &task, &context) {
            Ok(message) => self.outbox.push(message, (release.source, release.index)),
            Err(source) => {
                return Err(BusError::Corrupt {
                    what: task.header.id.to_string(),
                    source,
                });
            }
        }
        self.metrics.released.inc();
        Ok(())
    }

    async fn stored<S>(
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

    async fn apply(&mut self, effects: Vec<Effect>) -> Result<(), BusError> {
        for effect in effects {
            match effect {
                Effect::Done(source) => self.done(source).await,
                Effect::SaveCursor(source, next) => {
                    self.cursors.put(&cursor_key(source), &next).await?;
                }
                Effect::Purge(key) => {
                    self.bus.purge(Stream::Tasks, &subject::task(&key)).await?;
                    self.core.ended(&key);
                }
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

    async fn done(&mut self, source: SourceId) {
        let is_long = self.bodies.may_be_long(source);
        self.bodies.forget(source);
        if let Some(ack) = self.acks.remove(&source) {
            ack.done().await;
        }
        if is_long && let Err(error) = self.cursors.delete(&cursor_key(source)).await {
            tracing::debug!(%error, "a cursor is left behind");
        }
    }

    /// The attempts in TASKS, by zkVM.
    async fn released(&self) -> Result<HashMap<ZkvmId, HashSet<AttemptKey>>, BusError> {
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

    async fn reconcile(&mut self) -> Result<(), BusError> {
        let before = Timestamp(now().0.saturating_sub(micros(RECONCILE_AGE)));
        let released = self.released().await?;
        let zkvms: Vec<ZkvmId> = self.core.provers().map(|(zkvm, ..)| zkvm.clone()).collect();
        for zkvm in zkvms {
            self.core
                .reconcile(&zkvm, released.get(&zkvm).unwrap_or(&HashSet::new()), before);
        }
        Ok(())
    }
}

fn cursor_key(source: SourceId) -> String {
    let (SourceId::Block(sequence) | SourceId::Stage(sequence)) = source;
    format!("cursor.dispatcher.{sequence}")
}

fn span(stage: &StageKey, index: u32, attempt: u32, came: &TraceContext) -> tracing::Span {
    let span = tracing::info_span!(
        "release",
        otel.kind = "producer",
        block.number = stage.block.number,
        task.id = %stage.task(index),
        attempt,
    );
    trace::set_parent(&span, came);
    span
}
