//! One attempt, from its delivery to its acknowledgement.

use crate::{
    Prove, ProveError, Work,
    ledger::Place,
    node::Node,
    offer::{self, Fate},
    spool::{About, Begun, Unstored},
    transfer, wait,
};
use futures::FutureExt;
use push0_bus::{Delivery, now};
use push0_domain::{
    Timestamp,
    message::{Failure, FailureClass, OVERDUE, StageKind, Task},
    time::micros,
    trace::under_prove,
};
use push0_runtime::{panic_message, trace};
use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::sync::SemaphorePermit;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// How many deliveries of a task a prover hands back if it failed the task before, and the delay of each.
const AVOIDED_ROUNDS: u32 = 2;
const AVOIDED_FOR: Duration = Duration::from_millis(50);
/// The last delivery that a prover may hand back because the task waited too long for a slot.
pub(crate) const GIVEN_BACK_MAX: u32 = 2;
/// How many deliveries may have ended without an attempt.
const UNCOUNTED: u32 = AVOIDED_ROUNDS + GIVEN_BACK_MAX;
/// How long a delivery stays away whose result is in the spool of this process, which leaves: the next process
/// may store the result meanwhile.
const LEFT_FOR: Duration = Duration::from_secs(5);

/// Runs the attempt of a delivery, stores its result and acknowledges the delivery.
pub(crate) async fn run<P: Prove>(
    node: Arc<Node>,
    prover: Arc<P>,
    delivery: Delivery<Task>,
    place: Place,
    stop: CancellationToken,
    progress: crate::Progress,
) {
    let came = Instant::now();
    if node.adopted.has(&delivery.body) {
        return proved_before(&node, &delivery, &place, &stop).await;
    }
    // Another prover should take this task. After two rounds there seems to be no other prover.
    if delivery.body.avoid.contains(&node.id) && delivery.deliveries <= AVOIDED_ROUNDS {
        return delivery.ack.give_back(AVOIDED_FOR).await;
    }
    // On draining, a task is handed back at once, as if it had never been taken. A stopped task ends
    // without waiting for a slot.
    let Turn::Taken(slot) = turn(&node, delivery.deliveries, &stop).await else {
        return delivery.ack.give_back(Duration::ZERO).await;
    };
    let begun_at = now();
    let mut times = Times {
        waited_us: wait::before_slot(&delivery, came.elapsed(), begun_at),
        ..Times::default()
    };
    let span = span(&node, &delivery);
    let outcome = outcome(&node, prover, &delivery, &place, &stop, progress, &mut times)
        .instrument(span.clone())
        .await;
    place.ended();
    if outcome
        .as_ref()
        .is_err_and(|failure| is_of_leaving(&node, failure, &stop))
    {
        place.proved();
        return delivery.ack.give_back(Duration::ZERO).await;
    }
    let (outputs, failure) = match outcome {
        Ok(outputs) => (outputs, None),
        Err(failure) => (Vec::new(), Some(failure)),
    };
    let class = failure
        .as_ref()
        .map_or("completed", |failure| failure.class.as_str());
    span.record("outcome", class);
    let begun = begun(&delivery, &place, begun_at, &span);
    if let Some(failure) = &failure {
        tracing::warn!(parent: &span, class, reason = failure.message, "attempt failed");
    }
    let about = about(&node, &delivery, failure, &times, begun);
    // While the store takes no outputs, this process proves no more: it would only fill its memory.
    let freed = || {
        place.proved();
        drop(slot);
    };
    let fate = offer::store(&node, Unstored { about, outputs }, &stop, freed).await;
    settle(&delivery, fate).await;
}

/// Returns the span of an attempt that has a slot.
fn span(node: &Node, delivery: &Delivery<Task>) -> tracing::Span {
    let header = &delivery.body.header;
    tracing::info_span!(
        "prove",
        otel.kind = "consumer",
        block.number = header.id.stage.block.number,
        task.id = %header.id,
        attempt = header.attempt,
        prover.id = %node.id,
        zkvm = %header.zkvm,
        trace_id = delivery.trace.id().map(display),
        outcome = tracing::field::Empty,
    )
}

