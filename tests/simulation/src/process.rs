//! A service's process: takes one input at a time, carries out the resulting steps one by one, and may crash
//! between any two steps.

use crate::{
    broker::{Answer, Body, Stream},
    world::{Event, MS, Reply, World},
};
use push0_domain::Timestamp;
use push0_watchdog::session;
use std::{collections::VecDeque, rc::Rc};

/// The simulated services; a collector has the index of its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Who {
    Dispatcher,
    Watchdog,
    Collector(usize),
}

/// An input of a service.
#[derive(Clone, Debug)]
pub(crate) enum Input {
    /// A message of a stream: stream, sequence, content, and the time of storage.
    Delivery(Stream, u64, Rc<Body>, Timestamp),
    Signal(Rc<Body>),
    Answer(u64, Answer),
    /// A message read again, with the time of storage; `None` if the message is gone.
    Read(u64, Option<(Rc<Body>, Timestamp)>),
    Tick,
}

/// A step of a shell. Steps run in order, and a step that waits delays all later ones.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Stores a message and waits for the answer.
    Store(Body),
    /// Stores a message and continues; the answer carries this token.
    Send(Body, u64),
    Ack(Stream, u64),
    /// Reads a message again.
    Read(Stream, u64),
    /// An operation of the dispatcher's session.
    Dispatcher(push0_dispatcher::session::Op),
    /// Lets the dispatcher go on behind the operations of an input.
    ReadOn,
    /// Carries out the next operation of the watchdog's session.
    Watchdog,
}

/// A process of a service and its connections.
#[derive(Debug, Default)]
pub(crate) struct Process {
    pub(crate) up: bool,
    /// Whether its consumers are bound and newly stored messages reach the process.
    pub(crate) bound: bool,
    pub(crate) epoch: u32,
    working: bool,
    /// Whether a step waits for an answer. No other step may begin meanwhile.
    waits: bool,
    /// Pending inputs by source. Order is kept within a source.
    lanes: [VecDeque<Input>; 4],
    pub(crate) ops: VecDeque<Op>,
    /// Arrival time of the last input; `out_at` is that of the last output. TCP keeps order, so nothing
    /// arrives before it.
    pub(crate) in_at: u64,
    out_at: u64,
    /// Number of sent messages; `lost` holds the numbers of those lost with a connection.
    sent: u64,
    arrived: u64,
    lost: Vec<std::ops::RangeInclusive<u64>>,
    pub(crate) ticks: u32,
}

impl Process {
    pub(crate) fn is_busy(&self) -> bool {
        let mut inputs = self.lanes.iter().flatten();
        self.waits
            || !self.ops.is_empty()
            || inputs.any(|input| matches!(input, Input::Delivery(..) | Input::Answer(..) | Input::Read(..)))
    }

    /// Puts steps before all others.
    fn next(&mut self, ops: Vec<Op>) {
        ops.into_iter().rev().for_each(|op| self.ops.push_front(op));
    }

    /// Puts inputs back before all others of their source.
    pub(crate) fn put_back(&mut self, inputs: VecDeque<Input>) {
        for input in inputs.into_iter().rev() {
            self.lanes[lane_of(&input)].push_front(input);
        }
    }
}

/// Returns the source of an input, within which order is kept.
fn lane_of(input: &Input) -> usize {
    match input {
        Input::Signal(_) => 0,
        Input::Delivery(Stream::Blocks, ..) => 1,
        Input::Delivery(..) => 2,
        Input::Answer(..) | Input::Read(..) | Input::Tick => 3,
    }
}

impl World {
    pub(crate) fn process(&mut self, who: Who) -> &mut Process {
        self.processes.entry(who).or_default()
    }

    pub(crate) fn reach_in_order(&mut self, who: Who, epoch: u32, input: Input) {
        let at = self.now.0 + self.hop();
        let process = self.process(who);
        process.in_at = process.in_at.max(at);
        let at = process.in_at;
        self.at(at, Event::Reach(who, epoch, input));
    }

    /// Sends an event from a service to the broker, behind all events sent before.
    pub(crate) fn leave(&mut self, who: Who, event: Event) {
        let at = self.now.0 + self.hop();
        let process = self.process(who);
        process.out_at = process.out_at.max(at);
        process.sent += 1;
        let (at, sent) = (process.out_at, process.sent);
        self.at(at, Event::Left(who, sent, Box::new(event)));
    }

    /// Applies an event at the broker, unless the service's connection broke before the event arrived.
    pub(crate) fn left_service(&mut self, who: Who, sent: u64, event: Event) {
        let process = self.process(who);
        process.arrived = sent;
        let lost = &process.lost;
        if !lost.iter().any(|lost| lost.contains(&sent)) {
            self.happen(event);
        }
    }

    pub(crate) fn reach(&mut self, who: Who, epoch: u32, input: Input) {
        let process = self.process(who);
        if process.epoch != epoch || !process.up {
            return;
        }
        process.lanes[lane_of(&input)].push_back(input);
        if !process.working {
            process.working = true;
            self.after(1, Event::Go(who, epoch));
        }
    }

