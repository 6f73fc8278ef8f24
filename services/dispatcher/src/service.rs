//! The shell: starts from stored state when this process begins to lead, and handles one event after another.

use crate::{
    bodies::Bodies,
    config::Config,
    decide::{Dispatcher, SourceId},
    lanes::Lanes,
    metrics::Metrics,
    room::RoomWatch,
    standstill::Standstill,
    waits::Waits,
};
use push0_bus::{
    Bucket, Bus, BusError, Deliveries, Duty, Facts, Failure, Leadership, Outbox, Pipelines, Replay, Seals,
    Signals, Stream, now,
};
use push0_domain::{
    ZkvmId,
    message::{HeldQueue, KnownBlock, Lease, StageReady},
    subject::{self, Kind},
};
use push0_runtime::{BoxError, Component, Service, UnreadableState};
use std::{
    collections::HashSet,
    convert::Infallible,
    time::{Duration, Instant},
};

/// Name of the leadership role.
const ROLE: &str = "dispatcher";
/// How long a publish is retried before the dispatcher starts over from stored state.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How often silent provers and passed deadlines are looked for: a fraction of the heartbeat interval.
const TICK: Duration = Duration::from_millis(50);
/// After how many ticks the outstanding attempts are compared with TASKS.
const RECONCILE_EVERY: u32 = 20;
/// Minimum age of a release to be compared with TASKS. By then its publish has long been answered.
const RECONCILE_AGE: Duration = Duration::from_secs(2);
/// Most publishes in flight. At this limit no more messages are read.
pub(crate) const IN_FLIGHT_MAX: usize = 1024;

/// Runs the dispatcher until it is asked to stop.
pub async fn run(service: Service<Config>) -> Result<(), BoxError> {
    let broker = service.health.component("broker");
    let permissions = service.health.component("permissions").reporter();
    let connection = service.health.component("connection").quiet_reporter();
    let role = service.health.role(ROLE)?;
    let losses = role.losses;
    let metrics = Metrics::register()?;
    let state = service.health.unreadable("state")?;
    let bus = Bus::connect_reporting(&service.config.nats, "dispatcher", permissions, connection).await?;
    let health = service.health.clone();
    let _known = bus.introduce(service.name, service.version, move || health.trouble());
    let candidate =
        Leadership::candidate(&bus, ROLE).watched(move || losses.inc(), role.component.reporter());
    let dispatching = Dispatching {
        bus: bus.clone(),
        ahead: u64::from(service.config.dispatch.ahead),
        metrics,
        state,
        broker,
    };
    tokio::select! {
        () = service.shutdown.requested() => {}
        never = candidate.lead(&dispatching) => match never {},
    }
    bus.flush().await;
    Ok(())
}

/// The dispatcher's work, and whom it tells how the work goes.
struct Dispatching {
    bus: Bus,
    /// How many blocks ahead of the next one to emit are dispatched.
    ahead: u64,
    metrics: Metrics,
    state: UnreadableState,
    broker: Component,
}

impl Duty for Dispatching {
    type State<'a> = Active<'a>;

    async fn start(&self) -> Result<Active<'_>, BusError> {
        Active::start(self).await
    }

    async fn serve<'a>(&'a self, state: Active<'a>) -> Result<Infallible, BusError> {
        state.serve().await
    }

    fn leads(&self, leads: bool) {
        self.metrics.leading.set(leads.into());
        self.state.clear();
    }

    fn is_well(&self) {
        self.broker.ready();
    }

    fn failed(&self, failure: &Failure) {
        self.broker.not_ready(failure.to_string());
    }
}

/// The release behind an unanswered publish: source message and task index.
type Token = (SourceId, u32);

/// The dispatcher while it leads.
pub(crate) struct Active<'a> {
    pub(crate) bus: &'a Bus,
    pub(crate) metrics: &'a Metrics,
    pub(crate) unreadable: Standstill<'a>,
    pub(crate) pipelines: Pipelines,
    pub(crate) cursors: Facts<u32>,
    pub(crate) known: Facts<KnownBlock>,
    pub(crate) holds: Facts<HeldQueue>,
    pub(crate) core: Dispatcher,
    pub(crate) bodies: Bodies,
    pub(crate) waits: Waits,
    pub(crate) outbox: Outbox<Token>,
    pub(crate) lanes: Lanes,
    pub(crate) stages: Deliveries<StageReady>,
    pub(crate) signals: Signals,
    pub(crate) seals: Seals,
    room: RoomWatch,
}

