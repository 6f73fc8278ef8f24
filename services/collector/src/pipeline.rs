//! The shell of one pipeline: tells the session of results, answers and ticks, and carries out its operations.

use crate::{
    decide::{Collector, Opening, Told},
    emit::{Appending, append},
    gate::{Gate, Refusals},
    intake::Handle,
    known::known_at,
    looking::Looking,
    metrics::Metrics,
    session::{Found, Op, Report, Session, Stale, Token, is_dead},
    start,
};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use push0_bus::{
    Blobs, Bucket, Bus, BusError, DeadLetters, Deliveries, Delivery, Duty, Facts, Failure, Kept, Log,
    Message, Outbox, Pipelines, PublishError, Replay, Service, Stream, now,
};
use push0_domain::{
    Payloads, PipelineId,
    message::{Dead, DeadLetter, Emission, KnownBlock, ResultEvent, StageReady, TaskResult},
    output::Output,
    pipeline::Pipeline,
    subject::{self, AttemptKey, Kind},
    trace::TraceContext,
    wanted::Claims,
};
use push0_runtime::{Serving, UnreadableState, trace};
use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

/// How long a publish is retried before the pipeline starts over from stored state.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often deadlines are checked.
const TICK: Duration = Duration::from_millis(50);

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

/// A result being read again, as `None` if the stream does not hold it any more.
type Reading = BoxFuture<'static, (Handle, Result<Option<Kept<ResultEvent>>, BusError>)>;

