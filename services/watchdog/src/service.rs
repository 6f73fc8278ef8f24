//! The shell: heartbeats in, reports, orders and hedges out.

use crate::{
    config::Config,
    decide::{Effect, End, Watchdog},
    metrics::Metrics,
    reputation::{Change, Quarantine, Reputation},
};
use push0_bus::{
    Backoff, Bucket, Bus, BusError, Facts, Leadership, Message, Pipelines, PublishError, Signals, Stream,
    Term, now,
};
use push0_domain::{
    ProverId,
    message::{
        BlockEnded, Control, Emission, EndReason, Failure, FailureClass, Happening, Held, Lease, Outcome,
        ProverState, ResultEvent, StageReady, Task, TaskRange, TaskResult,
    },
    pipeline::Rest,
    subject::{self, AttemptKey, Kind},
    trace::TraceContext,
};
use push0_runtime::{BoxError, Component, Service, trace};
use std::time::Duration;

/// How long a report is tried before the watchdog starts over from what is stored.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often silence, timeouts and deadlines are looked at: a tenth of a heartbeat.
const TICK: Duration = Duration::from_millis(25);
/// Every how many ticks the output's frontier is read, in case its signal was missed.
const RECONCILE_EVERY: u32 = 40;
/// Where quarantines are remembered.
const QUARANTINE: &str = "quarantine";

