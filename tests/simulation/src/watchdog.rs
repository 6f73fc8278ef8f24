//! Carries out the operations of the watchdog's session, as `services/watchdog/src/service/act.rs` does.

use crate::{
    broker::{Body, Stream},
    process::{Input, Op, Who},
    world::{Event, World},
};
use push0_domain::{
    Participant, PipelineId,
    message::{Emission, Role, TaskResult},
    subject::AttemptKey,
    trace::TraceContext,
};
use push0_watchdog::{
    decide::CONDEMN_AFTER,
    reputation::{Change, Terms},
    session::{
        Session,
        op::{self, Delivery, Errand, Found, Stored},
    },
    unheld::Fate,
};
use std::time::Duration;

/// Short, so that quarantines begin and end while faults go on.
const QUARANTINES: Terms = Terms {
    first: Duration::from_secs(1),
    longest: Duration::from_secs(8),
};
/// How often, in a thousand effects, the time for effects is over and inputs go first.
const SLICE_ENDS: u64 = 200;

/// The stream and the sequence of a message.
type Place = (Stream, u64);

/// State of one session of the watchdog.
pub(crate) struct WatchdogShell {
    session: Session<Place>,
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
            session: Session::new(CONDEMN_AFTER, QUARANTINES),
            acts: Acts::default(),
        }
    }
}

impl World {
    pub(crate) fn watchdog_starts(&mut self) {
        self.watchdog = WatchdogShell {
            acts: self.watchdog.acts,
            ..WatchdogShell::default()
        };
        let session = &mut self.watchdog.session;
        for (prover, quarantine) in &self.broker.quarantines {
            session.recall_quarantine(prover.clone(), quarantine.clone(), self.now);
        }
        for lease in self.broker.leases.values() {
            session.recall(lease.clone(), self.now, self.now);
        }
    }

    pub(crate) fn watchdog_hears(&mut self, input: Input) -> Vec<Op> {
        let (session, now) = (&mut self.watchdog.session, self.now);
        match input {
            Input::Tick => session.tick(now),
            Input::Signal(body) => match &*body {
                Body::Lease(lease) => session.heard(lease.clone(), now),
                Body::Result(result) | Body::Verdict(result) => session.attempt_ended(result, now),
                Body::Ended(ended) => session.ended(ended.clone(), now),
                Body::Records(_, _, records) => {
                    records.iter().for_each(|record| session.emitted(record, now));
                }
                _ => {}
            },
            _ => {}
        }
        vec![Op::Watchdog]
    }

    /// Carries out the next operation, or begins with the next effect.
    pub(crate) fn watchdog_goes_on(&mut self) {
        let now = self.now;
        let op = loop {
            if let Some(op) = self.watchdog.session.next(now) {
                break op;
            }
            if self.chance.hit(SLICE_ENDS) || !self.watchdog.session.turn(now) {
                return;
            }
        };
        if self.logs() {
            self.log(format_args!("watchdog: {op:?}"));
        }
        let op = self.watchdog_performs(op);
        let ops = op.into_iter().chain([Op::Watchdog]);
        self.process(Who::Watchdog).ops.extend(ops);
    }