/// Returns whether an attempt failed because this process leaves. The task is still wanted, so it is handed back
/// without a result. Surroundings fail with a machine or a service that is stopped as a whole.
fn is_of_leaving(node: &Node, failure: &Failure, stop: &CancellationToken) -> bool {
    match failure.class {
        FailureClass::Stopped => node.leaving.is_cancelled(),
        FailureClass::Surroundings => node.draining.is_cancelled() && !stop.is_cancelled(),
        _ => false,
    }
}

/// Returns the end of an attempt that is to be stored. Its spans are written here if `begun` is given.
fn about(
    node: &Node,
    delivery: &Delivery<Task>,
    failure: Option<Failure>,
    times: &Times,
    begun: Option<Begun>,
) -> About {
    About {
        header: delivery.body.header.clone(),
        prover: node.id.clone(),
        inputs: delivery.body.inputs.clone(),
        failure,
        prove_us: micros(times.proved),
        transfer_us: micros(times.read),
        waited_us: times.waited_us,
        trace: delivery.trace.clone(),
        begun,
    }
}

/// Returns the facts for the spans of an attempt. Those of one over its timeout were written by the watchdog.
fn begun(
    delivery: &Delivery<Task>,
    place: &Place,
    begun_at: Timestamp,
    span: &tracing::Span,
) -> Option<Begun> {
    let is_told_here = place.stopped_for().is_none_or(|reason| reason != OVERDUE);
    is_told_here.then(|| Begun {
        released_at: delivery.stored_at,
        begun_at,
        lines: trace::take_lines(span),
    })
}

/// Ends a delivery as the fate of its result asks for.
async fn settle(delivery: &Delivery<Task>, fate: Fate) {
    match fate {
        Fate::Stored => delivery.ack.done().await,
        Fate::Left { is_kept: true } => delivery.ack.give_back(LEFT_FOR).await,
        Fate::Left { is_kept: false } => delivery.ack.give_back(Duration::ZERO).await,
        // The task stays unacknowledged: the broker gives it to another prover after its ack wait.
        Fate::Refused => {}
    }
}

/// Waits for the result of an attempt that an ended process has proved, and acknowledges the delivery. A result
/// that is being stored needs no slot.
async fn proved_before(node: &Node, delivery: &Delivery<Task>, place: &Place, stop: &CancellationToken) {
    place.proved();
    let is_stored = tokio::select! {
        biased;
        () = node.draining.cancelled() => return delivery.ack.give_back(LEFT_FOR).await,
        () = stop.cancelled() => false,
        is_stored = node.adopted.stored(&delivery.body) => is_stored,
    };
    if is_stored {
        delivery.ack.done().await;
    } else {
        delivery.ack.give_back(Duration::ZERO).await;
    }
}

/// Whether a delivery is worked on here.
enum Turn<'a> {
    /// It is, in this slot. A stopped task ends without one.
    Taken(Option<SemaphorePermit<'a>>),
    /// It goes back, as if it had never been taken.
    Returned,
}

/// Waits for a slot.
async fn turn<'a>(node: &'a Node, deliveries: u32, stop: &CancellationToken) -> Turn<'a> {
    let slot = tokio::select! {
        biased;
        () = node.draining.cancelled() => return Turn::Returned,
        () = stop.cancelled() => None,
        slot = node.slots.acquire() => slot.ok(),
        () = node.ledger.waited_too_long(), if deliveries <= GIVEN_BACK_MAX => return Turn::Returned,
    };
    // The task waited behind an attempt that led to a quarantine.
    if !node.ledger.takes_work() && !stop.is_cancelled() {
        return Turn::Returned;
    }
    Turn::Taken(slot)
}

