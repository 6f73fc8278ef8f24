//! The watchdog's shell, with its effects in the order of `services/watchdog/src/service.rs`.

use crate::{
    broker::{Body, Stream},
    process::{Input, Op, Who},
    world::World,
};
use push0_domain::{
    Participant,
    message::{Emission, Failure, FailureClass, Held, Outcome, Role, StageReady, TaskRange, TaskResult},
    pipeline::Rest,
};
use push0_watchdog::decide::{Effect, End, Reason, Watchdog};

const RECONCILE_EVERY: u32 = 20;

/// State of one session of the watchdog.
#[derive(Default)]
pub(crate) struct WatchdogShell {
    core: Watchdog,
}

impl World {
    pub(crate) fn watchdog_starts(&mut self) {
        self.watchdog = WatchdogShell::default();
        let leases: Vec<_> = self.broker.leases.values().cloned().collect();
        for lease in leases {
            self.watchdog.core.recall(lease, self.now);
        }
    }

    pub(crate) fn watchdog_hears(&mut self, input: Input) -> Vec<Op> {
        let now = self.now;
        let core = &mut self.watchdog.core;
        let effects = match input {
            Input::Tick => {
                let process = self.processes.entry(Who::Watchdog).or_default();
                process.ticks += 1;
                let mut effects = Vec::new();
                if process.ticks.is_multiple_of(RECONCILE_EVERY) {
                    for lane in 0..self.plan.lanes.len() {
                        let pipeline = &self.plan.lanes[lane].pipeline.name;
                        let next = core.next_of(pipeline);
                        let is_next = |(_, record): &&(u64, Emission)| Some(record.last.number) == next;
                        let missed =
                            next.is_none() || self.broker.log[lane].iter().rev().any(|r| is_next(&r));
                        if missed && let Some((output, _)) = self.broker.output(lane) {
                            core.recall_output(pipeline, output, now);
                        }
                    }
                }
                effects.extend(core.tick(now));
                // The broker answers at once. It knows a frozen prover's connection, and not that of a dead one.
                for seat in core.to_ask(now) {
                    let is_connected = self.provers.iter().any(|prover| prover.is_connected(&seat));
                    core.presence(&seat, !is_connected, now);
                }
                effects
            }
            Input::Signal(body) => match &*body {
                Body::Lease(lease) => core.heard(lease.clone(), now),
                Body::Result(result) | Body::Verdict(result) => {
                    let valid = result
                        .verdict
                        .as_ref()
                        .map_or(!result.header.check, |v| v.invalid.is_none());
                    if matches!(result.outcome, Outcome::Completed { .. }) && valid {
                        core.accepted(&result.header.id, result.header.attempt, now)
                    } else {
                        Vec::new()
                    }
                }
                Body::Ended(ended) => core.ended(ended, now),
                Body::Records(_, _, records) => {
                    records.iter().for_each(|record| core.emitted(record, now));
                    Vec::new()
                }
                _ => Vec::new(),
            },
            _ => Vec::new(),
        };
        effects
            .into_iter()
            .filter_map(|effect| self.watchdog_acts(effect))
            .collect()
    }

    fn watchdog_acts(&mut self, effect: Effect) -> Option<Op> {
        if self.logs() {
            self.log(format_args!("watchdog: {effect:?}"));
        }
        match effect {
            Effect::Report {
                prover, held, end, ..
            } => {
                let body = Body::Result(report(prover, &held, end));
                Some(Op::Report(held, body))
            }
            Effect::GiveBack(role, held) => {
                let stream = match role {
                    Role::Prover => Stream::Tasks,
                    Role::Verifier => Stream::Checks,
                };
                Some(Op::GiveBack(stream, held.sequence))
            }
            // Announcements have no listener in the simulation.
            Effect::Announce(_) => None,
            Effect::Hedge { prover, held, .. } => Some(Op::Hedge(held, prover)),
            Effect::Extend(held) => Some(Op::Extend(Stream::Tasks, held.sequence)),
            Effect::Stop {
                prover,
                attempt,
                reason,
            } => {
                let lane = self.lane_of(&attempt.task.stage.pipeline);
                if reason == Reason::Emitted && self.plan.lanes[lane].pipeline.rest == Rest::Finish {
                    return None;
                }
                let prover = self.provers.iter().position(|p| p.id == prover.name)?;
                Some(Op::Store(Body::Stop(prover, attempt)))
            }
            Effect::Late(attempts, ended) => {
                let queue = self.broker.queue(Stream::Tasks);
                let is_there = attempts.iter().any(|key| queue.sequence_of(key).is_some());
                is_there.then_some(Op::Store(Body::Ended(*ended)))
            }
        }
    }

    fn task_of(&mut self, held: &Held) -> Option<push0_domain::message::Task> {
        let key = held.header.key();
        let queue = self.broker.queue(Stream::Tasks);
        let sequence = queue
            .sequence_of(&key)
            .filter(|sequence| *sequence == held.sequence)?;
        match &*queue.messages.get(&sequence)?.body {
            Body::Task(task) => Some(task.clone()),
            _ => None,
        }
    }

    /// Completes a report with the header and inputs of the task; `None` if the task is no longer in TASKS.
    pub(crate) fn with_task(&mut self, held: &Held, body: Body) -> Option<Body> {
        let task = self.task_of(held)?;
        match body {
            Body::Result(mut result) => {
                result.header = task.header;
                result.inputs = Some(task.inputs);
                Some(Body::Result(result))
            }
            other => Some(other),
        }
    }

    pub(crate) fn second_copy(&mut self, held: &Held, prover: Participant) -> Option<Body> {
        let task = self.task_of(held)?;
        let header = task.header;
        Some(Body::Stage(StageReady {
            tasks: TaskRange {
                first: header.id.index,
                count: 1,
                of: header.of,
            },
            stage: header.id.stage.clone(),
            zkvm: header.zkvm,
            attempt: header.attempt + 1,
            hedge_of: Some(header.attempt),
            failed: 0,
            avoid: vec![prover.name],
            inputs: task.inputs,
            busy_us: header.busy_us,
            context: header.context,
        }))
    }
}

fn report(prover: Participant, held: &Held, end: End) -> TaskResult {
    let class = match end {
        End::Silent(_) | End::Gone | End::Restarted => FailureClass::Died,
        End::Hung => FailureClass::TimedOut,
    };
    TaskResult {
        header: held.header.clone(),
        prover: prover.name,
        outcome: Outcome::Failed(Failure::new(class, "reported by the watchdog")),
        inputs: None,
        prove_us: held.running_ms.unwrap_or(0) * 1000,
        transfer_us: 0,
        signature: None,
        verdict: None,
    }
}