    fn watchdog_performs(&mut self, op: op::Op<Place>) -> Option<Op> {
        use op::Op::*;
        let now = self.now;
        match op {
            SaveQuarantine(change) => {
                self.watchdog.acts.quarantines += u64::from(matches!(change, Change::Begun(..)));
                let (Change::Begun(prover, quarantine) | Change::Ended(prover, quarantine)) = change;
                self.broker.quarantines.insert(prover, quarantine);
            }
            ReadOutput(pipeline, next) => self.read_output(&pipeline, next),
            Look(role) => {
                let present = self.broker.attempts(stream_of(role)).into_keys().collect();
                self.watchdog.session.looked(role, present, now);
            }
            // The broker answers at once. It knows a frozen prover's connection, and not that of a dead one.
            Ask(seat) => {
                let is_connected = self.provers.iter().any(|prover| prover.is_connected(&seat));
                self.watchdog.session.presence(&seat, !is_connected, now);
            }
            Locate(role, key, errand) => {
                let found = self.locate(role, &key);
                if let (Errand::Unheld(fate), Some(found)) = (&errand, &found) {
                    let is_passed_on = *fate != Fate::Suspect && found.state == Delivery::Delivered;
                    self.watchdog.acts.passed_on += u64::from(is_passed_on);
                }
                self.watchdog.session.located(role, key, errand, found);
            }
            ReadTask(key, writing) => {
                let stored = self.stored(&key);
                self.watchdog.session.task_read(key, writing, stored, now);
            }
            ReadCheck(key) => {
                let check = self.check_of(&key).map(|check| (check, TraceContext::default()));
                self.watchdog.session.check_read(key, check, now);
            }
            ReadRest(prover, attempt) => {
                let lane = self.lane_of(&attempt.task.stage.pipeline);
                let rest = self.plan.lanes[lane].pipeline.rest;
                self.watchdog.session.rest_read(prover, attempt, Some(rest));
            }
            Quarantine(prover, left, _) => {
                let at = self.prover_at(&prover)?;
                return Some(Op::Store(Body::Rest(at, left)));
            }
            Stop(prover, attempt, _) => {
                let at = self.prover_at(&prover)?;
                return Some(Op::Store(Body::Stop(at, attempt)));
            }
            Late(attempts, ended) => {
                let queue = self.broker.queue(Stream::Tasks);
                let is_there = attempts.iter().any(|key| queue.sequence_of(key).is_some());
                return is_there.then_some(Op::Store(Body::Ended(*ended)));
            }
            StoreEnd(result, ..) => return Some(Op::Store(Body::Result(*result))),
            StoreCopy(_, _, ready, _) => return Some(Op::Store(Body::Stage(*ready))),
            Acknowledge((stream, sequence)) | Remove(_, (stream, sequence)) => {
                return Some(Op::Ack(stream, sequence));
            }
            GiveBack((stream, sequence), _) => {
                self.leave(Who::Watchdog, Event::GiveBack(stream, sequence));
            }
            Extend((stream, sequence)) => self.leave(Who::Watchdog, Event::Extend(stream, sequence)),
            Announce(_) | Tidy | LookForLost => {}
        }
        None
    }

    fn read_output(&mut self, pipeline: &PipelineId, next: Option<u64>) {
        let lane = self.lane_of(pipeline);
        let is_next = |(_, record): &&(u64, Emission)| Some(record.last.number) == next;
        let missed = next.is_none() || self.broker.log[lane].iter().rev().any(|r| is_next(&r));
        if missed && let Some((output, _)) = self.broker.output(lane) {
            let session = &mut self.watchdog.session;
            session.recall_output(pipeline, output, self.now);
        }
    }

    fn locate(&mut self, role: Role, key: &AttemptKey) -> Option<Found<Place>> {
        let stream = stream_of(role);
        let sequence = self.broker.attempts(stream).get(key).copied()?;
        let message = self.broker.queue(stream).messages.get(&sequence)?;
        Some(Found {
            sequence,
            state: match message.held_at {
                Some(_) => Delivery::Delivered,
                None => Delivery::Waits,
            },
            place: (stream, sequence),
        })
    }

    fn stored(&mut self, key: &AttemptKey) -> Option<Stored> {
        let queue = self.broker.queue(Stream::Tasks);
        let sequence = queue.sequence_of(key)?;
        let message = queue.messages.get(&sequence)?;
        let Body::Task(task) = &*message.body else {
            return None;
        };
        let trace = TraceContext::default();
        Some((task.clone(), sequence, message.stored_at, trace))
    }

    fn check_of(&mut self, key: &AttemptKey) -> Option<TaskResult> {
        let queue = self.broker.queue(Stream::Checks);
        let sequence = queue.sequence_of(key)?;
        match &*queue.messages.get(&sequence)?.body {
            Body::Check(result) => Some(result.clone()),
            _ => None,
        }
    }

    fn prover_at(&self, prover: &Participant) -> Option<usize> {
        let is_it = |p: &crate::prover::Prover| p.id == prover.name && p.zkvm == prover.zkvm;
        self.provers.iter().position(is_it)
    }
}

fn stream_of(role: Role) -> Stream {
    match role {
        Role::Prover => Stream::Tasks,
        Role::Verifier => Stream::Checks,
    }
}