/// Runs the watchdog until it is asked to stop.
pub async fn run(service: Service<Config>) -> Result<(), BoxError> {
    let (broker, role) = (
        service.health.component("broker"),
        service.health.component("role"),
    );
    let metrics = Metrics::register()?;
    let bus = Bus::connect(&service.config.nats, "watchdog").await?;
    let mut backoff = Backoff::default();
    loop {
        let error = tokio::select! {
            () = service.shutdown.requested() => break,
            ended = session(&bus, &service.config, &metrics, &broker, &role) => match ended {
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

async fn session(
    bus: &Bus,
    config: &Config,
    metrics: &Metrics,
    broker: &Component,
    role: &Component,
) -> Result<(), BusError> {
    bus.connected().await;
    bus.check_provisioned().await?;
    broker.ready();
    role.ready();
    let mut term = Leadership::candidate(bus, "watchdog").await?.win().await?;
    tracing::info!("this watchdog is the active one");
    metrics.leading.set(1);
    let ended = match Active::start(bus, config, metrics).await {
        Ok(active) => active.serve(&mut term).await,
        Err(error) => Err(error),
    };
    metrics.leading.set(0);
    term.resign().await;
    ended
}

struct Active<'a> {
    bus: &'a Bus,
    metrics: &'a Metrics,
    pipelines: Pipelines,
    core: Watchdog,
    reputation: Reputation,
    quarantines: Facts<Quarantine>,
    signals: Signals,
}

impl<'a> Active<'a> {
    async fn start(bus: &'a Bus, config: &Config, metrics: &'a Metrics) -> Result<Self, BusError> {
        let heard = [Kind::Lease, Kind::Result, Kind::Verdict, Kind::Ended, Kind::Proof].map(subject::all);
        let signals = bus.listen(heard).await?;
        let mut active = Self {
            pipelines: Pipelines::bind(bus).await?,
            core: Watchdog::default(),
            reputation: Reputation::new(config.quarantine),
            quarantines: bus.facts(Bucket::State).await?,
            signals,
            bus,
            metrics,
        };
        active.recall().await?;
        Ok(active)
    }

    /// Learns who was there and who was not to work, from what is stored.
    async fn recall(&mut self) -> Result<(), BusError> {
        let bus = self.bus;
        for fact in self.quarantines.list(&format!("{QUARANTINE}.*")).await? {
            let prover = fact.key.split_once('.').and_then(|(_, id)| id.parse().ok());
            if let (Some(prover), Some(quarantine)) = (prover, fact.value) {
                self.reputation.recall(prover, quarantine, now());
            }
        }
        // A prover that died while no watchdog watched is silent from now on, like any other.
        for (subject, _) in bus.subjects(Stream::Leases, &subject::all(Kind::Lease)).await? {
            if let Some(Ok(lease)) = bus
                .last::<Lease>(Stream::Leases, &subject)
                .await?
                .map(|kept| kept.body)
            {
                self.core.recall(lease, now());
            }
        }
        Ok(())
    }

    async fn serve(mut self, term: &mut Term) -> Result<(), BusError> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks = 0_u32;
        let (interrupted, held) = (self.bus.interrupted(), term.hold());
        let (mut interrupted, mut held) = (std::pin::pin!(interrupted), std::pin::pin!(held));
        loop {
            // Heartbeats before the clock: a watchdog that was held up must not take its own delay
            // for the silence of others.
            let effects = tokio::select! {
                biased;
                () = &mut held => return Ok(()),
                () = &mut interrupted => return Err(BusError::Interrupted),
                signal = self.signals.next() => {
                    let signal = signal?;
                    self.hear(&signal).await?
                }
                _ = tick.tick() => {
                    ticks = ticks.wrapping_add(1);
                    if ticks.is_multiple_of(RECONCILE_EVERY) {
                        self.reconcile().await?;
                    }
                    self.core.tick(now())
                }
            };
            for effect in effects {
                self.perform(effect).await?;
            }
            self.metrics
                .alive
                .set(i64::try_from(self.core.alive()).unwrap_or(i64::MAX));
        }
    }

    async fn hear(&mut self, signal: &push0_bus::Signal) -> Result<Vec<Effect>, BusError> {
        let effects = match Kind::of(signal.subject()) {
            Some(Kind::Result | Kind::Verdict) => match signal.body() {
                Ok(ResultEvent::Attempt(result)) => return self.attempt_ended(&result).await,
                _ => Vec::new(),
            },
            Some(Kind::Lease) => match signal.body::<Lease>() {
                Ok(lease) => {
                    self.remind(&lease).await?;
                    self.core.heard(lease, now())
                }
                Err(_) => Vec::new(),
            },
            Some(Kind::Ended) => match signal.body() {
                Ok(ResultEvent::Ended(ended)) => self.core.ended(&ended, now()),
                _ => Vec::new(),
            },
            Some(Kind::Proof) => match signal.body::<Emission>() {
                Ok(record) => self.core.emitted(&record, now()),
                Err(_) => Vec::new(),
            },
            _ => Vec::new(),
        };
        Ok(effects)
    }

    /// The end of an attempt tells about its prover; and one that was accepted makes other copies of
    /// its task superfluous.
    async fn attempt_ended(&mut self, result: &TaskResult) -> Result<Vec<Effect>, BusError> {
        let header = &result.header;
        if matches!(result.outcome, Outcome::Completed { .. }) {
            self.core.over(&result.prover, header.attempt_id());
        }
        let invalid = result
            .verdict
            .as_ref()
            .is_some_and(|verdict| verdict.invalid.is_some());
        let class = match &result.outcome {
            Outcome::Failed(failure) => failure.class,
            Outcome::Completed { .. } if invalid => FailureClass::InvalidProof,
            Outcome::Completed { .. } if header.check && result.verdict.is_none() => {
                return Ok(Vec::new());
            }
            Outcome::Completed { .. } => {
                let effects = self.core.accepted(&header.id, header.attempt, now());
                let fleet = self.core.fleet(&header.zkvm);
                let changes = self
                    .reputation
                    .completed(&header.id, &result.prover, &fleet, now());
                self.note(changes).await?;
                return Ok(effects);
            }
        };
        let fleet = self.core.fleet(&header.zkvm);
        let changes = self
            .reputation
            .failed(&header.id, &result.prover, class, &fleet, now());
        self.note(changes).await?;
        Ok(Vec::new())
    }

    /// Stores quarantines that begin or end early, announces them and tells their provers.
    async fn note(&mut self, changes: Vec<Change>) -> Result<(), BusError> {
        for change in changes {
            let (Change::Begun(prover, quarantine) | Change::Ended(prover, quarantine)) = &change;
            self.quarantines
                .put(&format!("{QUARANTINE}.{prover}"), quarantine)
                .await?;
            let Quarantine { until, times, reason } = quarantine.clone();
            tracing::warn!(prover.id = %prover, reason, times, until = ?until, "quarantine");
            self.tell(prover, until.since(now()), &reason).await?;
            let prover = prover.clone();
            let (act, happening) = match change {
                Change::Begun(..) => (
                    "quarantined",
                    Happening::QuarantineBegun {
                        prover,
                        until,
                        times,
                        reason,
                    },
                ),
                Change::Ended(..) => ("released", Happening::QuarantineEnded { prover, reason }),
            };
            self.metrics.acts.with_label_values(&[act]).inc();
            // Before it is announced: whoever hears of it may look at once.
            self.count_resting();
            self.bus.announce(None, happening);
        }
        Ok(())
    }

    /// Ends quarantines that have run out, or that leave nobody to work.
    async fn end_quarantines(&mut self) -> Result<(), BusError> {
        for zkvm in self.core.zkvms() {
            let change = self.reputation.relieve(&self.core.fleet(&zkvm), now());
            self.note(change.into_iter().collect()).await?;
        }
        for prover in self.reputation.over(now()) {
            let reason = "its time is over".to_owned();
            self.bus
                .announce(None, Happening::QuarantineEnded { prover, reason });
        }
        self.count_resting();
        Ok(())
    }

    fn count_resting(&self) {
        let resting = self.reputation.resting(now());
        self.metrics
            .quarantined
            .set(i64::try_from(resting).unwrap_or(i64::MAX));
    }

    /// A prover that takes work although it should not has not heard of it, or has restarted.
    async fn remind(&mut self, lease: &Lease) -> Result<(), BusError> {
        let rests = match lease.state {
            ProverState::Active => false,
            ProverState::Quarantined => true,
            ProverState::Draining => return Ok(()),
        };
        match self.reputation.remind(&lease.prover, rests, now()) {
            Some((left, reason)) => self.tell(&lease.prover, left, &reason).await,
            None => Ok(()),
        }
    }

    async fn tell(&self, prover: &ProverId, left: Duration, reason: &str) -> Result<(), BusError> {
        let order = Control::Quarantine {
            for_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            reason: reason.to_owned(),
        };
        self.publish(subject::control(prover), &order, &TraceContext::default())
            .await
    }

    /// Reads how outputs stand, in case a signal was missed.
    async fn reconcile(&mut self) -> Result<(), BusError> {
        self.end_quarantines().await?;
        for pipeline in self.core.pipelines() {
            if !self.core.knows(&pipeline) {
                if let Some((output, _)) = self.bus.output(&pipeline).await? {
                    self.core.recall_output(&pipeline, output);
                }
                continue;
            }
            let subjects = subject::proofs_of_pipeline(&pipeline);
            let last = self.bus.last::<Emission>(Stream::Proofs, &subjects).await?;
            if let Some(Ok(record)) = last.map(|kept| kept.body) {
                for effect in self.core.emitted(&record, now()) {
                    self.perform(effect).await?;
                }
            }
        }
        Ok(())
    }

    async fn perform(&mut self, effect: Effect) -> Result<(), BusError> {
        let act = match effect {
            Effect::Report { prover, held, end } => return self.report(prover, &held, end).await,
            Effect::Announce(happening) => {
                let lost = matches!(happening, Happening::ProverLost { .. });
                self.bus.announce(None, happening);
                // It may have been the last one that worked.
                return if lost {
                    self.end_quarantines().await
                } else {
                    Ok(())
                };
            }
            Effect::Hedge { prover, held } => return self.hedge(prover, &held).await,
            Effect::GiveBack(held) => {
                self.bus.ack_of(&held.ack_subject).give_back(Duration::ZERO).await;
                "given-back"
            }
            Effect::Stop {
                prover,
                attempt,
                reason,
            } => {
                let stage = &attempt.task.stage;
                if reason == crate::decide::Reason::Emitted && self.finishes(&stage.pipeline).await? {
                    return Ok(());
                }
                let order = Control::Stop {
                    attempt,
                    reason: reason.as_str().into(),
                };
                self.publish(subject::control(&prover), &order, &TraceContext::default())
                    .await?;
                "stopped"
            }
            Effect::Late(pipeline, block, announced_at) => {
                let ended = BlockEnded {
                    pipeline: pipeline.clone(),
                    first: block.number,
                    last: block.number,
                    hashes: vec![block.hash],
                    // By this clock it may be earlier than by the one that dated the announcement.
                    at: now().max(announced_at),
                    reason: EndReason::DeadlinePassed,
                };
                self.publish(
                    subject::ended(&pipeline),
                    &ResultEvent::Ended(ended),
                    &TraceContext::default(),
                )
                .await?;
                "late"
            }
        };
        self.metrics.acts.with_label_values(&[act]).inc();
        Ok(())
    }

    /// Whether a pipeline lets superfluous proofs finish.
    async fn finishes(&self, pipeline: &push0_domain::PipelineId) -> Result<bool, BusError> {
        let current = self.pipelines.current_of(pipeline).await?;
        Ok(current.is_some_and(|p| p.rest == Rest::Finish))
    }

    /// The task as it lies in TASKS; none if it was acknowledged, and so is somebody else's business.
    async fn task(&self, held: &Held) -> Result<Option<Task>, BusError> {
        let key = AttemptKey::of(&held.header.zkvm, &held.header.attempt_id());
        let kept = self.bus.last::<Task>(Stream::Tasks, &subject::task(&key)).await?;
        Ok(kept.and_then(|kept| kept.body.ok()))
    }

    /// Writes the end of an attempt in place of its prover, then takes its delivery away: in this
    /// order, so that a crash in between costs a second run and never the task.
    async fn report(&self, prover: ProverId, held: &Held, end: End) -> Result<(), BusError> {
        let Some(task) = self.task(held).await? else {
            return Ok(());
        };
        let (class, message, act) = match end {
            End::Silent(silent) => (FailureClass::Died, format!("silent for {silent:?}"), "died"),
            End::Restarted => (FailureClass::Died, "restarted".to_owned(), "died"),
            End::Hung => (
                FailureClass::TimedOut,
                format!("hung after {} ms", held.header.timeout_ms),
                "timed-out",
            ),
        };
        let span = tracing::info_span!(
            "reassign",
            block.number = held.header.id.stage.block.number,
            task.id = %held.header.id,
            attempt = held.header.attempt,
            prover.id = %prover,
            outcome = class.as_str(),
        );
        trace::set_parent(&span, &held.trace);
        tracing::warn!(parent: &span, reason = message, "attempt lost");
        let key = AttemptKey::of(&held.header.zkvm, &held.header.attempt_id());
        let result = TaskResult {
            header: task.header,
            prover,
            outcome: Outcome::Failed(Failure::new(class, message)),
            inputs: Some(task.inputs),
            prove_us: held.running_ms.unwrap_or(0) * 1000,
            verdict: None,
        };
        let context = trace::context(&span, &held.trace);
        self.publish(subject::result(&key), &ResultEvent::Attempt(result), &context)
            .await?;
        self.bus.ack_of(&held.ack_subject).done().await;
        self.metrics.acts.with_label_values(&[act]).inc();
        Ok(())
    }

    async fn hedge(&self, prover: ProverId, held: &Held) -> Result<(), BusError> {
        let Some(task) = self.task(held).await? else {
            return Ok(());
        };
        let header = task.header;
        let ready = StageReady {
            tasks: TaskRange {
                first: header.id.index,
                count: 1,
                of: header.of,
            },
            stage: header.id.stage.clone(),
            attempt: header.attempt + 1,
            hedge_of: Some(header.attempt),
            avoid: vec![prover],
            inputs: task.inputs,
            busy_us: header.busy_us,
            context: header.context,
        };
        let key = AttemptKey::of(&header.zkvm, &header.id.attempt(ready.attempt));
        self.publish(subject::stage(&key), &ready, &held.trace).await?;
        self.metrics.acts.with_label_values(&["hedged"]).inc();
        Ok(())
    }

    async fn publish<T: serde::Serialize>(
        &self,
        subject: String,
        body: &T,
        trace: &TraceContext,
    ) -> Result<(), BusError> {
        let message = Message::new(subject.clone(), body, trace);
        let message = message.map_err(|source| BusError::Corrupt {
            what: subject,
            source,
        })?;
        match self.bus.publish_patiently(message, PATIENCE).await {
            // Asked for before: all is well.
            Ok(_) | Err(PublishError::Occupied { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