pub(crate) struct Active<'a> {
    bus: &'a Bus,
    name: &'a PipelineId,
    metrics: &'a Metrics,
    pipelines: Pipelines,
    known: Facts<KnownBlock>,
    blobs: Blobs,
    results: Deliveries<ResultEvent>,
    output: Option<Output>,
    outbox: Outbox<Token>,
    reading: FuturesUnordered<Reading>,
    looking: Looking,
    gate: Gate,
    log: Log,
    appending: Option<Appending>,
    /// The definition that the last result named.
    definition: Option<Arc<Pipeline>>,
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
        let records = subject::proofs_of_pipeline(name);
        Ok(Self {
            gate: Gate::start(bus, refusals).await?,
            pipelines: Pipelines::bind(bus).await?,
            known: bus.facts(Bucket::Blocks).await?,
            blobs: bus.blobs(),
            results: results.dropping(move |subject, error| unreadable.drops(subject, error)),
            output,
            outbox: Outbox::new(bus.clone(), PATIENCE),
            reading: FuturesUnordered::new(),
            looking: Looking::default(),
            log: Log::new(bus.clone(), Stream::Proofs, records, last_sequence.unwrap_or(0)),
            appending: None,
            definition: None,
            bus,
            name,
            metrics,
        })
    }

    async fn serve(mut self) -> Result<Infallible, BusError> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut session = loop {
            let delivery = tokio::select! {
                biased;
                _ = tick.tick() => {
                    self.show_pending();
                    continue;
                }
                delivery = self.results.next() => delivery?,
            };
            if self.believes(&delivery).await?
                && let Some(mut session) = self.begin(&delivery).await?
            {
                self.tell(delivery, &mut session).await?;
                break session;
            }
        };
        loop {
            self.perform(&mut session).await?;
            tokio::select! {
                biased;
                appended = appended(&mut self.appending) => self.appended(appended, &mut session)?,
                (token, stored) = self.outbox.next() => match stored {
                    Ok(_) | Err(PublishError::Occupied { .. }) => session.opened(token),
                    Err(error) => return Err(error.into()),
                },
                Some((handle, read)) = self.reading.next() => session.recalled(handle, report(read?), now()),
                // The next look makes up for one that failed.
                found = self.looking.found() => if let Ok(found) = found {
                    self.looked(&found, &mut session);
                },
                _ = tick.tick() => {
                    self.show_pending();
                    session.replays(self.results.to_replay() > 0);
                    session.tick(now());
                }
                delivery = self.results.next(), if session.has_room() => {
                    let delivery = delivery?;
                    if self.believes(&delivery).await? {
                        self.tell(delivery, &mut session).await?;
                    }
                }
            }
        }
    }

    fn show_pending(&self) {
        let pending = i64::try_from(self.results.held()).unwrap_or(i64::MAX);
        self.metrics
            .pending
            .with_label_values(&[self.name.as_str()])
            .set(pending);
    }

    /// Begins a session for its first result, once the first block to emit is known: the one after the newest
    /// record, or else the first block of the pipeline. Refuses the result if no block was ever observed.
    async fn begin(&mut self, first: &Delivery<ResultEvent, ()>) -> Result<Option<Session>, BusError> {
        if self.output.is_none() {
            let number = start::first_number(self.bus, &self.pipelines, &self.known, self.name).await?;
            self.output = number.map(|number| Output::new(number, BTreeMap::new()));
        }
        let Some(output) = &self.output else {
            let reason = "no block of this pipeline was ever observed";
            self.refuse(&first.subject, first.sequence, reason).await?;
            return Ok(None);
        };
        let next = output.next();
        tracing::info!(pipeline = %self.name, next, "first block to emit");
        self.metrics.emits_next(self.name, next);
        let core = Collector::new(self.name.clone(), next, output.emitted().clone());
        Ok(Some(Session::new(core)))
    }

    /// Returns whether a message is to be believed, and acknowledges it otherwise.
    async fn believes(&mut self, delivery: &Delivery<ResultEvent, ()>) -> Result<bool, BusError> {
        let is_believed = match &delivery.body {
            ResultEvent::Attempt(result) => self.gate.admits(&delivery.subject, result).await?,
            ResultEvent::Ended(_) => self.gate.admits_end(&delivery.subject),
        };
        if !is_believed {
            self.results.done(delivery.sequence).await;
        }
        Ok(is_believed)
    }

    /// Tells the session of a message, with the stored facts about it.
    async fn tell(
        &mut self,
        delivery: Delivery<ResultEvent, ()>,
        session: &mut Session,
    ) -> Result<(), BusError> {
        session.replays(self.results.to_replay() > 0);
        let handle = Handle(delivery.sequence);
        let result = match delivery.body {
            ResultEvent::Attempt(result) => result,
            ResultEvent::Ended(ended) => {
                session.end(handle, ended, now());
                return Ok(());
            }
        };
        let revision = result.header.context.revision;
        let Some(pipeline) = self.pipelines.named(self.name, revision).await? else {
            let reason = format!("pipeline `{}` never had a revision {revision}", self.name);
            return self.refuse(&delivery.subject, delivery.sequence, &reason).await;
        };
        // The collector that led before has counted a replayed result.
        if !self.results.is_replay() {
            self.metrics.ended(&result);
        }
        if self.definition.is_none() {
            self.metrics.scores(&pipeline);
        }
        self.definition = Some(pipeline.clone());
        let told = Told {
            verified: Kind::of(&delivery.subject) == Some(Kind::Verdict),
            stored_at: delivery.stored_at,
            amends: session.asks_to_amend(&result) && self.is_dead(&result).await?,
        };
        let trace = delivery.trace;
        session.result(handle, Report { result, told, trace }, &pipeline, now());
        Ok(())
    }

    /// Returns whether the record of a result's block is dead.
    async fn is_dead(&self, result: &TaskResult) -> Result<bool, BusError> {
        let stage = &result.header.id.stage;
        let subject = subject::proof(&stage.pipeline, stage.block.number);
        let newest = self.bus.last::<Emission>(Stream::Proofs, &subject).await?;
        let newest = newest.and_then(|kept| kept.body.ok());
        Ok(newest.is_some_and(|newest| is_dead(&newest, result)))
    }

    async fn refuse(&mut self, subject: &str, sequence: u64, reason: &str) -> Result<(), BusError> {
        let letters = DeadLetters::new(self.bus.clone());
        letters
            .refused(Stream::Results, subject, sequence, reason)
            .await?;
        self.results.done(sequence).await;
        Ok(())
    }

    fn appended(&mut self, log: Result<Log, PublishError>, session: &mut Session) -> Result<(), BusError> {
        self.appending = None;
        match log {
            Ok(log) => {
                self.log = log;
                let stored_at = now();
                for ready in session.batch() {
                    self.metrics.emitted(&ready.emission, ready.ready_at, stored_at);
                }
                session.recorded(stored_at);
            }
            Err(PublishError::Unexpected { .. }) => session.overtaken(),
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn looked(&self, found: &Found, session: &mut Session) {
        for range in session.ranges_looked(found, self.results.read_to(), now()) {
            tracing::warn!(
                pipeline = %self.name, block.number = range.number, block.first = range.first(),
                "the work of a range is lost: a prover took a task away and gave no result. The range is begun anew"
            );
            self.metrics.lost.with_label_values(&[self.name.as_str()]).inc();
        }
    }

    /// Carries out the operations of the session, in their order.
    async fn perform(&mut self, session: &mut Session) -> Result<(), BusError> {
        trace::write(session.take_spans());
        while let Some(op) = session.next_op() {
            match op {
                Op::Ack(handles) => self.acknowledge(handles).await,
                Op::Open(opening, token) => {
                    let message = self.opening(*opening).await?;
                    session.weighs(token, message.len());
                    self.outbox.push(message, token);
                }
                Op::Bury(letter, trace) => self.bury(*letter, &trace).await?,
                Op::Append => self.appending = Some(append(self.log.clone(), session.batch())?),
                Op::Read(handle) => {
                    let bus = self.bus.clone();
                    let read = async move { (handle, bus.at(Stream::Results, handle.0).await) };
                    self.reading.push(read.boxed());
                }
                Op::Look(number) => {
                    let known = known_at(&self.known, self.name, number).await?;
                    session.known(&known, now());
                }
                Op::LookForRanges(ranges) => self.looking.begin(self.bus, self.name, ranges),
                Op::Show(held) => {
                    if let Some(definition) = &self.definition {
                        self.metrics.held(definition, &held);
                    }
                }
                Op::StartOver(stale) => {
                    if let Stale::Result(handle) = stale {
                        tracing::warn!(
                            pipeline = %self.name,
                            sequence = handle.0,
                            "an unacknowledged result is missing from PUSH0_RESULTS, starting over from stored state"
                        );
                    }
                    return Err(BusError::Interrupted);
                }
            }
        }
        Ok(())
    }

    async fn bury(&mut self, mut letter: DeadLetter, trace: &TraceContext) -> Result<(), BusError> {
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
        let letters = DeadLetters::new(self.bus.clone());
        letters.store(Some(self.name), &letter, trace).await
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
}

async fn appended(appending: &mut Option<Appending>) -> Result<Log, PublishError> {
    match appending {
        Some(appending) => appending.await,
        None => std::future::pending().await,
    }
}

/// Reads a message of RESULTS that holds the end of an attempt.
fn report(read: Option<Kept<ResultEvent>>) -> Option<Report> {
    let read = read?;
    let Ok(ResultEvent::Attempt(result)) = read.body else {
        return None;
    };
    let told = Told {
        verified: Kind::of(&read.subject) == Some(Kind::Verdict),
        stored_at: read.stored_at,
        amends: false,
    };
    let trace = read.trace;
    Some(Report { result, told, trace })
}
