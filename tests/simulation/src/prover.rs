//! Provers and verifiers as run by `shared/prover-sdk`, with every way to fail.

mod deliveries;
mod work;

use crate::{
    broker::{Body, Stream},
    chance::Chance,
    plan::{Plan, valid},
    world::{Event, MS, Reply, World},
};
use push0_domain::{
    Participant, ProverId, Timestamp, ZkvmId,
    message::{FailureClass, Held, Lease, Origin, ProverState, Role, Task, TaskHeader},
    task::AttemptId,
    trace::TraceContext,
};
use std::{rc::Rc, time::Duration};

const BEAT: u64 = 250 * MS;
const CLOSEST: u64 = 5 * MS;
const EXTEND_EVERY: u64 = 1000 * MS;
const AVOIDED_ROUNDS: u32 = 2;
const AVOIDED_FOR: u64 = 50 * MS;
const WAITS_MAX: u64 = 600 * MS;
const GIVEN_BACK_MAX: u32 = 2;

/// An event of a prover's process.
#[derive(Clone, Debug)]
pub(crate) enum Act {
    Start,
    Die,
    Beat,
    BeatSoon,
    Deliver(Stream, u64, u32, Rc<Body>),
    Finish(u64, Fate),
    Stop(AttemptId),
    WaitedTooLong(u64),
    /// The order to take no work for this long.
    Rest(Duration),
    /// The end of a rest, unless it was ended or prolonged meanwhile.
    Rested,
    Stored(u64),
}

/// The end of an attempt or a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Honest,
    Lie,
    Fails(FailureClass),
    /// A check without a verdict; attempts never end so.
    Unclear,
}

#[derive(Debug)]
struct Entry {
    id: u64,
    stream: Stream,
    sequence: u64,
    deliveries: u32,
    body: Rc<Body>,
    started: Option<Timestamp>,
    /// Whether the end is decided, and only the result must still be stored.
    ended: bool,
    obeys: bool,
    hangs: bool,
}

impl Entry {
    fn header(&self) -> Option<&TaskHeader> {
        match &*self.body {
            Body::Task(task) => Some(&task.header),
            Body::Check(result) => Some(&result.header),
            _ => None,
        }
    }
}

/// A process that proves or verifies.
#[derive(Debug)]
pub(crate) struct Prover {
    pub(crate) id: ProverId,
    pub(crate) zkvm: ZkvmId,
    role: Role,
    slots: usize,
    ahead: usize,
    /// Whether the prover announces each running attempt to end soon, true or not, and takes another
    /// task for each.
    foretells: bool,
    pub(crate) epoch: u32,
    up: bool,
    frozen_until: u64,
    /// Until when the prover rests in quarantine.
    rests_until: Timestamp,
    beat: u64,
    beat_is_due: bool,
    beat_at: u64,
    extended_at: u64,
    held: Vec<Entry>,
    coming: usize,
    next_entry: u64,
}

impl Prover {
    pub(crate) fn draw(plan: &Plan, chance: &mut Chance) -> Vec<Self> {
        let mut provers = Vec::new();
        for zkvm in &plan.zkvms {
            for role in [Role::Prover, Role::Verifier] {
                for at in 0..chance.between(1, if role == Role::Prover { 3 } else { 2 }) {
                    let kind = if role == Role::Prover { "p" } else { "v" };
                    let slots = chance.between(1, 2) as usize;
                    let ahead = if chance.hit(500) { slots } else { 0 };
                    provers.push(Self {
                        id: valid(ProverId::new(&format!("{kind}-{zkvm}-{at}"))),
                        zkvm: zkvm.clone(),
                        role,
                        slots,
                        ahead,
                        foretells: ahead == 0 && at % 2 == 0,
                        epoch: 0,
                        up: false,
                        frozen_until: 0,
                        rests_until: Timestamp::default(),
                        beat: 0,
                        beat_is_due: false,
                        beat_at: 0,
                        extended_at: 0,
                        held: Vec::new(),
                        coming: 0,
                        next_entry: 0,
                    });
                }
            }
        }
        provers
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.up && self.held.is_empty() && self.coming == 0
    }

    /// Returns whether this process, by name and incarnation, has a connection to the broker.
    pub(crate) fn is_connected(&self, (who, incarnation): &(Participant, u64)) -> bool {
        self.up && self.id == who.name && self.zkvm == who.zkvm && u64::from(self.epoch) == *incarnation
    }

    fn takes(&self) -> Stream {
        match self.role {
            Role::Prover => Stream::Tasks,
            Role::Verifier => Stream::Checks,
        }
    }

