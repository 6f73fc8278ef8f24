//! One attempt, from its delivery to its acknowledgement.

use crate::{Prove, ProveError, Work, ledger::Place, node::Node};
use futures::FutureExt;
use push0_bus::{Backoff, BlobError, Delivery, Message};
use push0_domain::{
    Payloads,
    message::{Failure, FailureClass, Outcome, ResultEvent, StageKind, Task, TaskHeader, TaskResult},
    subject::{self, AttemptKey},
    time::micros,
    trace::TraceContext,
};
use push0_runtime::{panic_message, trace};
use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// How long storing a result is retried while the broker is away or full, and how long calls to the blob
/// store are retried. A finished proof is expensive to lose: this is far beyond any restart, and by then
/// the broker has redelivered the task long ago.
const RESULT_PATIENCE: Duration = Duration::from_secs(600);

/// How many deliveries of a task a prover hands back if it failed the task before, and the delay of each.
const AVOIDED_ROUNDS: u32 = 2;
const AVOIDED_FOR: Duration = Duration::from_millis(50);
/// The last delivery that a prover may hand back because the task waited too long for a slot.
pub(crate) const GIVEN_BACK_MAX: u32 = 2;
/// How many deliveries may have ended without an attempt.
const UNCOUNTED: u32 = AVOIDED_ROUNDS + GIVEN_BACK_MAX;

/// Runs the attempt of a delivery, stores its result and acknowledges the delivery.
pub(crate) async fn run<P: Prove>(
    node: Arc<Node>,
    prover: Arc<P>,
    delivery: Delivery<Task>,
    place: Place,
    stop: CancellationToken,
    progress: crate::Progress,
) {
    // Another prover should take this task. After two rounds there seems to be no other prover.
    if delivery.body.avoid.contains(&node.id) && delivery.deliveries <= AVOIDED_ROUNDS {
        return delivery.ack.give_back(AVOIDED_FOR).await;
    }
    // On draining, a task is handed back at once, as if it had never been taken. A stopped task ends
    // without waiting for a slot.
    let slot = tokio::select! {
        biased;
        () = node.draining.cancelled() => {
            delivery.ack.give_back(Duration::ZERO).await;
            return;
        }
        () = stop.cancelled() => None,
        slot = node.slots.acquire() => slot.ok(),
        () = node.ledger.waited_too_long(), if delivery.deliveries <= GIVEN_BACK_MAX => {
            delivery.ack.give_back(Duration::ZERO).await;
            return;
        }
    };
    // The task waited behind an attempt that led to a quarantine.
    if !node.ledger.takes_work() && !stop.is_cancelled() {
        return delivery.ack.give_back(Duration::ZERO).await;
    }
    let header = &delivery.body.header;
    let span = tracing::info_span!(
        "prove",
        otel.kind = "consumer",
        block.number = header.id.stage.block.number,
        task.id = %header.id,
        attempt = header.attempt,
        prover.id = %node.id,
        zkvm = %header.zkvm,
        outcome = tracing::field::Empty,
    );
    trace::set_parent(&span, &delivery.trace);
    let began = Instant::now();
    let outcome = outcome(&node, prover, &delivery, &place, stop, progress)
        .instrument(span.clone())
        .await;
    let took = began.elapsed();
    place.proved();
    drop(slot);
    if node.leaving.is_cancelled() && matches!(&outcome, Err(f) if f.class == FailureClass::Stopped) {
        // The process ends, but the task is still wanted, so a result of class `Stopped` would be wrong.
        return delivery.ack.give_back(Duration::ZERO).await;
    }

    let result = result(&node, &delivery.body, outcome, took);
    node.metrics.attempt(&result, took);
    span.record("outcome", outcome_name(&result.outcome));
    if let Outcome::Failed(failure) = &result.outcome {
        let class = failure.class.as_str();
        tracing::warn!(parent: &span, class, reason = failure.message, "attempt failed");
    }
    store(&node, &delivery, result, &trace::context(&span, &delivery.trace)).await;
}

fn outcome_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Completed { .. } => "completed",
        Outcome::Failed(failure) => failure.class.as_str(),
    }
}

