//! Attempts and checks: their fate, their duration and their results.

use super::{AVOIDED_ROUNDS, Act, Fate, GIVEN_BACK_MAX};
use crate::{
    broker::Body,
    proofs,
    world::{Event, MS, Reply, World},
};
use push0_domain::{
    Payloads, ProverId,
    message::{Failure, FailureClass, Outcome, Task, TaskHeader, TaskResult, Verdict},
};
use std::rc::Rc;

const CHECKS_MAX: u32 = 5;
const CHECK_AGAIN: u64 = 200 * MS;

impl World {
    pub(super) fn begin_waiting(&mut self, at: usize) {
        loop {
            let prover = &mut self.provers[at];
            let running = prover
                .held
                .iter()
                .filter(|e| e.started.is_some() && !e.ended)
                .count();
            if running >= prover.slots {
                return;
            }
            let Some(entry) = prover.held.iter_mut().find(|e| e.started.is_none() && !e.ended) else {
                return;
            };
            entry.started = Some(self.now);
            let (id, epoch) = (entry.id, prover.epoch);
            let (body, deliveries) = (entry.body.clone(), entry.deliveries);
            let (fate, takes) = match &*body {
                Body::Task(task) => {
                    self.promises.starts(&task.header);
                    self.fate(&task.header, deliveries)
                }
                _ => self.fate_of_check(),
            };
            match fate {
                Some(fate) => self.after(takes, Event::Prover(at, epoch, Act::Finish(id, fate))),
                None => {
                    let obeys = self.chance.hit(500);
                    let entry = self.provers[at].held.iter_mut().find(|e| e.id == id);
                    if let Some(entry) = entry {
                        entry.hangs = true;
                        entry.obeys = obeys;
                    }
                }
            }
            self.changed(at);
        }
    }

    /// Draws the fate of an attempt and the time until its end; the fate is `None` if the attempt hangs.
    fn fate(&mut self, header: &TaskHeader, deliveries: u32) -> (Option<Fate>, u64) {
        let faults = self.plan.faults;
        if deliveries > header.attempts_max + AVOIDED_ROUNDS + GIVEN_BACK_MAX {
            return (Some(Fate::Fails(FailureClass::Died)), 0);
        }
        if self.chance.hit(faults.hangs) {
            return (None, 0);
        }
        let takes = if self.chance.hit(faults.slow) {
            self.chance.between(500 * MS, 3000 * MS)
        } else {
            self.chance.between(5 * MS, 250 * MS)
        };
        let timeout = header.timeout_ms * MS;
        if takes >= timeout {
            return (Some(Fate::Fails(FailureClass::TimedOut)), timeout);
        }
        if self.chance.hit(faults.failures) {
            let class = if self.chance.hit(faults.fatal) {
                FailureClass::Fatal
            } else {
                self.chance.one_of(&[
                    FailureClass::Retryable,
                    FailureClass::OutOfMemory,
                    FailureClass::Surroundings,
                ])
            };
            return (Some(Fate::Fails(class)), takes);
        }
        // An output without a check is never false here, because no check would notice.
        if header.check && self.chance.hit(faults.lies) {
            return (Some(Fate::Lie), takes);
        }
        (Some(Fate::Honest), takes)
    }

    fn fate_of_check(&mut self) -> (Option<Fate>, u64) {
        let takes = self.chance.between(MS, 40 * MS);
        if self.chance.hit(self.plan.faults.failures / 4) {
            return (Some(Fate::Unclear), takes);
        }
        (Some(Fate::Honest), takes)
    }

    pub(super) fn finish(&mut self, at: usize, id: u64, fate: Fate) {
        let now = self.now;
        let prover = &mut self.provers[at];
        let name = prover.id.clone();
        let Some(entry) = prover.held.iter_mut().find(|e| e.id == id && !e.ended) else {
            return;
        };
        entry.ended = true;
        let (stream, sequence, deliveries) = (entry.stream, entry.sequence, entry.deliveries);
        let (body, epoch) = (entry.body.clone(), prover.epoch);
        let took = now.0 - entry.started.map_or(now.0, |at| at.0);
        let result = match &*body {
            Body::Task(task) => self.proved(name, task, fate, took),
            Body::Check(result) if fate == Fate::Unclear && deliveries <= CHECKS_MAX => {
                self.provers[at].held.retain(|e| e.id != id);
                self.after(CHECK_AGAIN, Event::GiveBack(stream, sequence));
                self.log(format_args!("check of {} is unclear", result.header.id));
                self.changed(at);
                self.begin_waiting(at);
                return self.hand_out();
            }
            Body::Check(result) => self.verdict(name, result, deliveries, took),
            _ => return,
        };
        let hop = self.hop();
        self.after(hop, Event::Arrive(Rc::new(result), Reply::Prover(at, epoch, id)));
        self.changed(at);
        self.begin_waiting(at);
        self.hand_out();
    }

    fn proved(&mut self, prover: ProverId, task: &Task, fate: Fate, took: u64) -> Body {
        let outcome = match fate {
            Fate::Fails(class) => Outcome::Failed(Failure::new(class, "as drawn")),
            Fate::Honest | Fate::Lie | Fate::Unclear => {
                let lane = &self.plan.lanes[self.lane_of(&task.header.id.stage.pipeline)];
                let id = &task.header.id.stage;
                let stage = lane
                    .pipeline
                    .proof(&id.proof_type)
                    .and_then(|p| p.stage(&id.stage));
                let mut outputs = stage.map_or_else(Vec::new, |(_, stage)| {
                    proofs::run(stage, lane.widest, &proofs::numbers(&task.inputs))
                });
                if fate == Fate::Lie {
                    outputs.iter_mut().for_each(|output| *output ^= 1);
                }
                Outcome::Completed {
                    outputs: Payloads::List(outputs.into_iter().map(proofs::payload).collect()),
                }
            }
        };
        let header = task.header.clone();
        let completed = matches!(outcome, Outcome::Completed { .. });
        let to_check = completed && header.check;
        if let (Fate::Honest, Outcome::Completed { outputs }) = (fate, &outcome) {
            self.promises
                .honest(header.attempt_id(), &prover, proofs::numbers(outputs));
        }
        let result = TaskResult {
            inputs: (!completed || to_check).then(|| task.inputs.clone()),
            header,
            prover,
            outcome,
            prove_us: took,
            transfer_us: 0,
            waited_us: 0,
            signature: None,
            verdict: None,
        };
        if to_check {
            Body::Check(result)
        } else {
            Body::Result(result)
        }
    }

    fn verdict(&mut self, verifier: ProverId, checked: &TaskResult, deliveries: u32, took: u64) -> Body {
        let mut result = checked.clone();
        let gave_up = deliveries > CHECKS_MAX;
        let genuine = self.promises.is_genuine(checked);
        if !genuine && !gave_up {
            self.promises.refused(checked);
        }
        let invalid = (gave_up || !genuine).then(|| "not the expected number".to_owned());
        if invalid.is_none() {
            result.inputs = None;
        }
        result.verdict = Some(Verdict {
            verifier,
            verify_us: took,
            waited_us: 0,
            invalid,
        });
        Body::Verdict(result)
    }
}
