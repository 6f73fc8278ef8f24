//! The shell: reads heartbeats, and sends reports, orders and hedges.

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
use serde::de::IgnoredAny;
use std::time::{Duration, Instant};

/// Name of the leadership role.
const ROLE: &str = "watchdog";
/// How often silence, timeouts and deadlines are checked: a tenth of a heartbeat.
const TICK: Duration = Duration::from_millis(25);
/// How much of a tick the watchdog sleeps, blocking its thread. The end of every attempt is signalled, and no
/// end is urgent. Waiting for signals, the thread would be woken for each one, on a core needed at that very
/// moment for the block's next step. After the sleep, all pending signals are read at once.
const REST: Duration = Duration::from_millis(20);
const _: () = assert!(
    REST.as_millis() < TICK.as_millis(),
    "signals are read before the next tick"
);
/// After how many ticks outputs are read from the stream, in case signals of records were missed.
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
        let began = Instant::now();
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
        tracing::warn!(%error, "starting over from stored state");
        tokio::select! {
            () = service.shutdown.requested() => break,
            never = &mut watched => match never {},
            () = backoff.pause_after(began) => {}
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
    reason = "blocking the thread is the point, and no task waits for it meanwhile"
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

    /// Reads the stored quarantines and the newest heartbeats.
    async fn recall(&mut self) -> Result<(), BusError> {
        let bus = self.bus;
        self.recall_quarantines().await?;
        // A prover that died while no watchdog led is silent from now on, like any other.
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
            // Read heartbeats before the clock: a delayed watchdog must not take its own delay for the
            // silence of provers.
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
                // Let pending messages be sent first.
                tokio::task::yield_now().await;
                rest();
                // Count from now, so signals from meanwhile are read before the next tick.
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

    /// Updates the reputation of the attempt's prover. If the attempt was accepted, other copies of its
    /// task are stopped.
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

    /// Reads the outputs from the stream, in case signals were missed.
    async fn reconcile(&mut self) -> Result<(), BusError> {
        self.end_quarantines().await?;
        self.reputation.forget(now());
        for pipeline in self.core.pipelines() {
            // Ask for one number: to find the newest record, the broker would search all subjects.
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