    fn free(&self) -> usize {
        let unproved = self.held.iter().filter(|e| !e.ended).count();
        let ending = self.held.iter().filter(|e| self.ends_soon(e)).count();
        (self.slots + self.ahead + ending).saturating_sub(unproved + self.coming)
    }

    fn ends_soon(&self, entry: &Entry) -> bool {
        self.foretells && entry.started.is_some() && !entry.ended
    }

    fn lease(&self, now: Timestamp) -> Lease {
        let held = self.held.iter().filter_map(|e| {
            Some(Held {
                header: e.header()?.clone(),
                sequence: e.sequence,
                running_ms: e.started.map(|at| (now.0 - at.0) / 1000),
                ends_soon: self.ends_soon(e),
                progress_permille: None,
                trace: TraceContext::default(),
            })
        });
        Lease {
            prover: self.id.clone(),
            zkvm: self.zkvm.clone(),
            role: self.role,
            incarnation: u64::from(self.epoch),
            origin: Some(Origin {
                host: "simulated".into(),
                pid: self.epoch,
            }),
            beat: self.beat,
            slots: u32::try_from(self.slots).unwrap_or(1),
            ahead: u32::try_from(self.ahead).unwrap_or(0),
            state: if self.rests_until > now {
                ProverState::Quarantined
            } else {
                ProverState::Active
            },
            held: held.collect(),
        }
    }
}

impl World {
    pub(crate) fn start_prover(&mut self, at: usize) {
        let epoch = self.provers[at].epoch;
        let wait = self.chance.between(0, 300 * MS);
        self.after(wait, Event::Prover(at, epoch, Act::Start));
    }

    /// Restarts a prover with a hanging attempt, when the faults are over.
    pub(crate) fn heal(&mut self, at: usize) {
        if self.provers[at]
            .held
            .iter()
            .any(|entry| entry.hangs && !entry.ended)
        {
            self.die(at, 100 * MS);
        }
    }

    fn die(&mut self, at: usize, wait: u64) {
        self.log(format_args!("prover {at} dies"));
        let prover = &mut self.provers[at];
        prover.epoch += 1;
        prover.up = false;
        prover.held.clear();
        prover.coming = 0;
        prover.rests_until = Timestamp::default();
        let epoch = prover.epoch;
        self.after(wait, Event::Prover(at, epoch, Act::Start));
    }

    pub(crate) fn prover_acts(&mut self, at: usize, epoch: u32, act: Act) {
        let prover = &self.provers[at];
        if prover.epoch != epoch {
            return;
        }
        if prover.frozen_until > self.now.0 {
            return self.at(prover.frozen_until, Event::Prover(at, epoch, act));
        }
        match act {
            Act::Start => self.prover_starts(at),
            Act::Die if self.calm => {}
            Act::Die => self.prover_suffers(at),
            Act::Beat => {
                self.beat(at);
                self.after(BEAT, Event::Prover(at, epoch, Act::Beat));
            }
            Act::BeatSoon => {
                self.provers[at].beat_is_due = false;
                self.beat(at);
            }
            Act::Deliver(stream, sequence, deliveries, body) => {
                self.take(at, stream, sequence, deliveries, body)
            }
            Act::Finish(id, fate) => self.finish(at, id, fate),
            Act::Stop(attempt) => self.obey(at, &attempt),
            Act::WaitedTooLong(id) => self.hand_back(at, id),
            Act::Rest(lasts) => self.rest(at, lasts),
            Act::Rested => {
                self.changed(at);
                self.hand_out();
            }
            Act::Stored(id) => self.result_is_stored(at, id),
        }
    }

    fn prover_starts(&mut self, at: usize) {
        let prover = &mut self.provers[at];
        prover.up = true;
        prover.beat = 0;
        prover.beat_is_due = false;
        let epoch = prover.epoch;
        self.log(format_args!("prover {at} starts"));
        self.after(0, Event::Prover(at, epoch, Act::Beat));
        self.schedule_death(at);
        self.hand_out();
    }

    fn schedule_death(&mut self, at: usize) {
        let every = self.plan.faults.prover_death_ms;
        if every > 0 {
            let wait = self.chance.between(MS, 2 * every * MS);
            let epoch = self.provers[at].epoch;
            self.after(wait, Event::Prover(at, epoch, Act::Die));
        }
    }

