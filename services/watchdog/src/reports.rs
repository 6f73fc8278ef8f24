//! The watchdog's messages in place of a prover, and the consequences of an attempt's end.

use crate::{
    decide::{Effect, End, Watchdog},
    reputation::{Change, Reputation},
};
use push0_domain::{
    ProverId, Timestamp,
    message::{Failure, FailureClass, Outcome, StageReady, Task, TaskRange, TaskResult},
    time::micros,
};
use std::time::Duration;

/// Returns the result of an attempt whose prover cannot report it, and which ran for at least so long.
pub fn lost(task: Task, prover: ProverId, end: End, ran: Duration) -> TaskResult {
    let (class, message) = match end {
        End::Silent(silent) => (FailureClass::Died, format!("silent for {silent:?}")),
        End::Gone => {
            let message = "silent, and its connection to the broker has ended".to_owned();
            (FailureClass::Died, message)
        }
        End::Restarted => (FailureClass::Died, "restarted".to_owned()),
        End::Hung => {
            let message = format!("hung after {} ms", task.header.timeout_ms);
            (FailureClass::TimedOut, message)
        }
    };
    TaskResult {
        header: task.header,
        prover,
        outcome: Outcome::Failed(Failure::new(class, message)),
        inputs: Some(task.inputs),
        prove_us: micros(ran),
        transfer_us: 0,
        waited_us: 0,
        signature: None,
        verdict: None,
    }
}

/// Returns the request, made at `now`, for a second copy of an attempt by another prover than this one.
pub fn second_copy(task: Task, avoid: ProverId, now: Timestamp) -> StageReady {
    let header = task.header;
    StageReady {
        tasks: TaskRange {
            first: header.id.index,
            count: 1,
            of: header.of,
        },
        stage: header.id.stage,
        zkvm: header.zkvm,
        attempt: header.attempt + 1,
        hedge_of: Some(header.attempt),
        failed: 0,
        avoid: vec![avoid],
        inputs: task.inputs,
        path: header.path.asked_at(now),
        context: header.context,
    }
}

/// Handles the end of an attempt. If the attempt was accepted, other copies of its task are stopped. The reputation of
/// provers changes by how attempts end, and not by results that wait for a verdict.
pub fn attempt_ended(
    core: &mut Watchdog,
    reputation: &mut Reputation,
    result: &TaskResult,
    now: Timestamp,
) -> (Vec<Effect>, Vec<Change>) {
    let (header, prover) = (&result.header, result.participant());
    if matches!(result.outcome, Outcome::Completed { .. }) {
        core.over(&prover, header.attempt_id(), now);
    }
    let verdict = result.verdict.as_ref();
    let is_false = verdict.is_some_and(|verdict| verdict.invalid.is_some());
    let class = match result.failure() {
        Some(failure) => Some(failure.class),
        None if is_false => Some(FailureClass::InvalidProof),
        None if header.check && verdict.is_none() => return (Vec::new(), Vec::new()),
        None => None,
    };
    let fleet = core.fleet(&header.zkvm);
    match class {
        Some(class) => {
            let changes = reputation.failed(&header.id, &prover, class, &fleet, now);
            (Vec::new(), changes)
        }
        None => {
            let effects = core.accepted(&header.id, header.attempt, now);
            (effects, reputation.completed(&header.id, &prover, &fleet, now))
        }
    }
}
