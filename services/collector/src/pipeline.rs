//! The shell of one pipeline: reads results, applies decisions, and stores stages, dead letters and records.

mod lost;

use crate::{
    decide::{Collector, Opening, Step, Told},
    emit::{Batch, Emitter, Ready},
    gate::{Gate, Refusals},
    intake::Handle,
    known::known_at,
    looking::Looking,
    metrics::{Metrics, STUCK_AFTER},
    recall::Recall,
    start,
};
use futures::{FutureExt, future::BoxFuture};
use push0_bus::{
    Blobs, Bucket, Bus, BusError, DeadLetters, Deliveries, Delivery, Duty, Facts, Failure, Kept, Log,
    Message, Outbox, Pipelines, PublishError, Replay, Service, Stream, now,
};
use push0_domain::{
    Payloads, PipelineId,
    message::{Dead, Emission, EmissionOutcome, KnownBlock, ResultEvent, StageReady, TaskResult},
    output::Output,
    pipeline::Pipeline,
    subject::{self, AttemptKey, Kind},
    wanted::Claims,
};
use push0_runtime::{Serving, UnreadableState, trace};
use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

/// How long a publish is retried before the pipeline starts over from stored state.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often deadlines are checked.
const TICK: Duration = Duration::from_millis(50);
/// After how many ticks the finished proofs of old blocks without a record are counted.
const COUNT_EVERY: u32 = 100;
/// After how many ticks a block is looked up that was given up before any result came.
const LOOK_EVERY: u32 = 10;
/// How many such blocks are looked up at once, for a cancellation of many.
const LOOKS_AT_ONCE: u32 = 64;
/// Most publishes in flight, in number and in bytes. At this limit no more results are read.
const IN_FLIGHT_MAX: usize = 1024;
const IN_FLIGHT_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The collector's work for one pipeline, and whom it tells how the work goes.
pub(crate) struct Emitting {
    pub(crate) bus: Bus,
    pub(crate) pipeline: PipelineId,
    pub(crate) metrics: Metrics,
    pub(crate) state: UnreadableState,
    pub(crate) serving: Serving,
}

impl Duty for Emitting {
    type State<'a> = Active<'a>;

    async fn start(&self) -> Result<Active<'_>, BusError> {
        Active::start(&self.bus, &self.pipeline, &self.metrics).await
    }

    async fn serve<'a>(&'a self, state: Active<'a>) -> Result<Infallible, BusError> {
        state.serve().await
    }

    fn leads(&self, leads: bool) {
        let leading = self.metrics.leading.with_label_values(&[self.pipeline.as_str()]);
        leading.set(leads.into());
    }

    fn is_well(&self) {
        self.state.mended(self.pipeline.as_str());
        self.serving.serves();
    }

    fn failed(&self, failure: &Failure) {
        match failure {
            Failure::Bus(error) if error.is_damage() => self.state.found(self.pipeline.as_str(), error),
            failure => self.serving.failed(failure),
        }
    }
}

/// A stage or attempt in flight to STAGES.
struct Opened {
    settles: Vec<Handle>,
    bytes: usize,
}

type Storing = BoxFuture<'static, (Vec<Ready>, Result<Log, BusError>)>;

pub(crate) struct Active<'a> {
    bus: &'a Bus,
    name: &'a PipelineId,
    metrics: &'a Metrics,
    pipelines: Pipelines,
    known: Facts<KnownBlock>,
    blobs: Blobs,
    results: Deliveries<ResultEvent>,
    core: Option<Collector>,
    output: Option<Output>,
    outbox: Outbox<Opened>,
    opened_bytes: usize,
    recall: Recall,
    looking: Looking,
    gate: Gate,
    emitter: Emitter,
    emitting: Option<Storing>,
    ticks: u32,
    /// The definition that the last result named.
    definition: Option<Arc<Pipeline>>,
    /// Whether the next tick continues to look up blocks without results.
    looks_on: bool,
}

