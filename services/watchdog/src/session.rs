//! The watchdog's work while it leads: inputs and the time come in, operations come out.
//!
//! The service and the simulation drive this very value. An executor hands in messages, carries out the operations
//! of [`Session::next`] until none is left, and only then begins with a further effect by [`Session::turn`], or
//! hears again. Messages read by an operation are handed in as well, and their consequences go before all else.

mod delivery;
pub mod op;
mod quarantine;

use crate::{
    agenda::Agenda,
    decide::{Effect, Reason, Watchdog},
    reputation::{Reputation, Terms},
    unheld::Seat,
    unverified::Unverified,
};
use op::{Errand, Lost, Op, Writing};
use push0_domain::{
    Participant, PipelineId, Timestamp,
    message::{BlockEnded, Emission, FailureClass, Happening, Lease, Outcome, Role, TaskHeader, TaskResult},
    output::Output,
};
use std::{collections::VecDeque, time::Duration};

/// How often silence, timeouts and deadlines are checked: a tenth of a heartbeat.
pub const TICK: Duration = Duration::from_millis(25);
/// After how many ticks outputs are read from the stream, in case signals of records were missed, and pipelines that
/// stand are looked at.
const RECONCILE_EVERY: u32 = 40;

/// The watchdog's state from the moment it leads. `P` is the executor's name of a message's place.
#[derive(Debug)]
pub struct Session<P> {
    core: Watchdog,
    reputation: Reputation,
    pub(crate) unverified: Unverified,
    /// The effects that are not begun yet.
    agenda: Agenda,
    /// The operations under way, the next one first.
    at_once: VecDeque<Op<P>>,
    ticks: u32,
    /// Whether the core is to be told of a tick when nothing is under way any more.
    is_tick_due: bool,
}

impl<P> Session<P> {
    /// Creates a session that has heard nothing.
    pub fn new(condemn_after: Duration, quarantines: Terms) -> Self {
        Self {
            core: Watchdog::new(condemn_after),
            reputation: Reputation::new(quarantines),
            unverified: Unverified::default(),
            agenda: Agenda::default(),
            at_once: VecDeque::new(),
            ticks: 0,
            is_tick_due: false,
        }
    }

    /// Handles a heartbeat stored before this session. A prover that died while no watchdog led is silent from now on,
    /// like any other.
    pub fn recall(&mut self, lease: Lease, stored_at: Timestamp, now: Timestamp) {
        self.core.recall(lease, stored_at, now);
    }

    /// Handles the output of a pipeline as read from its records.
    pub fn recall_output(&mut self, pipeline: &PipelineId, output: Output, now: Timestamp) {
        self.core.recall_output(pipeline, output, now);
    }

    /// Handles a heartbeat.
    pub fn heard(&mut self, lease: Lease, now: Timestamp) {
        self.remind(&lease, now);
        self.agenda.add(self.core.heard(lease, now));
    }

    /// Handles the end of an attempt. If the attempt was accepted, other copies of its task are stopped. The reputation of
    /// provers changes by how attempts end, and not by results that wait for a verdict.
    pub fn attempt_ended(&mut self, result: &TaskResult, now: Timestamp) {
        let (header, prover) = (&result.header, result.participant());
        if result.verdict.is_some() {
            self.unverified.verdict(&header.key());
        }
        if matches!(result.outcome, Outcome::Completed { .. }) {
            self.core.over(&prover, header.attempt_id(), now);
        }
        let verdict = result.verdict.as_ref();
        let is_false = verdict.is_some_and(|verdict| verdict.invalid.is_some());
        let class = match result.failure() {
            Some(failure) => Some(failure.class),
            None if is_false => Some(FailureClass::InvalidProof),
            None if header.check && verdict.is_none() => return,
            None => None,
        };
        let fleet = self.core.fleet(&header.zkvm);
        let changes = match class {
            Some(class) => self.reputation.failed(&header.id, &prover, class, &fleet, now),
            None => {
                self.agenda.add(self.core.accepted(header, now));
                self.reputation.completed(&header.id, &prover, &fleet, now)
            }
        };
        self.note(changes, now);
    }

    /// Returns whether other copies of an attempt's task run or are in flight.
    pub fn has_rivals(&self, header: &TaskHeader, now: Timestamp) -> bool {
        self.core.has_rivals(header, now)
    }

