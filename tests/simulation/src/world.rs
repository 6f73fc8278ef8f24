//! The state of a run: its clock, the pending events, and all processes.

use crate::{
    broker::{Answer, Body, Broker, Message, Stream},
    chain::Chain,
    chance::Chance,
    collector::CollectorShell,
    dispatcher::DispatcherShell,
    plan::{Lane, Plan},
    process::{Input, Process, Who},
    promises::Promises,
    prover::{Act, Prover},
    watchdog::WatchdogShell,
};
use push0_domain::{Timestamp, message::Dead};
use std::{collections::BTreeMap, fmt::Arguments, rc::Rc};

pub(crate) const MS: u64 = 1000;
/// How long faults go on, in microseconds. Afterwards everything works, and all work must end.
const FAULTS_FOR: u64 = 12_000 * MS;
/// How long the work may then take, in microseconds: far above the sum of all timeouts of all attempts.
const CALM_MAX: u64 = 240_000 * MS;
/// Maximum error of the broker's clock. A range closes by that clock, so its blocks may wait this much longer.
const CLOCK_JUMP_MAX: u64 = 120_000 * MS;

/// Receiver of the broker's answer to a publish.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    Nobody,
    /// A service that waits for the answer before its next step.
    Waiting(Who, u32),
    /// A service that continues meanwhile; the last field is its token.
    Token(Who, u32, u64),
    /// A prover process, for the entry with this id.
    Prover(usize, u32, u64),
}

/// A scheduled event.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    /// The chain of a lane moves, and its ingester publishes the next message.
    Chain(usize),
    /// A message reaches the broker.
    Arrive(Rc<Body>, Reply),
    /// A sender publishes a message again, if it still waits for the answer.
    Retry(Rc<Body>, Reply),
    /// An acknowledgement reaches the broker.
    Ack(Stream, u64),
    /// A service reads a message again.
    Read(Who, u32, Stream, u64),
    /// A delivery is given back.
    GiveBack(Stream, u64),
    /// A prover reports progress on a delivery.
    Progress(Stream, u64, u32),
    Extend(Stream, u64),
    /// The ack wait of a delivery ends, unless there was progress.
    Expire(Stream, u64, u32),
    /// An operator removes a dead letter after a retry of its task.
    DropLetter(String),
    /// An event on a service's connection reaches the broker, unless the connection lost the event.
    Left(Who, u64, Box<Event>),
    /// An input reaches a service.
    Reach(Who, u32, Input),
    /// A service carries out its next step.
    Go(Who, u32),
    Tick(Who, u32),
    Crash(Who),
    Start(Who),
    /// An event of a prover's process.
    Prover(usize, u32, Act),
}

/// The complete state of a run.
pub(crate) struct World {
    pub(crate) now: Timestamp,
    next_event: u64,
    events: BTreeMap<(u64, u64), Event>,
    pub(crate) chance: Chance,
    pub(crate) plan: Plan,
    pub(crate) broker: Broker,
    pub(crate) processes: BTreeMap<Who, Process>,
    pub(crate) dispatcher: DispatcherShell,
    pub(crate) watchdog: WatchdogShell,
    pub(crate) collectors: Vec<CollectorShell>,
    pub(crate) provers: Vec<Prover>,
    pub(crate) chains: Vec<Chain>,
    pub(crate) promises: Promises,
    pub(crate) calm: bool,
    swept: bool,
    log: Option<String>,
    pub(crate) steps: u64,
}

