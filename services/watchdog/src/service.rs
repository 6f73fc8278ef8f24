//! The shell: reads heartbeats, and sends reports, orders and hedges.

mod act;
mod lost;
mod place;
mod presence;
mod quarantine;
mod unheld;
mod unverified;

use crate::{
    agenda::Agenda,
    config::Config,
    copies::Copies,
    decide::{Effect, Watchdog},
    heads::Heads,
    janitor::Janitor,
    metrics::Metrics,
    reports,
    reputation::{Quarantine, Reputation},
    service::presence::Asking,
    unverified::Unverified,
};
use push0_bus::{
    Bucket, Bus, BusError, Duty, Facts, Failure, Leadership, Pipelines, Seals, Signals, Stream, now,
};
use push0_domain::{
    PipelineId,
    message::{Emission, Event, Lease, ResultEvent, TaskResult},
    output::Output,
    report::Refusal,
    subject::{self, Kind},
};
use push0_runtime::{BoxError, Component, Service, UnreadableState};
use serde::de::IgnoredAny;
use std::{convert::Infallible, time::Duration};
use tokio::time::Instant;

/// Name of the leadership role.
const ROLE: &str = "watchdog";
/// The kinds of events by which verifiers tell of checks without a verdict.
const CHECK_EVENTS: [&str; 2] = ["check-unverified", "check-paused"];
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
/// How long effects are carried out before heartbeats are read again.
const SLICE: Duration = Duration::from_millis(50);
/// After how many ticks outputs are read from the stream, in case signals of records were missed.
const RECONCILE_EVERY: u32 = 40;
/// After how many ticks pipelines that stand are looked at.
const LOST_EVERY: u32 = 40;

/// Runs the watchdog until it is asked to stop.
pub async fn run(service: Service<Config>) -> Result<(), BoxError> {
    let broker = service.health.component("broker");
    let permissions = service.health.component("permissions").reporter();
    let connection = service.health.component("connection").quiet_reporter();
    let role = service.health.role(ROLE)?;
    let losses = role.losses;
    let metrics = Metrics::register()?;
    let copies = Copies::register()?;
    let state = service.health.unreadable("state")?;
    let janitor = Janitor::start(service.config.nats.clone(), &service.health)?;
    let bus = Bus::connect_reporting(&service.config.nats, "watchdog", permissions, connection).await?;
    let health = service.health.clone();
    let _known = bus.introduce(service.name, service.version, move || health.trouble());
    let candidate =
        Leadership::candidate(&bus, ROLE).watched(move || losses.inc(), role.component.reporter());
    let watching = Watching {
        bus: bus.clone(),
        config: service.config,
        metrics,
        state,
        broker,
        janitor,
    };
    tokio::select! {
        () = service.shutdown.requested() => {}
        never = copies.watch(&bus) => match never {},
        never = candidate.lead(&watching) => match never {},
    }
    bus.flush().await;
    Ok(())
}

/// The watchdog's work, and whom it tells how the work goes.
struct Watching {
    bus: Bus,
    config: Config,
    metrics: Metrics,
    state: UnreadableState,
    broker: Component,
    janitor: Janitor,
}

impl Duty for Watching {
    type State<'a> = Active<'a>;

    async fn start(&self) -> Result<Active<'_>, BusError> {
        Active::start(self).await
    }

    async fn serve<'a>(&'a self, state: Active<'a>) -> Result<Infallible, BusError> {
        state.serve().await
    }

    fn leads(&self, leads: bool) {
        self.metrics.leading.set(leads.into());
        self.metrics.unverified.reset();
        self.state.clear();
        self.janitor.leads(leads);
    }

    fn is_well(&self) {
        self.broker.ready();
    }

    fn failed(&self, failure: &Failure) {
        self.broker.not_ready(failure.to_string());
    }
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
    state: &'a UnreadableState,
    pipelines: Pipelines,
    core: Watchdog,
    reputation: Reputation,
    quarantines: Facts<Quarantine>,
    signals: Signals,
    /// How many dropped signals were counted.
    dropped: u64,
    seals: Seals,
    asking: Asking,
    unverified: Unverified,
    heads: Heads,
    agenda: Agenda,
}

impl<'a> Active<'a> {
    async fn start(watching: &'a Watching) -> Result<Self, BusError> {
        let Watching {
            bus,
            config,
            metrics,
            state,
            ..
        } = watching;
        bus.check_provisioned().await?;
        let kinds = [Kind::Lease, Kind::Result, Kind::Verdict, Kind::Ended, Kind::Proof].map(subject::all);
        let signals = bus.listen(kinds.into_iter().chain(CHECK_EVENTS.map(subject::notices)));
        let signals = signals.await?;
        let mut active = Self {
            pipelines: Pipelines::bind(bus).await?,
            core: Watchdog::new(config.condemn_after),
            reputation: Reputation::new(config.quarantine),
            quarantines: bus.facts(Bucket::State).await?,
            signals,
            dropped: 0,
            seals: bus.seals().await?,
            asking: Asking::default(),
            unverified: Unverified::default(),
            heads: Heads::default(),
            agenda: Agenda::default(),
            bus,
            metrics,
            state,
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
            let lease = bus.last::<Lease>(Stream::Leases, &subject).await?;
            if let Some(Ok(lease)) = lease.map(|kept| kept.body)
                && let Some(lease) = self.admitted(&subject, lease).await?
            {
                self.core.recall(lease, now());
            }
        }
        Ok(())
    }