    /// Handles the end of blocks no longer wanted.
    pub fn ended(&mut self, ended: BlockEnded, now: Timestamp) {
        self.agenda.add(self.core.ended(&ended, now));
        self.unverified.ended(ended);
    }

    /// Handles a record.
    pub fn emitted(&mut self, record: &Emission, now: Timestamp) {
        self.core.emitted(record, now);
    }

    /// Handles an event of a verifier.
    pub fn noticed(&mut self, verifier: &Participant, what: &Happening) {
        self.unverified.heard(verifier, what);
    }

    /// Handles the broker's word on a silent process: whether it knows no connection of the process.
    pub fn presence(&mut self, seat: &Seat, is_gone: bool, now: Timestamp) {
        self.core.presence(seat, is_gone, now);
    }

    /// Handles the passing of [`TICK`].
    pub fn tick(&mut self, now: Timestamp) {
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(RECONCILE_EVERY) {
            self.end_quarantines(now);
            self.at_once.push_back(Op::Tidy);
            self.reputation.forget(now);
            for pipeline in self.core.pipelines() {
                let next = self.core.next_of(&pipeline);
                self.at_once.push_back(Op::ReadOutput(pipeline, next));
            }
            self.at_once.push_back(Op::LookForLost);
        }
        // The core judges by the outputs, so those are read first.
        self.is_tick_due = true;
    }

    /// Returns the next operation of the work under way.
    pub fn next(&mut self, now: Timestamp) -> Option<Op<P>> {
        if self.at_once.is_empty() && std::mem::take(&mut self.is_tick_due) {
            self.judge(now);
        }
        self.at_once.pop_front()
    }

    fn judge(&mut self, now: Timestamp) {
        self.agenda.add(self.core.tick(now));
        if self.core.is_look_due(now) {
            self.at_once.extend([Role::Prover, Role::Verifier].map(Op::Look));
        }
        self.at_once
            .extend(self.core.to_ask(now).into_iter().map(Op::Ask));
    }

    /// Begins with the next effect. Returns `false` if there is none.
    pub fn turn(&mut self, now: Timestamp) -> bool {
        let Some(effect) = self.agenda.next() else {
            return false;
        };
        let op = match effect {
            Effect::Report {
                prover,
                held,
                end,
                heard_at,
            } => {
                let ran = Duration::from_millis(held.running_ms.unwrap_or(0));
                let (key, sequence, heard) = (held.header.key(), held.sequence, Some((heard_at, ran)));
                let lost = Lost {
                    prover,
                    end,
                    sequence,
                    heard,
                    trace: held.trace,
                };
                Op::Locate(Role::Prover, key, Errand::Report(lost))
            }
            Effect::GiveBack(_, role, held) => {
                Op::Locate(role, held.header.key(), Errand::GiveBack(held.sequence))
            }
            Effect::Extend(_, held) => {
                Op::Locate(Role::Prover, held.header.key(), Errand::Extend(held.sequence))
            }
            Effect::Hedge {
                prover,
                held,
                because,
            } => {
                let copy = Writing::Copy(prover, because, Some(held.trace));
                Op::ReadTask(held.header.key(), copy)
            }
            Effect::Stop {
                prover,
                attempt,
                reason,
            } => match reason {
                Reason::Emitted => Op::ReadRest(prover, attempt),
                _ => Op::Stop(prover, attempt, reason),
            },
            Effect::Late(attempts, ended) => Op::Late(attempts, ended),
            Effect::Announce(happening) => Op::Announce(happening),
        };
        use Happening::{ProverLost, ProverSuspected};
        let is_fewer = matches!(op, Op::Announce(ProverLost { .. } | ProverSuspected { .. }));
        self.at_once.push_back(op);
        if is_fewer {
            // A process that is not there any more may have been the last prover not in quarantine.
            self.end_quarantines(now);
        }
        true
    }

    /// Returns whether effects wait for their turn.
    pub fn has_turns(&self) -> bool {
        !self.agenda.is_empty()
    }

    /// Returns the numbers of provers and verifiers: those heard, and those silent and not known to be dead.
    pub fn processes(&self) -> (usize, usize) {
        (self.core.alive(), self.core.suspected())
    }
}
