//! The shell: starts from stored state when this process begins to lead, and handles one event after another.

use crate::{
    config::Config,
    lane::delivered,
    lanes::Lanes,
    metrics::Metrics,
    room::RoomWatch,
    session::{Session, Token},
    standstill::Standstill,
};
use push0_bus::{
    Bucket, Bus, BusError, Deliveries, Duty, Facts, Failure, Leadership, Outbox, Pipelines, Replay, Seals,
    Signals, Stream, now,
};
use push0_domain::{
    message::{HeldQueue, KnownBlock, Lease, StageReady},
    subject::{self, Kind},
};
use push0_runtime::{BoxError, Component, Service, UnreadableState};
use std::{
    convert::Infallible,
    time::{Duration, Instant},
};

/// Name of the leadership role.
const ROLE: &str = "dispatcher";
/// How long a publish is retried before the dispatcher starts over from stored state.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
/// How often silent provers and passed deadlines are looked for: a fraction of the heartbeat interval.
const TICK: Duration = Duration::from_millis(50);

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

/// The executor of a session while this process leads: turns messages into inputs, and carries out operations.
pub(crate) struct Active<'a> {
    pub(crate) bus: &'a Bus,
    pub(crate) metrics: &'a Metrics,
    pub(crate) unreadable: Standstill<'a>,
    pub(crate) pipelines: Pipelines,
    pub(crate) cursors: Facts<u32>,
    pub(crate) known: Facts<KnownBlock>,
    pub(crate) holds: Facts<HeldQueue>,
    pub(crate) session: Session,
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
            session: Session::new(*ahead),
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
            self.session.core.adopt(&zkvm, released, now());
        }
        Ok(())
    }

    async fn serve(mut self) -> Result<Infallible, BusError> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let may_read = self.session.may_read();
            tokio::select! {
                biased;
                _ = tick.tick() => self.tick().await?,
                (token, stored) = self.outbox.next() => {
                    let ops = self.stored(token, stored)?;
                    self.perform(ops).await?;
                }
                signal = self.signals.next() => {
                    let signal = signal?;
                    self.hear(&signal).await?;
                }
                room = self.room.seen(self.metrics) => self.sees_room(room),
                delivery = self.stages.next(), if may_read => {
                    let message = delivered(delivery?, self.stages.is_replay());
                    self.stage(message).await?;
                },
                news = self.lanes.next(|lane| self.session.is_parked(lane)), if may_read => self.news(news?).await?,
            }
            self.resume().await?;
            self.unpark().await?;
            self.release().await?;
        }
    }

    async fn tick(&mut self) -> Result<(), BusError> {
        self.lanes.tick(Instant::now());
        if self.room.tick(Instant::now()) {
            self.session.core.reserve().looks();
        }
        if self.session.compares() {
            let asked_at = now();
            let held = self.released().await?;
            self.session.reconcile(&held, asked_at);
            self.catch_up().await?;
            self.metrics.observe(&self.session);
            self.metrics.ages(&self.session, now());
        }
        let ops = self.session.tick(now());
        self.perform(ops).await
    }

    fn sees_room(&mut self, room: push0_bus::Room) {
        self.session.core.has_room_for_results(room);
        if let Some(level) = self.room.blobs() {
            self.session.core.reserve().sees(&level);
        }
    }
}
