//! The watchdog's shell, with its effects in the order of `services/watchdog/src/service.rs`.

use crate::{
    broker::{Body, Stream},
    process::{Input, Op, Who},
    world::World,
};
use push0_domain::{
    Participant, ZkvmId,
    message::{Emission, Held, Lease, ProverState, Role, Task},
    pipeline::Rest,
    subject::AttemptKey,
};
use push0_watchdog::{
    decide::{Effect, End, Reason, Watchdog},
    reports,
    reputation::{Change, Reputation, Terms},
    unheld::{Fate, Unheld},
};
use std::time::Duration;

const RECONCILE_EVERY: u32 = 20;
/// Short, so that quarantines begin and end while faults go on.
const QUARANTINES: Terms = Terms {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(8),
};

/// State of one session of the watchdog.
pub(crate) struct WatchdogShell {
    core: Watchdog,
    reputation: Reputation,
    pub(crate) acts: Acts,
}

/// Counts over all sessions.
#[derive(Clone, Copy, Default)]
pub(crate) struct Acts {
    pub(crate) quarantines: u64,
    pub(crate) passed_on: u64,
}

impl Default for WatchdogShell {
    fn default() -> Self {
        Self {
            core: Watchdog::default(),
            reputation: Reputation::new(QUARANTINES),
            acts: Acts::default(),
        }
    }
}

/// An attempt whose end or second copy the watchdog writes, once it has read the task.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    key: AttemptKey,
    /// The message of the task, which is left alone if another one has replaced it.
    pub(crate) sequence: u64,
    prover: Participant,
    ran: Duration,
}

impl Written {
    fn of(held: &Held, prover: Participant) -> Self {
        Self {
            key: held.header.key(),
            sequence: held.sequence,
            prover,
            ran: Duration::from_millis(held.running_ms.unwrap_or(0)),
        }
    }
}

impl World {
    pub(crate) fn watchdog_starts(&mut self) {
        self.watchdog = WatchdogShell {
            acts: self.watchdog.acts,
            ..WatchdogShell::default()
        };
        for (prover, quarantine) in &self.broker.quarantines {
            let (prover, quarantine) = (prover.clone(), quarantine.clone());
            self.watchdog.reputation.recall(prover, quarantine, self.now);
        }
        let leases: Vec<_> = self.broker.leases.values().cloned().collect();
        for lease in leases {
            self.watchdog.core.recall(lease, self.now);
        }
    }

    pub(crate) fn watchdog_hears(&mut self, input: Input) -> Vec<Op> {
        match input {
            Input::Tick => self.watchdog_ticks(),
            Input::Signal(body) => self.watchdog_signal(&body),
            _ => Vec::new(),
        }
    }

    fn watchdog_ticks(&mut self) -> Vec<Op> {
        let now = self.now;
        let process = self.process(Who::Watchdog);
        process.ticks += 1;
        let mut ops = Vec::new();
        if process.ticks.is_multiple_of(RECONCILE_EVERY) {
            ops.extend(self.end_quarantines());
            self.recall_outputs();
        }
        let effects = self.watchdog.core.tick(now);
        if self.watchdog.core.is_look_due(now) {
            ops.extend(self.look());
        }
        // The broker answers at once. It knows a frozen prover's connection, and not that of a dead one.
        let core = &mut self.watchdog.core;
        for seat in core.to_ask(now) {
            let is_connected = self.provers.iter().any(|prover| prover.is_connected(&seat));
            core.presence(&seat, !is_connected, now);
        }
        ops.extend(self.watchdog_acts(effects));
        ops
    }

    fn recall_outputs(&mut self) {
        for lane in 0..self.plan.lanes.len() {
            let core = &mut self.watchdog.core;
            let pipeline = &self.plan.lanes[lane].pipeline.name;
            let next = core.next_of(pipeline);
            let is_next = |(_, record): &&(u64, Emission)| Some(record.last.number) == next;
            let missed = next.is_none() || self.broker.log[lane].iter().rev().any(|r| is_next(&r));
            if missed && let Some((output, _)) = self.broker.output(lane) {
                core.recall_output(pipeline, output, self.now);
            }
        }
    }