/// The parts of the time of an attempt before its outputs are stored.
#[derive(Default)]
struct Times {
    /// How long the task waited for the slot, in microseconds.
    waited_us: u64,
    read: Duration,
    proved: Duration,
}

async fn outcome<P: Prove>(
    node: &Node,
    prover: Arc<P>,
    delivery: &Delivery<Task>,
    place: &Place,
    stop: &CancellationToken,
    progress: crate::Progress,
    times: &mut Times,
) -> Result<Vec<Vec<u8>>, Failure> {
    let Task { header, inputs, .. } = &delivery.body;
    let stopped = || Failure::new(FailureClass::Stopped, "told to stop");
    if stop.is_cancelled() {
        return Err(stopped());
    }
    // While the watchdog is down, only the broker counts how many provers a task has killed.
    if delivery.deliveries > header.attempts_max + UNCOUNTED {
        let message = format!(
            "delivered {} times without a result: its provers seem to die",
            delivery.deliveries - 1
        );
        return Err(Failure::new(FailureClass::Died, message));
    }
    let began = Instant::now();
    let inputs = tokio::select! {
        biased;
        () = stop.cancelled() => return Err(stopped()),
        inputs = transfer::read(node, header, inputs) => {
            times.read = began.elapsed();
            inputs.map_err(failure)?
        }
    };
    // The attempt starts only now: an unavailable store must not use up its time.
    place.started();
    let began = Instant::now();
    let work = Work {
        header: header.clone(),
        inputs,
        released_at: delivery.stored_at,
        stop: stop.clone(),
        progress,
        trace: under_prove(&delivery.trace, header),
    };
    let proved = proved(prover, work, stop).await;
    times.proved = began.elapsed();
    counted(header.kind, proved?)
}

/// Runs the adapter's `prove` under the stage's timeout.
async fn proved<P: Prove>(
    prover: Arc<P>,
    work: Work,
    stop: &CancellationToken,
) -> Result<Vec<Vec<u8>>, Failure> {
    let timeout = Duration::from_millis(work.header.timeout_ms);
    let proving = AssertUnwindSafe(prover.prove(work)).catch_unwind();
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(Failure::new(FailureClass::Stopped, "told to stop")),
        proved = tokio::time::timeout(timeout, proving) => match proved {
            Err(_) => Err(Failure::new(FailureClass::TimedOut, format!("not done within {timeout:?}"))),
            Ok(Err(panic)) => {
                let message = format!("the prover panicked: {}", panic_message(panic.as_ref()));
                Err(Failure::new(FailureClass::Retryable, message))
            }
            Ok(Ok(outputs)) => outputs.map_err(failure),
        },
    }
}

fn failure(error: ProveError) -> Failure {
    Failure::new(error.class, error.message)
}

/// Returns the outputs if their number fits the stage.
fn counted(kind: StageKind, outputs: Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>, Failure> {
    let wrong = match outputs.len() {
        0 if kind == StageKind::Split => "a split wrote no outputs: expected at least one".into(),
        1 => return Ok(outputs),
        _ if kind == StageKind::Split => return Ok(outputs),
        other => format!("{other} outputs: expected one"),
    };
    // A wrong build of the adapter fails every task this way. The results of other tasks tell the owner.
    Err(Failure::new(FailureClass::Retryable, wrong))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_number_of_outputs_is_weighed_like_any_failure_and_kills_no_task_at_once() {
        for (kind, count) in [(StageKind::Map, 0), (StageKind::Join, 2), (StageKind::Split, 0)] {
            let failure = counted(kind, vec![Vec::new(); count]).unwrap_err();
            assert_eq!(failure.class, FailureClass::Retryable, "{kind:?} {count}");
        }
        for (kind, count) in [(StageKind::Map, 1), (StageKind::Split, 1), (StageKind::Split, 3)] {
            assert_eq!(
                counted(kind, vec![Vec::new(); count]).map(|outputs| outputs.len()),
                Ok(count)
            );
        }
    }
}