async fn outcome<P: Prove>(
    node: &Node,
    prover: Arc<P>,
    delivery: &Delivery<Task>,
    place: &Place,
    stop: CancellationToken,
    progress: crate::Progress,
) -> Result<Payloads, Failure> {
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
    let inputs = tokio::select! {
        biased;
        () = stop.cancelled() => return Err(stopped()),
        inputs = read(node, header, inputs) => inputs.map_err(failure)?,
    };
    // The attempt starts only now: an unavailable store must not use up its time.
    place.started();
    let work = Work {
        header: header.clone(),
        inputs,
        released_at: delivery.stored_at,
        stop: stop.clone(),
        progress,
        trace: delivery.trace.clone(),
    };
    let timeout = Duration::from_millis(header.timeout_ms);
    let proving = AssertUnwindSafe(prover.prove(work)).catch_unwind();
    let outputs = tokio::select! {
        biased;
        () = stop.cancelled() => return Err(stopped()),
        proved = tokio::time::timeout(timeout, proving) => match proved {
            Err(_) => return Err(Failure::new(FailureClass::TimedOut, format!("not done within {timeout:?}"))),
            Ok(Err(panic)) => {
                let message = format!("the prover panicked: {}", panic_message(panic.as_ref()));
                return Err(Failure::new(FailureClass::Retryable, message));
            }
            Ok(Ok(outputs)) => outputs.map_err(failure)?,
        },
    };
    write(node, header, outputs).await.map_err(failure)
}

fn failure(error: ProveError) -> Failure {
    Failure::new(error.class, error.message)
}

async fn read(node: &Node, header: &TaskHeader, inputs: &Payloads) -> Result<Vec<Vec<u8>>, ProveError> {
    let mut read = Vec::new();
    for index in 0..inputs.count() {
        let payload = inputs
            .get(index)
            .ok_or_else(|| ProveError::fatal(format!("input {index} is missing")))?;
        let bytes = patiently(|| node.blobs.resolve(&payload)).await;
        read.push(bytes.map_err(|e| ProveError::retryable(format!("input {index} of {}: {e}", header.id)))?);
    }
    Ok(read)
}

async fn write(node: &Node, header: &TaskHeader, outputs: Vec<Vec<u8>>) -> Result<Payloads, ProveError> {
    if header.kind != StageKind::Split && outputs.len() != 1 {
        return Err(ProveError::fatal(format!(
            "{} outputs: expected one",
            outputs.len()
        )));
    }
    if outputs.is_empty() {
        return Err(ProveError::fatal(
            "a split wrote no outputs: expected at least one",
        ));
    }
    let unstored = |e: BlobError| ProveError::retryable(format!("output not stored: {e}"));
    let mut payloads = Vec::with_capacity(outputs.len());
    for output in outputs {
        let payload = patiently(|| node.blobs.payload(&output)).await;
        payloads.push(payload.map_err(unstored)?);
    }
    let list = patiently(|| node.blobs.list(payloads.clone())).await;
    list.map_err(unstored)
}

/// Retries a call to the blob store while the store is away, because the attempt is not at fault. Only the
/// first failure is logged.
async fn patiently<T, F: Future<Output = Result<T, BlobError>>>(
    call: impl Fn() -> F,
) -> Result<T, BlobError> {
    let give_up_at = Instant::now() + RESULT_PATIENCE;
    let mut backoff = Backoff::default();
    let mut said = false;
    loop {
        let error = match call().await {
            Err(error) if error.is_transient() && Instant::now() < give_up_at => error,
            outcome => return outcome,
        };
        if !said {
            tracing::warn!(%error, "the blob store does not answer, retrying");
            said = true;
        }
        backoff.pause().await;
    }
}

fn result(node: &Node, task: &Task, outcome: Result<Payloads, Failure>, took: Duration) -> TaskResult {
    let mut header = task.header.clone();
    header.busy_us += micros(took);
    let outcome = match outcome {
        Ok(outputs) => Outcome::Completed { outputs },
        Err(failure) => Outcome::Failed(failure),
    };
    let done = matches!(outcome, Outcome::Completed { .. }) && !header.check;
    let inputs = (!done).then(|| task.inputs.clone());
    TaskResult {
        header,
        prover: node.id.clone(),
        outcome,
        inputs,
        prove_us: micros(took),
        verdict: None,
    }
}

/// Stores the result in CHECKS or RESULTS, then acknowledges the task, never the other way round.
async fn store(node: &Node, delivery: &Delivery<Task>, result: TaskResult, trace: &TraceContext) {
    let key = AttemptKey::of(&result.header.zkvm, &result.header.attempt_id());
    let to_check = result.header.check && matches!(result.outcome, Outcome::Completed { .. });
    let message = if to_check {
        Message::new(subject::check(&key), &result, trace)
    } else {
        Message::new(subject::result(&key), &ResultEvent::Attempt(result), trace)
    };
    let stored = match message {
        Ok(message) => node
            .bus
            .publish_patiently(message, RESULT_PATIENCE)
            .await
            .map_err(|e| e.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match stored {
        Ok(_) => delivery.ack.done().await,
        // The task stays unacknowledged: the broker gives it to another prover after its ack wait.
        Err(error) => {
            tracing::error!(task.id = %delivery.body.header.id, error, "result not stored, another prover will get the task")
        }
    }
}