    fn watchdog_signal(&mut self, body: &Body) -> Vec<Op> {
        let now = self.now;
        let WatchdogShell { core, reputation, .. } = &mut self.watchdog;
        let effects = match body {
            Body::Lease(lease) => {
                let reminder = self.remind(lease);
                let effects = self.watchdog.core.heard(lease.clone(), now);
                let acts = self.watchdog_acts(effects);
                return reminder.into_iter().chain(acts).collect();
            }
            Body::Result(result) | Body::Verdict(result) => {
                let (effects, changes) = reports::attempt_ended(core, reputation, result, now);
                let noted = self.note(changes);
                let acts = self.watchdog_acts(effects);
                return noted.into_iter().chain(acts).collect();
            }
            Body::Ended(ended) => core.ended(ended, now),
            Body::Records(_, _, records) => {
                records.iter().for_each(|record| core.emitted(record, now));
                Vec::new()
            }
            _ => Vec::new(),
        };
        self.watchdog_acts(effects)
    }

    fn watchdog_acts(&mut self, effects: Vec<Effect>) -> Vec<Op> {
        let mut ops = Vec::new();
        for effect in effects {
            if self.logs() {
                self.log(format_args!("watchdog: {effect:?}"));
            }
            ops.extend(self.watchdog_act(effect));
        }
        ops
    }

    fn watchdog_act(&mut self, effect: Effect) -> Vec<Op> {
        match effect {
            Effect::Report {
                prover, held, end, ..
            } => vec![Op::Report(Written::of(&held, prover), end)],
            Effect::GiveBack(_, role, held) => vec![Op::GiveBack(stream_of(role), held.sequence)],
            Effect::Announce(happening) => {
                // A process that is not there any more may have been the last prover not in quarantine.
                use push0_domain::message::Happening::{ProverLost, ProverSuspected};
                match happening {
                    ProverLost { .. } | ProverSuspected { .. } => self.end_quarantines(),
                    _ => Vec::new(),
                }
            }
            Effect::Hedge { prover, held, .. } => vec![Op::Hedge(Written::of(&held, prover))],
            Effect::Extend(_, held) => vec![Op::Extend(Stream::Tasks, held.sequence)],
            Effect::Stop {
                prover,
                attempt,
                reason,
            } => {
                let lane = self.lane_of(&attempt.task.stage.pipeline);
                if reason == Reason::Emitted && self.plan.lanes[lane].pipeline.rest == Rest::Finish {
                    return Vec::new();
                }
                let prover = self
                    .prover_at(&prover)
                    .map(|at| Op::Store(Body::Stop(at, attempt)));
                prover.into_iter().collect()
            }
            Effect::Late(attempts, ended) => {
                let queue = self.broker.queue(Stream::Tasks);
                let is_there = attempts.iter().any(|key| queue.sequence_of(key).is_some());
                let ended = is_there.then_some(Op::Store(Body::Ended(*ended)));
                ended.into_iter().collect()
            }
        }
    }

    fn prover_at(&self, prover: &Participant) -> Option<usize> {
        let is_it = |p: &crate::prover::Prover| p.id == prover.name && p.zkvm == prover.zkvm;
        self.provers.iter().position(is_it)
    }
}

impl World {
    /// Compares TASKS and CHECKS with the leases, and passes on deliveries in no lease.
    fn look(&mut self) -> Vec<Op> {
        let mut ops = Vec::new();
        for role in [Role::Prover, Role::Verifier] {
            let present = self.broker.attempts(stream_of(role));
            let keys = present.keys().cloned().collect();
            for unheld in self.watchdog.core.look(role, keys, self.now) {
                let sequence = present.get(&unheld.key).copied();
                ops.extend(sequence.and_then(|sequence| self.pass_on(unheld, sequence)));
            }
        }
        ops
    }

