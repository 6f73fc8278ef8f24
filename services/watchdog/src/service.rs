//! The shell: heartbeats in, reports, orders and hedges out.

mod act;
mod quarantine;

use crate::{
    config::Config,
    copies::Copies,
    decide::{Effect, Watchdog},
    metrics::Metrics,
    reputation::{Quarantine, Reputation},
};
use push0_bus::{Backoff, Bucket, Bus, BusError, Facts, Leadership, Pipelines, Signals, Stream, Term, now};
use push0_domain::{
    message::{Emission, FailureClass, Lease, Outcome, ResultEvent, TaskResult},
    subject::{self, Kind},
};
use push0_runtime::{BoxError, Component, Service};
use quarantine::QUARANTINE;
use serde::de::IgnoredAny;
use std::time::Duration;

/// The role of the active watchdog.
const ROLE: &str = "watchdog";
/// How often silence, timeouts and deadlines are looked at: a tenth of a heartbeat.
const TICK: Duration = Duration::from_millis(25);
/// How much of a tick the watchdog sleeps, thread and all. It hears how every attempt ends, and nothing of
/// it is urgent: waiting, it would be woken for each, on a core that the block's next step needs at that
/// very moment. Asleep, it finds what came all at once.
const REST: Duration = Duration::from_millis(20);
const _: () = assert!(
    REST.as_millis() < TICK.as_millis(),
    "what came is read before the clock"
);
/// Every how many ticks the output's frontier is read, in case its signal was missed.
const RECONCILE_EVERY: u32 = 40;

/// Runs the watchdog until it is asked to stop.
pub async fn run(service: Service<Config>) -> Result<(), BoxError> {
    let broker = service.health.component("broker");
    let permissions = service.health.component("permissions").reporter();
    let role = service.health.role(ROLE)?;
    let losses = role.losses;
    let metrics = Metrics::register()?;
    let copies = Copies::register()?;
    let bus = Bus::connect_reporting(&service.config.nats, "watchdog", permissions).await?;
    let candidate =
        Leadership::candidate(&bus, ROLE).watched(move || losses.inc(), role.component.reporter());
    let mut watched = std::pin::pin!(copies.watch(&bus));
    let mut backoff = Backoff::default();
    loop {
        let error = tokio::select! {
            () = service.shutdown.requested() => break,
            never = &mut watched => match never {},
            ended = bus.permitted(session(&bus, &candidate, &service.config, &metrics, &broker)) => match ended {
                Ok(()) => continue,
                Err(error) => error,
            },
        };
        metrics.leading.set(0);
        broker.not_ready(error.to_string());
        tracing::warn!(%error, "starting over from what is stored");
        tokio::select! {
            () = service.shutdown.requested() => break,
            never = &mut watched => match never {},
            () = backoff.pause() => {}
        }
    }
    bus.flush().await;
    Ok(())
}

async fn session(
    bus: &Bus,
    candidate: &Leadership,
    config: &Config,
    metrics: &Metrics,
    broker: &Component,
) -> Result<(), BusError> {
    bus.connected().await;
    bus.check_provisioned().await?;
    broker.ready();
    let mut term = candidate.win().await?;
    tracing::info!("this watchdog is the active one");
    metrics.leading.set(1);
    let ended = match term.during(Active::start(bus, config, metrics)).await {
        Ok(active) => active.serve(&mut term).await,
        Err(error) => Err(error),
    };
    metrics.leading.set(0);
    term.resign().await;
    ended
}

#[expect(
    clippy::disallowed_methods,
    reason = "that the thread does not run is the point, and nobody waits for it so long"
)]
fn rest() {
    std::thread::sleep(REST);
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
            let (effects, has_ticked) = tokio::select! {
                biased;
                () = &mut held => return Ok(()),
                () = &mut interrupted => return Err(BusError::Interrupted),
                signal = self.signals.next() => {
                    let signal = signal?;
                    (self.hear(&signal).await?, false)
                }
                _ = tick.tick() => {
                    ticks = ticks.wrapping_add(1);
                    if ticks.is_multiple_of(RECONCILE_EVERY) {
                        self.reconcile().await?;
                    }
                    let effects = self.core.tick(now());
                    if self.core.is_look_due(now()) {
                        self.look().await?;
                    }
                    (effects, true)
                }
            };
            let may_rest = has_ticked && effects.is_empty();
            for effect in effects {
                self.perform(effect).await?;
            }
            self.metrics
                .alive
                .set(i64::try_from(self.core.alive()).unwrap_or(i64::MAX));
            if may_rest {
                // What was just said is to be sent first.
                tokio::task::yield_now().await;
                rest();
                // From now, so that what came meanwhile is read before the next look.
                tick.reset_after(TICK - REST);
            }
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
            Some(Kind::Proof) => {
                if let Ok(record) = signal.body::<Emission>() {
                    self.core.emitted(&record, now());
                }
                Vec::new()
            }
            _ => Vec::new(),
        };
        Ok(effects)
    }

    /// The end of an attempt tells about its prover; and one that was accepted makes other copies of
    /// its task superfluous.
    async fn attempt_ended(&mut self, result: &TaskResult) -> Result<Vec<Effect>, BusError> {
        let header = &result.header;
        if matches!(result.outcome, Outcome::Completed { .. }) {
            self.core.over(&result.prover, header.attempt_id(), now());
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

    /// Reads how outputs stand, in case a signal was missed.
    async fn reconcile(&mut self) -> Result<(), BusError> {
        self.end_quarantines().await?;
        self.reputation.forget(now());
        for pipeline in self.core.pipelines() {
            // Not the newest of all: for that the broker looks through all subjects.
            let missed = match self.core.next_of(&pipeline) {
                Some(next) => {
                    let subject = subject::proof(&pipeline, next);
                    let record = self.bus.last::<IgnoredAny>(Stream::Proofs, &subject).await?;
                    record.is_some()
                }
                None => true,
            };
            if missed && let Some((output, _)) = self.bus.output(&pipeline).await? {
                self.core.recall_output(&pipeline, output, now());
            }
        }
        Ok(())
    }
}