    /// Carries out the next step of a service, or takes its next input.
    pub(crate) fn go(&mut self, who: Who, epoch: u32) {
        let process = self.process(who);
        if process.epoch != epoch || !process.up {
            return;
        }
        process.waits = false;
        if let Some(op) = process.ops.pop_front() {
            if self.perform(who, op) {
                self.after(3, Event::Go(who, epoch));
            }
            return;
        }
        let process = self.process(who);
        let lanes: Vec<usize> = (0..4).filter(|lane| !process.lanes[*lane].is_empty()).collect();
        if lanes.is_empty() {
            process.working = false;
            return;
        }
        let lane = self.chance.one_of(&lanes);
        let Some(input) = self.process(who).lanes[lane].pop_front() else {
            return;
        };
        let ops = match who {
            Who::Dispatcher => self.dispatcher_hears(input),
            Who::Watchdog => self.watchdog_hears(input),
            Who::Collector(lane) => self.collector_hears(lane, input),
        };
        // The input may have ended the session, and the steps are void in that case.
        let process = self.process(who);
        if process.epoch == epoch {
            process.ops.extend(ops);
            self.after(2, Event::Go(who, epoch));
        }
    }

    /// Carries out a step. Returns whether the next step follows at once.
    fn perform(&mut self, who: Who, op: Op) -> bool {
        let epoch = self.process(who).epoch;
        match op {
            Op::Store(body) => {
                self.process(who).waits = true;
                self.leave(who, Event::Arrive(Rc::new(body), Reply::Waiting(who, epoch)));
                return false;
            }
            Op::Send(body, token) => {
                self.leave(who, Event::Arrive(Rc::new(body), Reply::Token(who, epoch, token)));
            }
            Op::Ack(stream, sequence) => {
                self.leave(who, Event::Ack(stream, sequence));
            }
            Op::Read(stream, sequence) => {
                self.leave(who, Event::Read(who, epoch, stream, sequence));
            }
            Op::Dispatcher(op) => {
                let next = self.dispatcher_performs(op);
                self.process(who).next(next);
            }
            Op::ReadOn => {
                let next = self.dispatcher_reads_on();
                self.process(who).next(next);
            }
            Op::Watchdog => self.watchdog_goes_on(),
        }
        true
    }

    /// Answers a service that reads a message again.
    pub(crate) fn read(&mut self, who: Who, epoch: u32, stream: Stream, sequence: u64) {
        let found = self.broker.queue(stream).messages.get(&sequence);
        let found = found.map(|message| (message.body.clone(), message.stored_at));
        self.reach_in_order(who, epoch, Input::Read(sequence, found));
    }

    pub(crate) fn tick(&mut self, who: Who, epoch: u32) {
        if self.process(who).epoch == epoch && self.process(who).up {
            self.reach(who, epoch, Input::Tick);
            let every = match who {
                Who::Watchdog => session::TICK.as_micros() as u64,
                Who::Dispatcher | Who::Collector(_) => 50 * MS,
            };
            self.after(every, Event::Tick(who, epoch));
        }
    }

    pub(crate) fn start(&mut self, who: Who) {
        let process = self.process(who);
        process.up = true;
        process.bound = true;
        process.ticks = 0;
        let epoch = process.epoch;
        self.log(format_args!("{who:?} starts"));
        match who {
            Who::Dispatcher => self.dispatcher_starts(),
            Who::Watchdog => self.watchdog_starts(),
            Who::Collector(lane) => self.collector_starts(lane),
        }
        self.after(MS, Event::Tick(who, epoch));
        let every = self.plan.faults.service_crash_ms;
        if every > 0 {
            let wait = self.chance.between(MS, 2 * every * MS);
            self.after(wait, Event::Crash(who));
        }
    }

    /// Delivers all unacknowledged messages that satisfy `concerns`, in order, before any new message.
    /// Returns their number.
    pub(crate) fn replay(&mut self, who: Who, stream: Stream, concerns: impl Fn(&Body) -> bool) -> usize {
        let epoch = self.process(who).epoch;
        let messages: Vec<_> = self
            .broker
            .queue(stream)
            .messages
            .iter()
            .filter(|(_, message)| concerns(&message.body))
            .map(|(sequence, message)| {
                Input::Delivery(stream, *sequence, message.body.clone(), message.stored_at)
            })
            .collect();
        let count = messages.len();
        for message in messages {
            self.reach_in_order(who, epoch, message);
        }
        count
    }

    pub(crate) fn crash(&mut self, who: Who) {
        if !self.process(who).up || self.calm {
            return;
        }
        let wait = self.chance.one_of(&[5 * MS, 100 * MS, 900 * MS]);
        self.stop(who, wait);
    }

    /// Ends a session: its state is gone, and its sent messages are still on their way.
    pub(crate) fn stop(&mut self, who: Who, wait: u64) {
        self.log(format_args!("{who:?} ends"));
        let loses = self.chance.hit(self.plan.faults.acks_lost * 10);
        let cut = self.chance.next();
        let process = self.process(who);
        let old = std::mem::take(process);
        *process = Process {
            epoch: old.epoch + 1,
            out_at: old.out_at,
            sent: old.sent,
            arrived: old.arrived,
            lost: old.lost,
            ..Process::default()
        };
        let on_its_way = old.sent - old.arrived;
        if loses && on_its_way > 0 {
            // A broken connection loses the end of the sent messages.
            process.lost.push(old.arrived + 1 + cut % on_its_way..=old.sent);
        }
        self.after(wait, Event::Start(who));
    }

    pub(crate) fn restart_services(&mut self) {
        let all: Vec<Who> = self.processes.keys().copied().collect();
        for who in all {
            self.stop(who, MS);
        }
    }
}