    fn pass_on(&mut self, unheld: Unheld, sequence: u64) -> Option<Op> {
        if self.logs() {
            self.log(format_args!("watchdog: {unheld:?}"));
        }
        let Unheld { key, role, fate } = unheld;
        let stream = stream_of(role);
        let message = self.broker.queue(stream).messages.get(&sequence)?;
        if message.held_at.is_none() {
            self.watchdog.core.waits(role, &key);
            return None;
        }
        self.watchdog.acts.passed_on += u64::from(fate != Fate::Suspect);
        let written = |prover| Written {
            key,
            sequence,
            prover,
            ran: Duration::ZERO,
        };
        match fate {
            Fate::Fell(prover, end) => Some(Op::Report(written(prover), end)),
            Fate::Doubted(prover) => Some(Op::Hedge(written(prover))),
            Fate::Extended => Some(Op::Extend(stream, sequence)),
            Fate::Suspect => None,
            Fate::Lost => Some(Op::GiveBack(stream, sequence)),
        }
    }

    /// Stores quarantines that begin or end early, and tells their provers.
    fn note(&mut self, changes: Vec<Change>) -> Vec<Op> {
        let mut ops = Vec::new();
        for change in changes {
            if self.logs() {
                self.log(format_args!("watchdog: {change:?}"));
            }
            self.watchdog.acts.quarantines += u64::from(matches!(change, Change::Begun(..)));
            let (Change::Begun(prover, quarantine) | Change::Ended(prover, quarantine)) = change;
            let left = quarantine.until.since(self.now);
            let order = self.prover_at(&prover).map(|at| Op::Store(Body::Rest(at, left)));
            ops.push(Op::SaveQuarantine(prover, quarantine));
            ops.extend(order);
        }
        ops
    }

    /// Ends quarantines that have expired or leave a zkVM without provers.
    fn end_quarantines(&mut self) -> Vec<Op> {
        let now = self.now;
        let zkvms: Vec<ZkvmId> = self.watchdog.core.zkvms().into_iter().collect();
        let mut ops = Vec::new();
        for zkvm in zkvms {
            let fleet = self.watchdog.core.fleet(&zkvm);
            let relieved = self.watchdog.reputation.relieve(&fleet, now);
            ops.extend(self.note(relieved.into_iter().collect()));
        }
        self.watchdog.reputation.over(now);
        self.watchdog.reputation.forget(now);
        ops
    }

    /// Repeats an order to a prover whose heartbeat shows the wrong state.
    fn remind(&mut self, lease: &Lease) -> Option<Op> {
        let rests = lease.state == ProverState::Quarantined;
        let reminder = self.watchdog.reputation.remind(&lease.sender(), rests, self.now);
        let (left, _) = reminder?;
        let at = self.prover_at(&lease.sender())?;
        Some(Op::Store(Body::Rest(at, left)))
    }

    fn task_of(&mut self, written: &Written) -> Option<Task> {
        let queue = self.broker.queue(Stream::Tasks);
        let sequence = queue.sequence_of(&written.key);
        let sequence = sequence.filter(|sequence| *sequence == written.sequence)?;
        match &*queue.messages.get(&sequence)?.body {
            Body::Task(task) => Some(task.clone()),
            _ => None,
        }
    }

    /// Returns the report of an attempt's end; `None` if the task is no longer in TASKS.
    pub(crate) fn report(&mut self, written: &Written, end: End) -> Option<Body> {
        let task = self.task_of(written)?;
        let prover = written.prover.name.clone();
        Some(Body::Result(reports::lost(task, prover, end, written.ran)))
    }

    pub(crate) fn second_copy(&mut self, written: &Written) -> Option<Body> {
        let task = self.task_of(written)?;
        Some(Body::Stage(reports::second_copy(
            task,
            written.prover.name.clone(),
            self.now,
        )))
    }
}

fn stream_of(role: Role) -> Stream {
    match role {
        Role::Prover => Stream::Tasks,
        Role::Verifier => Stream::Checks,
    }
}