impl<'a> Active<'a> {
    async fn start(dispatching: &'a Dispatching) -> Result<Self, BusError> {
        let Dispatching {
            bus,
            ahead,
            metrics,
            state,
            ..
        } = dispatching;
        bus.check_provisioned().await?;
        let heard = [Kind::Lease, Kind::Result, Kind::Verdict, Kind::Check, Kind::Proof].map(subject::all);
        // Listen before reading stored state, to miss no events in between.
        let signals = bus.listen(heard).await?;
        let pipelines = Pipelines::bind(bus).await?;
        let stages = Replay {
            stream: Stream::Stages,
            consumer: "dispatcher-stages".into(),
            filters: vec![subject::all(Kind::Stage)],
        };
        let mut active = Self {
            cursors: bus.facts(Bucket::State).await?,
            known: bus.facts(Bucket::Blocks).await?,
            holds: bus.facts(Bucket::State).await?,
            core: Dispatcher::default(),
            bodies: Bodies::default(),
            waits: Waits::default(),
            outbox: Outbox::new(bus.clone(), PATIENCE),
            lanes: Lanes::start(bus, &pipelines, *ahead).await?,
            stages: bus.replay(&stages).await?,
            room: RoomWatch::start(bus, metrics).await?,
            unreadable: Standstill::new(state),
            seals: bus.seals().await?,
            pipelines,
            signals,
            bus,
            metrics,
        };
        active.sees_room(active.room.room());
        active.recall().await?;
        active.recall_holds().await?;
        Ok(active)
    }

    /// Reads the leases of the provers, and the attempts released before.
    async fn recall(&mut self) -> Result<(), BusError> {
        for (subject, _) in self
            .bus
            .subjects(Stream::Leases, &subject::all(Kind::Lease))
            .await?
        {
            let lease = self.bus.last::<Lease>(Stream::Leases, &subject).await?;
            if let Some(Ok(lease)) = lease.map(|kept| kept.body) {
                self.lease(&subject, lease).await?;
            }
        }
        for (zkvm, released) in self.released().await? {
            self.core.adopt(&zkvm, released, now());
        }
        Ok(())
    }

    async fn serve(mut self) -> Result<Infallible, BusError> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks = 0_u32;
        loop {
            let may_read = self.outbox.len() < IN_FLIGHT_MAX;
            tokio::select! {
                biased;
                _ = tick.tick() => {
                    ticks = ticks.wrapping_add(1);
                    self.lanes.tick(Instant::now());
                    if self.room.tick(Instant::now()) {
                        self.core.reserve().looks();
                    }
                    if ticks.is_multiple_of(RECONCILE_EVERY) {
                        self.reconcile().await?;
                        self.metrics.observe(&self.core, &self.lanes);
                        self.metrics.ages(&self.core, &self.waits, now());
                    }
                    let effects = self.core.tick(now());
                    self.apply(effects).await?;
                }
                ((source, index), stored) = self.outbox.next() => self.stored(source, index, stored).await?,
                signal = self.signals.next() => {
                    let signal = signal?;
                    self.hear(&signal).await?;
                }
                room = self.room.seen(self.metrics) => self.sees_room(room),
                delivery = self.stages.next(), if may_read => self.stage(delivery?).await?,
                news = self.lanes.next(), if may_read => self.news(news?).await?,
            }
            self.resume().await?;
            self.unpark().await?;
            self.release().await?;
        }
    }

    fn sees_room(&mut self, room: push0_bus::Room) {
        self.core.has_room_for_results(room);
        if let Some(level) = self.room.blobs() {
            self.core.reserve().sees(&level);
        }
    }

    async fn reconcile(&mut self) -> Result<(), BusError> {
        let before = now().minus(RECONCILE_AGE);
        let released = self.released().await?;
        let zkvms: Vec<ZkvmId> = self.core.provers().map(|(zkvm, ..)| zkvm.clone()).collect();
        for zkvm in zkvms {
            self.core
                .reconcile(&zkvm, released.get(&zkvm).unwrap_or(&HashSet::new()), before);
        }
        self.catch_up().await
    }
}
