//! The watchdog's messages in place of a prover.

use crate::decide::End;
use push0_domain::{
    Payloads, ProverId, Timestamp,
    message::{Failure, FailureClass, Outcome, StageReady, Task, TaskHeader, TaskRange, TaskResult},
    time::micros,
};
use std::time::Duration;

/// Returns the result of an attempt whose prover cannot report it, and which ran for at least so long.
pub(crate) fn lost(task: Task, prover: ProverId, end: End, ran: Duration) -> TaskResult {
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
pub(crate) fn second_copy(task: Task, avoid: ProverId, now: Timestamp) -> StageReady {
    copy(task.header, task.inputs, avoid, now)
}

/// Returns the request for a second copy of a completed attempt on whose proof verifiers fail; `None` if its inputs are
/// not known.
pub(crate) fn copy_of_doubted(result: TaskResult, now: Timestamp) -> Option<StageReady> {
    Some(copy(result.header, result.inputs?, result.prover, now))
}

fn copy(header: TaskHeader, inputs: Payloads, avoid: ProverId, now: Timestamp) -> StageReady {
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
        inputs,
        path: header.path.asked_at(now),
        context: header.context,
    }
}