impl<'a> Active<'a> {
    async fn start(bus: &'a Bus, name: &'a PipelineId, metrics: &'a Metrics) -> Result<Self, BusError> {
        let (output, last_sequence) = bus.output(name).await?.unzip();
        let replay = Replay {
            stream: Stream::Results,
            consumer: format!("collector-{name}"),
            filters: subject::results_of_pipeline(name),
        };
        let refusals = Refusals::new(name.clone(), metrics.refused.clone());
        let unreadable = refusals.clone();
        let results = bus.replay(&replay).await?;
        Ok(Self {
            gate: Gate::start(bus, refusals).await?,
            pipelines: Pipelines::bind(bus).await?,
            known: bus.facts(Bucket::Blocks).await?,
            blobs: bus.blobs(),
            results: results.dropping(move |subject, error| unreadable.drops(subject, error)),
            core: None,
            emitter: Emitter::new(bus.clone(), name, last_sequence.unwrap_or(0)),
            output,
            outbox: Outbox::new(bus.clone(), PATIENCE),
            opened_bytes: 0,
            recall: Recall::new(bus.clone()),
            looking: Looking::default(),
            emitting: None,
            ticks: 0,
            definition: None,
            looks_on: false,
            bus,
            name,
            metrics,
        })
    }

    async fn serve(mut self) -> Result<Infallible, BusError> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let room = self.outbox.len() < IN_FLIGHT_MAX && self.opened_bytes < IN_FLIGHT_BYTES_MAX;
            tokio::select! {
                biased;
                (records, stored) = emitting(&mut self.emitting) => self.emitted(records, stored?).await?,
                (opened, stored) = self.outbox.next() => {
                    self.opened_bytes -= opened.bytes;
                    match stored {
                        Ok(_) | Err(PublishError::Occupied { .. }) => self.acknowledge(opened.settles).await,
                        Err(error) => return Err(error.into()),
                    }
                }
                (handle, read) = self.recall.next() => self.recalled(handle, read?).await?,
                found = self.looking.found() => self.looked(found),
                _ = tick.tick() => self.tick().await?,
                delivery = self.results.next(), if room => self.receive(delivery?).await?,
            }
            if self.emitting.is_none() {
                self.emitting = self.emitter.batch().map(|batch: Batch| batch.store().boxed());
            }
        }
    }

    async fn receive(&mut self, delivery: Delivery<ResultEvent, ()>) -> Result<(), BusError> {
        let handle = Handle(delivery.sequence);
        let is_believed = match &delivery.body {
            ResultEvent::Attempt(result) => self.gate.admits(&delivery.subject, result).await?,
            ResultEvent::Ended(_) => self.gate.admits_end(&delivery.subject),
        };
        if !is_believed {
            self.results.done(delivery.sequence).await;
            return Ok(());
        }
        let known = self.core.is_some();
        let Some(core) = core(
            &mut self.core,
            self.name,
            &self.output,
            (self.bus, &self.pipelines, &self.known),
        )
        .await?
        else {
            return self
                .refuse(&delivery, "no block of this pipeline was ever observed")
                .await;
        };
        if !known {
            tracing::info!(pipeline = %self.name, next = core.next(), "first block to emit");
            self.metrics.emits_next(self.name, core.next());
        }
        if !core.is_new(handle) {
            return Ok(());
        }
        let steps = match delivery.body {
            ResultEvent::Ended(ended) => core.end(handle, ended),
            ResultEvent::Attempt(ref result) => {
                let revision = result.header.context.revision;
                let Some(pipeline) = self.pipelines.named(self.name, revision).await? else {
                    return self
                        .refuse(
                            &delivery,
                            &format!("pipeline `{}` never had a revision {revision}", self.name),
                        )
                        .await;
                };
                // The collector that led before has counted a replayed result.
                if !self.results.is_replay() {
                    self.metrics.ended(result);
                }
                if self.definition.is_none() {
                    self.metrics.scores(&pipeline);
                }
                self.definition = Some(pipeline.clone());
                let told = Told {
                    verified: Kind::of(&delivery.subject) == Some(Kind::Verdict),
                    stored_at: delivery.stored_at,
                    amends: core.asks_to_amend(result) && is_dead(self.bus, result).await?,
                };
                core.result(handle, result.clone(), told, &delivery.trace, &pipeline)
            }
        };
        self.perform(steps).await?;
        // During replay, a step that seems due may have been taken already.
        if self.results.to_replay() == 0 {
            self.advance().await
        } else {
            Ok(())
        }
    }

    async fn refuse(&mut self, delivery: &Delivery<ResultEvent, ()>, reason: &str) -> Result<(), BusError> {
        let letters = DeadLetters::new(self.bus.clone());
        letters
            .refused(Stream::Results, &delivery.subject, delivery.sequence, reason)
            .await?;
        self.results.done(delivery.sequence).await;
        Ok(())
    }

    async fn tick(&mut self) -> Result<(), BusError> {
        let pending = i64::try_from(self.results.held()).unwrap_or(i64::MAX);
        self.metrics
            .pending
            .with_label_values(&[self.name.as_str()])
            .set(pending);
        let Some(core) = &mut self.core else { return Ok(()) };
        if self.results.to_replay() > 0 {
            return Ok(());
        }
        core.tick(now());
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(COUNT_EVERY)
            && let Some(definition) = &self.definition
        {
            let held = core.held_proofs(now().minus(STUCK_AFTER));
            self.metrics.held(definition, &held);
        }
        if self.ticks.is_multiple_of(LOOK_EVERY) || self.looks_on {
            self.looks_on = self.look().await?;
            self.look_for_lost_ranges();
        }
        self.advance().await
    }

    /// Looks up blocks that were given up before any result came, each in its turn. Returns whether there
    /// may be more.
    async fn look(&mut self) -> Result<bool, BusError> {
        for _ in 0..LOOKS_AT_ONCE {
            let Some(core) = &mut self.core else { break };
            let Some(number) = core.unseen_end() else {
                return Ok(false);
            };
            let known = known_at(&self.known, self.name, number).await?;
            if known.is_empty() {
                return Ok(false);
            }
            for (block, stored_at) in known {
                core.known(&block, stored_at);
            }
            self.advance().await?;
        }
        Ok(true)
    }

    async fn advance(&mut self) -> Result<(), BusError> {
        let Some(core) = &mut self.core else { return Ok(()) };
        let (pipelines, name) = (&self.pipelines, self.name);
        let steps = core.advance(now(), |revision| -> Option<Arc<Pipeline>> {
            pipelines.cached(name, revision)
        });
        self.perform(steps).await
    }

    async fn perform(&mut self, steps: Vec<Step>) -> Result<(), BusError> {
        let spans = self.core.as_mut().map(Collector::take_spans);
        trace::write(spans.unwrap_or_default());
        for step in steps {
            match step {
                Step::Ack(handles) => self.acknowledge(handles).await,
                Step::Open(opening, handles) => {
                    let message = self.opening(*opening).await?;
                    let bytes = message.len();
                    self.opened_bytes += bytes;
                    let settles = handles;
                    self.outbox.push(message, Opened { settles, bytes });
                }
                Step::Bury(mut letter, trace) => {
                    let mut number = None;
                    if let Dead::Task { retry, .. } = &mut letter.what {
                        self.shorten(retry).await?;
                        number = Some(retry.stage.block.number);
                    }
                    tracing::warn!(
                        pipeline = %self.name,
                        block.number = number,
                        dead_letter.id = letter.id,
                        reason = letter.reason,
                        trace_id = trace.id().map(display),
                        "given up: a dead letter keeps the cause, and `push0 dead retry` tries again"
                    );
                    DeadLetters::new(self.bus.clone())
                        .store(Some(self.name), &letter, &trace)
                        .await?;
                }
                Step::Emit(emission, traces, handles, ready_at) => self.emitter.push(Ready {
                    emission,
                    traces,
                    handles,
                    ready_at,
                }),
                Step::Recall(handles) => self.recall.push(handles),
            }
        }
        Ok(())
    }

    async fn opening(&mut self, opening: Opening) -> Result<Message, BusError> {
        let Opening { mut ready, trace } = opening;
        self.shorten(&mut ready).await?;
        let key = AttemptKey::of(
            &ready.zkvm,
            &ready.stage.task(ready.tasks.first).attempt(ready.attempt),
        );
        let subject = subject::stage(&key);
        match Message::new(subject.clone(), &ready, &trace) {
            Ok(message) => Ok(message.claiming::<StageReady>(Stream::Stages, ready.claim())),
            Err(source) => Err(BusError::Corrupt {
                what: subject,
                source,
            }),
        }
    }

    /// Stores a list of inputs that is too long for a message.
    async fn shorten(&mut self, ready: &mut StageReady) -> Result<(), BusError> {
        if let Payloads::List(inputs) = &mut ready.inputs {
            let (pipeline, number) = (&ready.stage.pipeline, ready.stage.block.number);
            let blobs = self.blobs.of_service(Service::Collector, pipeline, number);
            let inputs = blobs.list(std::mem::take(inputs)).await;
            ready.inputs = inputs.map_err(|e| BusError::Unavailable {
                what: format!("inputs of {}", ready.stage),
                reason: e.to_string(),
            })?;
        }
        Ok(())
    }

    async fn acknowledge(&mut self, handles: Vec<Handle>) {
        for handle in handles {
            if self.results.holds(handle.0) {
                self.results.done(handle.0).await;
            }
        }
    }

    async fn emitted(&mut self, records: Vec<Ready>, log: Log) -> Result<(), BusError> {
        self.emitting = None;
        self.emitter.stored(log);
        let count = records.len();
        let stored_at = now();
        if let Some(core) = &mut self.core {
            core.recorded(count, stored_at);
        }
        for ready in records {
            self.metrics.emitted(&ready.emission, ready.ready_at, stored_at);
            self.acknowledge(ready.handles).await;
        }
        let steps = self.core.as_mut().map(|core| core.stored(count));
        self.perform(steps.unwrap_or_default()).await?;
        self.advance().await
    }

    /// Handles a message read again because a step needs its body.
    async fn recalled(&mut self, handle: Handle, read: Option<Kept<ResultEvent>>) -> Result<(), BusError> {
        let Some(core) = self.core.as_mut().filter(|core| core.waits_for(handle)) else {
            return Ok(());
        };
        let body = read.map(|kept| (kept.body, kept.subject, kept.stored_at, kept.trace));
        let Some((Ok(ResultEvent::Attempt(result)), subject, stored_at, trace)) = body else {
            tracing::warn!(
                pipeline = %self.name,
                sequence = handle.0,
                "an unacknowledged result is missing from PUSH0_RESULTS, starting over from stored state"
            );
            return Err(BusError::Interrupted);
        };
        let revision = result.header.context.revision;
        let Some(pipeline) = self.pipelines.named(self.name, revision).await? else {
            return Err(BusError::Interrupted);
        };
        let told = Told {
            verified: Kind::of(&subject) == Some(Kind::Verdict),
            stored_at,
            amends: false,
        };
        core.recalled(handle, result, told, &trace, &pipeline);
        if self.recall.is_due() {
            self.advance().await?;
        }
        Ok(())
    }
}