    async fn serve(mut self) -> Result<Infallible, BusError> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks = 0_u32;
        loop {
            // Read heartbeats before the clock: a delayed watchdog must not take its own delay for the
            // silence of provers.
            let (effects, has_ticked) = tokio::select! {
                biased;
                signal = self.signals.next() => {
                    let signal = signal?;
                    (self.hear(&signal).await?, false)
                }
                (seat, is_gone) = self.asking.next() => {
                    self.core.presence(&seat, is_gone, now());
                    continue;
                }
                _ = tick.tick() => {
                    ticks = ticks.wrapping_add(1);
                    if ticks.is_multiple_of(RECONCILE_EVERY) {
                        self.reconcile().await?;
                    }
                    if ticks.is_multiple_of(LOST_EVERY) {
                        self.look_for_lost_blocks().await?;
                    }
                    let effects = self.core.tick(now());
                    if self.core.is_look_due(now()) {
                        self.look().await?;
                    }
                    for seat in self.core.to_ask(now()) {
                        self.asking.about(self.bus, seat);
                    }
                    (effects, true)
                }
                () = std::future::ready(()), if !self.agenda.is_empty() => (Vec::new(), false),
            };
            self.agenda.add(effects);
            let may_rest = has_ticked && self.agenda.is_empty();
            let until = Instant::now() + SLICE;
            while Instant::now() < until
                && let Some(effect) = self.agenda.next()
            {
                self.perform(effect).await?;
            }
            let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
            self.metrics.alive.set(count(self.core.alive()));
            self.metrics.suspected.set(count(self.core.suspected()));
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
            Some(kind @ (Kind::Result | Kind::Verdict)) => {
                if let Ok(ResultEvent::Attempt(result)) = signal.body()
                    && self.seals.admit(signal.subject(), kind, &result).await?.is_ok()
                {
                    return self.attempt_ended(&result).await;
                }
                Vec::new()
            }
            Some(Kind::Notice) => {
                let sender = subject::sender_of_notice(signal.subject());
                if let (Some(sender), Ok(event)) = (sender, signal.body::<Event>()) {
                    self.unverified.heard(&sender, &event.what);
                }
                Vec::new()
            }
            Some(Kind::Lease) => {
                let lease = match signal.body::<Lease>() {
                    Ok(lease) => self.admitted(signal.subject(), lease).await?,
                    Err(_) => {
                        self.refused(Refusal::Unreadable, 1);
                        None
                    }
                };
                match lease {
                    Some(lease) => {
                        self.remind(&lease).await?;
                        self.core.heard(lease, now())
                    }
                    None => Vec::new(),
                }
            }
            Some(Kind::Ended) => match signal.body() {
                Ok(ResultEvent::Ended(ended)) => {
                    let effects = self.core.ended(&ended, now());
                    self.unverified.ended(ended);
                    effects
                }
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

    /// Returns a lease without the deliveries in it that are not to be believed; `None` if the whole lease is not.
    async fn admitted(&mut self, subject: &str, mut lease: Lease) -> Result<Option<Lease>, BusError> {
        match self.seals.admit_lease(subject, &mut lease).await? {
            Ok(dropped) => {
                self.refused(Refusal::Seal, dropped.unsealed);
                self.refused(Refusal::Repeated, dropped.repeated);
                Ok(Some(lease))
            }
            Err(refusal) => {
                self.refused(refusal, 1);
                Ok(None)
            }
        }
    }

    fn refused(&self, refusal: Refusal, count: usize) {
        if count > 0 {
            let counter = self.metrics.refused.with_label_values(&[refusal.as_str()]);
            counter.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
        }
    }

    /// Updates the reputation of the attempt's prover. If the attempt was accepted, other copies of its
    /// task are stopped.
    async fn attempt_ended(&mut self, result: &TaskResult) -> Result<Vec<Effect>, BusError> {
        if result.verdict.is_some() {
            self.unverified.settled(&result.header.key());
        }
        let (effects, changes) = reports::attempt_ended(&mut self.core, &mut self.reputation, result, now());
        self.note(changes).await?;
        Ok(effects)
    }

    /// Returns the output of a pipeline. An unreadable record counts as no output: nothing of that pipeline is swept.
    async fn output(&self, pipeline: &PipelineId) -> Result<Option<Output>, BusError> {
        match self.bus.output(pipeline).await {
            Ok(output) => {
                self.state.mended(pipeline.as_str());
                Ok(output.map(|(output, _)| output))
            }
            Err(error) if error.is_damage() => {
                self.state.found(pipeline.as_str(), error);
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Reads the outputs from the stream, in case signals were missed.
    async fn reconcile(&mut self) -> Result<(), BusError> {
        let dropped = self.signals.dropped();
        self.metrics.signals_dropped.inc_by(dropped - self.dropped);
        self.dropped = dropped;
        self.end_quarantines().await?;
        self.sweep_unverified().await?;
        self.count_unverified();
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
            if missed && let Some(output) = self.output(&pipeline).await? {
                self.core.recall_output(&pipeline, output, now());
            }
        }
        Ok(())
    }
}