impl World {
    pub(crate) fn new(seed: u64, logs: bool) -> Self {
        let mut chance = Chance::new(seed);
        let plan = Plan::draw(&mut chance);
        let provers = Prover::draw(&plan, &mut chance);
        let lanes: &[Lane] = &plan.lanes;
        let mut world = Self {
            now: Timestamp(1_000_000_000),
            next_event: 0,
            events: BTreeMap::new(),
            broker: Broker::new(lanes),
            processes: BTreeMap::new(),
            dispatcher: DispatcherShell::default(),
            watchdog: WatchdogShell::default(),
            collectors: lanes.iter().map(|_| CollectorShell::default()).collect(),
            chains: lanes.iter().map(|lane| Chain::new(lane, &mut chance)).collect(),
            promises: Promises::new(lanes),
            provers,
            calm: false,
            swept: false,
            log: logs.then(String::new),
            steps: 0,
            plan,
            chance,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        for lane in 0..self.plan.lanes.len() {
            let wait = self.chance.between(0, 500 * MS);
            self.after(wait, Event::Chain(lane));
        }
        let mut services = vec![Who::Dispatcher, Who::Watchdog];
        services.extend((0..self.plan.lanes.len()).map(Who::Collector));
        for who in services {
            self.processes.insert(who, Process::default());
            let wait = self.chance.between(0, 200 * MS);
            self.after(wait, Event::Start(who));
        }
        for prover in 0..self.provers.len() {
            self.start_prover(prover);
        }
    }

    /// Runs until all work is done, or returns a description of a broken promise.
    pub(crate) fn run(&mut self) -> Result<(), String> {
        let calm_at = self.now.0 + FAULTS_FOR;
        let mut end_at = calm_at + CALM_MAX;
        while let Some(((at, _), event)) = self.events.pop_first() {
            self.now = Timestamp(at);
            self.steps += 1;
            if !self.calm && (at >= calm_at || self.chains.iter().all(Chain::is_over) && self.all_emitted()) {
                self.calm_down();
                end_at = at + CALM_MAX;
            }
            self.happen(event);
            if let Some(broken) = self.promises.broken.take() {
                return Err(broken);
            }
            if self.calm && self.steps.is_multiple_of(64) && self.is_over() {
                if self.swept {
                    return Ok(());
                }
                // Messages left behind by lost acknowledgements are noticed only by a restarted service.
                self.swept = true;
                self.restart_services();
            }
            if at > end_at {
                return Err(format!(
                    "P10: not at rest {} s after the last fault: {}",
                    CALM_MAX / 1_000_000,
                    self.left()
                ));
            }
        }
        Err("P10: no event is left before the end of the run".into())
    }

    fn all_emitted(&self) -> bool {
        (0..self.chains.len()).all(|lane| self.promises.is_emitted(lane, &self.chains[lane]))
    }

    fn is_over(&self) -> bool {
        let idle = self.chains.iter().all(Chain::is_over) && self.all_emitted();
        idle && self.left().is_empty()
    }

    fn calm_down(&mut self) {
        self.log(format_args!("calm"));
        self.calm = true;
        self.broker.jump(0);
        self.plan.faults = Default::default();
        for prover in 0..self.provers.len() {
            self.heal(prover);
        }
    }

    /// Describes the messages left in streams that must run empty, and all unfinished work.
    fn left(&self) -> String {
        let mut left = String::new();
        let queues = [
            Stream::Blocks,
            Stream::Stages,
            Stream::Tasks,
            Stream::Checks,
            Stream::Results,
        ];
        for stream in queues {
            // Messages left behind by lost acknowledgements stay until the services restart; those of provers
            // are redelivered anyway.
            let seen = self.swept || matches!(stream, Stream::Tasks | Stream::Checks);
            let stays = |message: &&Message| !self.may_stay(&message.body);
            let mut messages = self.broker.messages(stream).filter(stays);
            if let (true, Some(message)) = (seen, messages.next()) {
                left += &format!(
                    "{} more in {stream:?} than {:?}; ",
                    messages.count(),
                    message.body
                );
            }
        }
        for (who, process) in self.processes.iter().filter(|(_, p)| !p.up || p.is_busy()) {
            left += &format!("{who:?} is at work: {process:?}; ");
        }
        for prover in self.provers.iter().filter(|prover| !prover.is_idle()) {
            left += &format!("{prover:?}; ");
        }
        for (lane, chain) in self.chains.iter().enumerate() {
            if !self.promises.is_emitted(lane, chain) {
                left += &format!(
                    "lane {lane} has {:?} and is at {:?}; ",
                    chain.tip(),
                    self.broker.log[lane].last().map(|(_, e)| e.last)
                );
            }
        }
        left
    }

    /// Returns whether a message may stay in RESULTS for good: an end waits for blocks that are not emitted
    /// yet, or a result waits for an operator to act on a dead letter.
    fn may_stay(&self, body: &Body) -> bool {
        match body {
            Body::Ended(ended) => self.promises.is_to_come(&ended.pipeline, ended.last),
            Body::Result(result) | Body::Verdict(result) if result.header.context.amends => {
                let stage = &result.header.id.stage;
                let mut letters = self.broker.letters.values();
                letters.any(|letter| match &letter.what {
                    Dead::Task { retry, .. } => {
                        (&retry.stage.pipeline, retry.stage.block) == (&stage.pipeline, stage.block)
                    }
                    Dead::Message { .. } => false,
                })
            }
            _ => false,
        }
    }

    pub(crate) fn happen(&mut self, event: Event) {
        match event {
            Event::Chain(lane) => self.chain_moves(lane),
            Event::Arrive(body, reply) => self.arrive(body, reply),
            Event::Retry(body, reply) => {
                if self.waits(&reply) {
                    self.arrive(body, reply);
                }
            }
            Event::Ack(stream, sequence) => self.broker.queue(stream).ack(sequence),
            Event::Read(who, epoch, stream, sequence) => self.read(who, epoch, stream, sequence),
            Event::DropLetter(id) => drop(self.broker.letters.remove(&id)),
            Event::GiveBack(stream, sequence) => self.again(stream, sequence),
            Event::Progress(stream, sequence, delivery) => self.progress(stream, sequence, delivery),
            Event::Extend(stream, sequence) => self.extend(stream, sequence),
            Event::Expire(stream, sequence, delivery) => self.expire(stream, sequence, delivery),
            Event::Left(who, sent, event) => self.left_service(who, sent, *event),
            Event::Reach(who, epoch, input) => self.reach(who, epoch, input),
            Event::Go(who, epoch) => self.go(who, epoch),
            Event::Tick(who, epoch) => self.tick(who, epoch),
            Event::Crash(who) => self.crash(who),
            Event::Start(who) => self.start(who),
            Event::Prover(prover, epoch, act) => self.prover_acts(prover, epoch, act),
        }
    }

    pub(crate) fn at(&mut self, at: u64, event: Event) {
        self.next_event += 1;
        self.events.insert((at.max(self.now.0), self.next_event), event);
    }

    pub(crate) fn after(&mut self, wait: u64, event: Event) {
        self.at(self.now.0 + wait, event);
    }

    /// Draws the delay of one way to or from the broker, in microseconds.
    pub(crate) fn hop(&mut self) -> u64 {
        if self.chance.hit(self.plan.faults.delayed) {
            return self.chance.between(MS, 120 * MS);
        }
        self.chance.between(50, 400)
    }

    fn waits(&self, reply: &Reply) -> bool {
        match reply {
            Reply::Nobody => true,
            Reply::Waiting(who, epoch) | Reply::Token(who, epoch, _) => self.processes[who].epoch == *epoch,
            Reply::Prover(prover, epoch, _) => self.provers[*prover].epoch == *epoch,
        }
    }

    fn arrive(&mut self, body: Rc<Body>, reply: Reply) {
        if self.chance.hit(self.plan.faults.clock_jumps) {
            let ahead = self.chance.between(0, 2 * CLOCK_JUMP_MAX);
            self.broker
                .jump(ahead.cast_signed() - CLOCK_JUMP_MAX.cast_signed());
        }
        let answer = self.broker.store(&body, self.now);
        if self.log.is_some() {
            self.log(format_args!("{answer:?} {body:?}"));
        }
        if let Answer::Stored(sequence) = answer {
            self.promises.stored(&body);
            if let Body::Letter(letter) = &*body {
                self.operator_reads(letter);
            }
            self.tell(&body, sequence);
        }
        if self.chance.hit(self.plan.faults.repeated)
            && !matches!(
                *body,
                Body::Lease(_) | Body::Stop(..) | Body::Rest(..) | Body::Block(_)
            )
        {
            // The answer is lost, so the sender publishes again.
            let wait = self.chance.between(MS, 2000 * MS);
            self.after(wait, Event::Retry(body, reply));
            return;
        }
        let hop = self.hop();
        match reply {
            Reply::Nobody => {}
            Reply::Waiting(who, epoch) => self.after(hop, Event::Go(who, epoch)),
            Reply::Token(who, epoch, token) => self.reach_in_order(who, epoch, Input::Answer(token, answer)),
            Reply::Prover(prover, epoch, id) => {
                self.after(hop, Event::Prover(prover, epoch, Act::Stored(id)));
            }
        }
    }

    /// Delivers a stored message to its consumer, and signals the message to the listening services.
    fn tell(&mut self, body: &Rc<Body>, sequence: u64) {
        let watch = Who::Watchdog;
        let signals: &[Who] = match &**body {
            Body::Lease(_) | Body::Result(_) | Body::Verdict(_) | Body::Records(..) => {
                &[Who::Dispatcher, watch]
            }
            Body::Check(_) => &[Who::Dispatcher],
            Body::Ended(_) => &[watch],
            Body::Stop(prover, attempt) => {
                self.order(*prover, Act::Stop(attempt.clone()));
                &[]
            }
            Body::Rest(prover, lasts) => {
                self.order(*prover, Act::Rest(*lasts));
                &[]
            }
            _ => &[],
        };
        for who in signals {
            let epoch = self.processes[who].epoch;
            self.reach_in_order(*who, epoch, Input::Signal(body.clone()));
        }
        let delivery = match &**body {
            Body::Block(_) => Some((Who::Dispatcher, Stream::Blocks)),
            Body::Stage(_) => Some((Who::Dispatcher, Stream::Stages)),
            Body::Result(result) | Body::Verdict(result) => Some((
                Who::Collector(self.lane_of(&result.header.id.stage.pipeline)),
                Stream::Results,
            )),
            Body::Ended(ended) => Some((Who::Collector(self.lane_of(&ended.pipeline)), Stream::Results)),
            Body::Task(_) | Body::Check(_) => {
                self.hand_out();
                None
            }
            _ => None,
        };
        if let Some((who, stream)) = delivery
            && self.processes[&who].bound
        {
            let epoch = self.processes[&who].epoch;
            let stored_at = self.broker.stored_at(stream, sequence).unwrap_or(self.now);
            let delivery = Input::Delivery(stream, sequence, body.clone(), stored_at);
            self.reach_in_order(who, epoch, delivery.clone());
            if self.chance.hit(self.plan.faults.redelivered) {
                // The redelivery arrives behind the first delivery; a lost first delivery is
                // a separate fault.
                let at = self.process(who).in_at + self.chance.between(MS, 1500 * MS);
                self.at(at, Event::Reach(who, epoch, delivery));
            }
        }
    }

    fn order(&mut self, prover: usize, act: Act) {
        let (hop, epoch) = (self.hop(), self.provers[prover].epoch);
        self.after(hop, Event::Prover(prover, epoch, act));
    }

    pub(crate) fn lane_of(&self, pipeline: &push0_domain::PipelineId) -> usize {
        let found = self
            .plan
            .lanes
            .iter()
            .position(|lane| lane.pipeline.name == *pipeline);
        found.unwrap_or_default()
    }

    pub(crate) fn logs(&self) -> bool {
        self.log.is_some()
    }

    pub(crate) fn log(&mut self, what: Arguments<'_>) {
        if let Some(log) = &mut self.log {
            use std::fmt::Write;
            let _ = writeln!(log, "{:>12} {what}", self.now.0);
        }
    }

    pub(crate) fn take_log(&mut self) -> String {
        self.log.take().unwrap_or_default()
    }
}