async fn emitting(emitting: &mut Option<Storing>) -> (Vec<Ready>, Result<Log, BusError>) {
    match emitting {
        Some(emitting) => emitting.await,
        None => std::future::pending().await,
    }
}

/// Returns the core, and creates it once the first block to emit is known: the one after the newest record,
/// or else the first block of the pipeline. Returns `None` if no block was ever observed.
async fn core<'a>(
    core: &'a mut Option<Collector>,
    name: &PipelineId,
    output: &Option<Output>,
    (bus, pipelines, known): (&Bus, &Pipelines, &Facts<KnownBlock>),
) -> Result<Option<&'a mut Collector>, BusError> {
    if core.is_none() {
        let output = match output {
            Some(output) => Some(output.clone()),
            None => start::first_number(bus, pipelines, known, name)
                .await?
                .map(|first| Output::new(first, BTreeMap::new())),
        };
        *core = output.map(|output| Collector::new(name.clone(), output.next(), output.emitted().clone()));
    }
    Ok(core.as_mut())
}

/// Returns whether the record of a result's block is dead.
async fn is_dead(bus: &Bus, result: &TaskResult) -> Result<bool, BusError> {
    let stage = &result.header.id.stage;
    let subject = subject::proof(&stage.pipeline, stage.block.number);
    let record = bus.last::<Emission>(Stream::Proofs, &subject).await?;
    let record = record.and_then(|kept| kept.body.ok());
    Ok(record.is_some_and(|r| {
        let same = r.last == stage.block && r.first == stage.first_block();
        same && matches!(r.outcome, EmissionOutcome::Dead { .. })
    }))
}
