//! The shell: reads heartbeats, and sends reports, orders and hedges.

mod act;
mod lost;
mod place;
mod presence;
mod quarantine;
mod unheld;
mod unverified;

use crate::{
    config::Config,
    copies::Copies,
    heads::Heads,
    janitor::Janitor,
    metrics::Metrics,
    reputation::Quarantine,
    service::{place::Place, presence::Asking},
    session::{Session, TICK},
    tally::Tally,
};
use push0_bus::{
    Bucket, Bus, BusError, Duty, Facts, Failure, Handed, Leadership, Pipelines, Seals, Signals, Stream, now,
};
use push0_domain::{
    PipelineId, ZkvmId,
    message::{Emission, Event, Lease, Outcome, ResultEvent, TaskResult},
    output::Output,
    report::{Refusal, admit_signature},
    subject::{self, Kind, Report},
};
use push0_runtime::{BoxError, Component, Service, UnreadableState};
use serde::de::IgnoredAny;
use std::{collections::HashMap, convert::Infallible, time::Duration};
use tokio::time::Instant;

/// Name of the leadership role.
const ROLE: &str = "watchdog";
/// The kinds of events by which verifiers tell of checks without a verdict.
const CHECK_EVENTS: [&str; 2] = ["check-unverified", "check-paused"];
/// How long effects are carried out before heartbeats are read again.
const SLICE: Duration = Duration::from_millis(50);

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

struct Active<'a> {
    bus: &'a Bus,
    metrics: &'a Metrics,
    state: &'a UnreadableState,
    pipelines: Pipelines,
    session: Session<Place>,
    quarantines: Facts<Quarantine>,
    signals: Signals,
    /// How many dropped signals were counted.
    dropped: u64,
    seals: Seals,
    asking: Asking,
    /// The progress of consumers, as far as the look under way has asked for it.
    handed: HashMap<ZkvmId, Option<Handed>>,
    /// Deliveries given to another process, for the log.
    given_away: Tally,
    heads: Heads,
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
            session: Session::new(config.condemn_after, config.quarantine),
            quarantines: bus.facts(Bucket::State).await?,
            signals,
            dropped: 0,
            seals: bus.seals().await?,
            asking: Asking::default(),
            handed: HashMap::new(),
            given_away: Tally::default(),
            heads: Heads::default(),
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
        for (subject, _) in bus.subjects(Stream::Leases, &subject::all(Kind::Lease)).await? {
            let Some(kept) = bus.last::<Lease>(Stream::Leases, &subject).await? else {
                continue;
            };
            if let Ok(lease) = kept.body
                && let Some(lease) = self.admitted(&subject, lease).await?
            {
                self.session.recall(lease, kept.stored_at, now());
            }
        }
        Ok(())
    }

    async fn serve(mut self) -> Result<Infallible, BusError> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // Read heartbeats before the clock: a delayed watchdog must not take its own delay for the
            // silence of provers.
            let has_ticked = tokio::select! {
                biased;
                signal = self.signals.next() => {
                    self.hear(&signal?).await?;
                    false
                }
                (seat, is_gone) = self.asking.next() => {
                    self.session.presence(&seat, is_gone, now());
                    continue;
                }
                _ = tick.tick() => {
                    self.session.tick(now());
                    true
                }
                () = std::future::ready(()), if self.session.has_turns() => false,
            };
            self.carry_out().await?;
            let may_rest = has_ticked && !self.session.has_turns();
            let until = Instant::now() + SLICE;
            while Instant::now() < until && self.session.turn(now()) {
                self.carry_out().await?;
            }
            let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
            let (heard, suspected) = self.session.processes();
            self.metrics.alive.set(count(heard));
            self.metrics.suspected.set(count(suspected));
            if may_rest {
                // The end of every attempt is signalled, and no end is urgent. Waiting for signals, the watchdog would
                // judge each one by itself, on a core needed at that very moment for the block's next step. So signals
                // wait for the next tick, and are read before it, all at once. The thread sleeps only as long as nothing
                // comes: the connection, the leadership and the health page share it. A message costs one wake-up, in
                // which the connection puts it aside unread.
                tokio::time::sleep(TICK).await;
            }
        }
    }

    async fn carry_out(&mut self) -> Result<(), BusError> {
        while let Some(op) = self.session.next(now()) {
            self.perform(op).await?;
        }
        Ok(())
    }

    async fn hear(&mut self, signal: &push0_bus::Signal) -> Result<(), BusError> {
        match Kind::of(signal.subject()) {
            Some(kind @ (Kind::Result | Kind::Verdict)) => {
                if let Ok(ResultEvent::Attempt(result)) = signal.body()
                    && let Ok(report) = self.seals.admit(signal.subject(), kind, &result).await?
                    && self.counts(&report, kind, &result)
                {
                    self.session.attempt_ended(&result, now());
                }
            }
            Some(Kind::Notice) => {
                let sender = subject::sender_of_notice(signal.subject());
                if let (Some(sender), Ok(event)) = (sender, signal.body::<Event>()) {
                    self.session.noticed(&sender, &event.what);
                }
            }
            Some(Kind::Lease) => match signal.body::<Lease>() {
                Ok(lease) => {
                    if let Some(lease) = self.admitted(signal.subject(), lease).await? {
                        self.session.heard(lease, now());
                    }
                }
                Err(_) => self.refused(Refusal::Unreadable, 1),
            },
            Some(Kind::Ended) => {
                if let Ok(ResultEvent::Ended(ended)) = signal.body() {
                    self.session.ended(ended, now());
                }
            }
            Some(Kind::Proof) => {
                if let Ok(record) = signal.body::<Emission>() {
                    self.session.emitted(&record, now());
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Returns whether the collector counts a report with a valid seal, as far as that matters: a completed attempt stops others
    /// of its task, so one that the collector refuses must not. Anything else bears on its sender's reputation only.
    fn counts(&self, report: &Report, kind: Kind, result: &TaskResult) -> bool {
        let is_completed = matches!(result.outcome, Outcome::Completed { .. });
        let stops_others = kind == Kind::Result && is_completed;
        !stops_others
            || !self.session.has_rivals(&result.header, now())
            || admit_signature(report, kind, result).is_ok()
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

    /// Shows the counts, and removes checks not wanted any more.
    async fn tidy(&mut self) -> Result<(), BusError> {
        let dropped = self.signals.dropped();
        self.metrics.signals_dropped.inc_by(dropped - self.dropped);
        self.dropped = dropped;
        self.count_resting();
        self.sweep_unverified().await?;
        self.count_unverified();
        Ok(())
    }

    /// Reads the output of a pipeline, in case signals were missed. Asks for the record of one number first: to find the
    /// newest record, the broker would search all subjects.
    async fn read_output(&mut self, pipeline: &PipelineId, next: Option<u64>) -> Result<(), BusError> {
        let missed = match next {
            Some(next) => {
                let subject = subject::proof(pipeline, next);
                let record = self.bus.last::<IgnoredAny>(Stream::Proofs, &subject).await?;
                record.is_some()
            }
            None => true,
        };
        if missed && let Some(output) = self.output(pipeline).await? {
            self.session.recall_output(pipeline, output, now());
        }
        Ok(())
    }
}