    fn prover_suffers(&mut self, at: usize) {
        if self.chance.hit(self.plan.faults.freezes) {
            // The longest is longer than the watchdog waits for a prover that is connected.
            let wait = self
                .chance
                .one_of(&[100 * MS, 400 * MS, 1000 * MS, 3000 * MS, 12_000 * MS]);
            self.log(format_args!("prover {at} freezes"));
            self.provers[at].frozen_until = self.now.0 + wait;
            self.schedule_death(at);
        } else {
            let wait = self.chance.one_of(&[100 * MS, 400 * MS, 3000 * MS]);
            self.die(at, wait);
        }
    }

    fn beat(&mut self, at: usize) {
        let now = self.now;
        let prover = &mut self.provers[at];
        prover.beat += 1;
        let lease = prover.lease(now);
        if now.0 >= prover.extended_at + EXTEND_EVERY {
            prover.extended_at = now.0;
            let held: Vec<_> = prover
                .held
                .iter()
                .map(|e| (e.stream, e.sequence, e.deliveries))
                .collect();
            for (stream, sequence, delivery) in held {
                self.after(200, Event::Progress(stream, sequence, delivery));
            }
        }
        if self.chance.hit(self.plan.faults.beats_lost) {
            return;
        }
        let hop = self.hop();
        let prover = &mut self.provers[at];
        prover.beat_at = prover.beat_at.max(now.0 + hop);
        let beat_at = prover.beat_at;
        self.at(beat_at, Event::Arrive(Rc::new(Body::Lease(lease)), Reply::Nobody));
    }

    fn changed(&mut self, at: usize) {
        let prover = &mut self.provers[at];
        if !std::mem::replace(&mut prover.beat_is_due, true) {
            let epoch = prover.epoch;
            self.after(CLOSEST, Event::Prover(at, epoch, Act::BeatSoon));
        }
    }

    /// Obeys a quarantine: the prover finishes its begun tasks, and takes nothing new.
    fn rest(&mut self, at: usize, lasts: Duration) {
        let prover = &mut self.provers[at];
        prover.rests_until = self.now.plus(lasts);
        let (until, epoch) = (prover.rests_until, prover.epoch);
        self.at(until.0, Event::Prover(at, epoch, Act::Rested));
        self.changed(at);
    }

    fn take(&mut self, at: usize, stream: Stream, sequence: u64, deliveries: u32, body: Rc<Body>) {
        let prover = &mut self.provers[at];
        prover.coming = prover.coming.saturating_sub(1);
        if let Body::Task(Task { avoid, .. }) = &*body
            && avoid.contains(&prover.id)
            && deliveries <= AVOIDED_ROUNDS
        {
            self.after(AVOIDED_FOR, Event::GiveBack(stream, sequence));
            return self.hand_out();
        }
        prover.next_entry += 1;
        let id = prover.next_entry;
        prover.held.push(Entry {
            id,
            stream,
            sequence,
            deliveries,
            body,
            started: None,
            ended: false,
            obeys: true,
            hangs: false,
        });
        let (epoch, foretells) = (prover.epoch, prover.foretells);
        if foretells && deliveries <= GIVEN_BACK_MAX {
            self.after(WAITS_MAX, Event::Prover(at, epoch, Act::WaitedTooLong(id)));
        }
        self.changed(at);
        self.begin_waiting(at);
    }

    fn hand_back(&mut self, at: usize, id: u64) {
        let held = &mut self.provers[at].held;
        let waits = |e: &Entry| e.id == id && e.started.is_none() && !e.ended;
        if let Some(position) = held.iter().position(waits) {
            let entry = held.remove(position);
            self.after(0, Event::GiveBack(entry.stream, entry.sequence));
            self.changed(at);
        }
    }

    fn result_is_stored(&mut self, at: usize, id: u64) {
        let prover = &mut self.provers[at];
        let Some(position) = prover.held.iter().position(|e| e.id == id) else {
            return;
        };
        let entry = prover.held.remove(position);
        if !self.chance.hit(self.plan.faults.acks_lost) {
            let hop = self.hop();
            self.after(hop, Event::Ack(entry.stream, entry.sequence));
        }
        self.changed(at);
        self.hand_out();
    }

    fn obey(&mut self, at: usize, attempt: &AttemptId) {
        let found = self.provers[at].held.iter().filter(|e| {
            !e.ended
                && e.obeys
                && e.stream == Stream::Tasks
                && e.header().is_some_and(|h| h.attempt_id() == *attempt)
        });
        let found: Vec<u64> = found.map(|e| e.id).collect();
        for id in found {
            self.finish(at, id, Fate::Fails(FailureClass::Stopped));
        }
    }
}
