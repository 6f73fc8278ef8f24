//! Verification of one completed attempt.
//!
//! Only an explicit verdict is a verdict. A verifier without one leaves the check in CHECKS, for
//! as long as it takes: the proof is not proved again, and its prover is not charged.
//!
//! A check is judged for its prover only if its subject, which that prover's permissions fix, names the prover too. The
//! limits of the work on it come from the pipeline's definition, because a verifier cannot tell whether its header is
//! sealed.

use crate::{
    Verify, again,
    again::Turn,
    attempt::GIVEN_BACK_MAX,
    ledger::Place,
    node::Node,
    statement::{Checkable, NoStatement, statement},
    wait,
};
use futures::FutureExt;
use push0_bus::{BlobError, Delivery, Message, now};
use push0_domain::{
    Timestamp,
    message::{Failure, FailureClass, Happening, Obstacle, Outcome, ResultEvent, TaskResult, Verdict, clip},
    report::{Refusal, admit_signature, admit_unsealed},
    subject::{self, Kind},
    time::micros,
    trace::{CheckTold, Span, check},
};
use push0_runtime::{panic_message, trace};
use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

const VERDICT_PATIENCE: Duration = Duration::from_secs(60);

/// The end of one try to verify a check.
enum Said {
    Valid,
    /// The proof is false, for this reason.
    Invalid(String),
    /// There is no verdict.
    Untold(Obstacle, String),
    /// The output is lost, so no verifier can ever give a verdict.
    Lost(String),
}

/// One try to verify a check.
struct Try<'a> {
    span: &'a tracing::Span,
    begun_at: Timestamp,
    /// How long the check waited for the slot, in microseconds.
    waited_us: u64,
}

impl<'a> Try<'a> {
    /// Begins a try of a check that came at `came` and has a slot now.
    fn begin(span: &'a tracing::Span, delivery: &Delivery<TaskResult>, came: Instant) -> Self {
        let begun_at = now();
        Self {
            span,
            begun_at,
            waited_us: wait::before_slot(delivery, came.elapsed(), begun_at),
        }
    }
}

/// Verifies one completed attempt, stores the verdict and acknowledges the check.
pub(crate) async fn run<V: Verify>(
    node: Arc<Node>,
    verifier: Arc<V>,
    delivery: Delivery<TaskResult>,
    place: Place,
    stop: CancellationToken,
) {
    let came = Instant::now();
    if let Err(refusal) = admit(&node, &delivery) {
        return refused(&node, &delivery, refusal).await;
    }
    let pause = match again::turn(delivery.deliveries, rand::random_range(0.5..=1.0)) {
        Turn::Try(pause) => pause,
        Turn::Pause(pause) => return rest(&node, &delivery, pause).await,
    };
    let slot = tokio::select! {
        biased;
        () = node.draining.cancelled() => None,
        () = stop.cancelled() => None,
        slot = node.slots.acquire() => slot.ok(),
        () = node.ledger.waited_too_long(), if delivery.deliveries <= GIVEN_BACK_MAX => None,
    };
    let Some(slot) = slot else {
        return delivery.ack.give_back(Duration::ZERO).await;
    };
    // Several checks of the attempt may have waited for a slot.
    if node.judged.has(&delivery.body) {
        return refused(&node, &delivery, Refusal::Repeated).await;
    }
    let header = &delivery.body.header;
    let span = tracing::info_span!(
        "verify",
        otel.kind = "consumer",
        block.number = header.id.stage.block.number,
        task.id = %header.id,
        attempt = header.attempt,
        prover.id = %delivery.body.prover,
        verifier.id = %node.id,
        zkvm = %header.zkvm,
        trace_id = delivery.trace.id().map(display),
    );
    place.started();
    let (began, this) = (Instant::now(), Try::begin(&span, &delivery, came));
    let said = tokio::select! {
        biased;
        () = stop.cancelled() => None,
        said = verdict(&node, verifier.as_ref(), &delivery).instrument(span.clone()) => Some(said),
    };
    let took = began.elapsed();
    place.proved();
    drop(slot);
    match said {
        None => delivery.ack.give_back(Duration::ZERO).await,
        Some(Said::Untold(obstacle, reason)) => {
            untold(&node, &delivery, &span, obstacle, reason, pause).await
        }
        Some(Said::Lost(reason)) => {
            tracing::error!(parent: &span, reason, "the proof is lost, its task is proved again");
            let mut result = delivery.body.clone();
            result.outcome = Outcome::Failed(Failure::new(FailureClass::Surroundings, reason));
            // The prover signed that it completed the attempt.
            result.signature = None;
            store(&node, &delivery, result, &this).await;
        }
        Some(Said::Valid) => told(&node, &delivery, &this, None, took).await,
        Some(Said::Invalid(reason)) => told(&node, &delivery, &this, Some(reason), took).await,
    }
}

/// Decides whether to verify a check. The signature comes last, as it costs most.
fn admit(node: &Node, delivery: &Delivery<TaskResult>) -> Result<(), Refusal> {
    let check = &delivery.body;
    let report = admit_unsealed(&delivery.subject, Kind::Check, check)?;
    if node.judged.has(check) {
        return Err(Refusal::Repeated);
    }
    admit_signature(&report, Kind::Check, check)
}

/// Takes a check of a doubtful sender away, or one whose attempt has its verdict. There is no verdict, so the named prover is not
/// harmed.
async fn refused(node: &Node, delivery: &Delivery<TaskResult>, refusal: Refusal) {
    let reason = refusal.as_str();
    // A check with a verdict is delivered again if its acknowledgement was lost.
    let is_again = refusal == Refusal::Repeated && delivery.deliveries > 1;
    if !is_again && node.metrics.refused(refusal) {
        let check = &delivery.subject;
        let prover = &delivery.body.prover;
        if refusal == Refusal::Repeated {
            // A prover that heard no acknowledgement offers its result again, and a broker that restarted knows only the
            // messages that it still has.
            tracing::info!(
                check,
                prover.id = %prover,
                "took a check away that has its verdict: its prover offered it twice, as happens when the broker restarts; \
                 nothing is to be done, and further ones are only counted for a minute"
            );
        } else {
            tracing::warn!(
                check,
                prover.id = %prover,
                reason,
                "refused a check, which is not verified and changes nothing: its sender, which the subject names, is of \
                 another version, faulty or hostile; further ones are only counted for a minute"
            );
        }
    }
    delivery.ack.done().await;
}

/// Stores a verdict.
async fn told(
    node: &Node,
    delivery: &Delivery<TaskResult>,
    this: &Try<'_>,
    invalid: Option<String>,
    took: Duration,
) {
    node.metrics.verdict(invalid.is_none(), took);
    let mut result = delivery.body.clone();
    if let Some(reason) = &invalid {
        tracing::warn!(parent: this.span, reason, "false proof");
    } else {
        result.inputs = None;
    }
    result.verdict = Some(Verdict {
        verifier: node.id.clone(),
        verify_us: micros(took),
        waited_us: this.waited_us,
        invalid,
    });
    store(node, delivery, result, this).await;
}

/// Gives a check back for a pause that its last verifier may not have asked for.
async fn rest(node: &Node, delivery: &Delivery<TaskResult>, pause: Duration) {
    let header = &delivery.body.header;
    let what = Happening::CheckPaused {
        check: delivery.subject.clone(),
        prover: delivery.body.prover.clone(),
        verifier: node.id.clone(),
        zkvm: header.zkvm.clone(),
        deliveries: delivery.deliveries,
        again_at: now().plus(pause),
    };
    node.bus.notice(&node.participant(), what);
    delivery.ack.give_back(pause).await;
}

/// Reports a check without a verdict, and gives it back for a pause.
async fn untold(
    node: &Node,
    delivery: &Delivery<TaskResult>,
    span: &tracing::Span,
    obstacle: Obstacle,
    reason: String,
    pause: Duration,
) {
    let (header, deliveries) = (&delivery.body.header, delivery.deliveries);
    let obstacle_name = obstacle.as_str();
    tracing::warn!(parent: span, reason, deliveries, obstacle = obstacle_name, "could not verify, the proof waits and is tried again");
    node.metrics.unverified(obstacle);
    let what = Happening::CheckUnverified {
        check: delivery.subject.clone(),
        prover: delivery.body.prover.clone(),
        verifier: node.id.clone(),
        zkvm: header.zkvm.clone(),
        deliveries,
        obstacle,
        reason: clip(&reason),
        again_at: now().plus(pause),
    };
    node.bus.notice(&node.participant(), what);
    delivery.ack.give_back(pause).await;
}

/// Stores the verdict, then acknowledges the check.
async fn store(node: &Node, delivery: &Delivery<TaskResult>, result: TaskResult, this: &Try<'_>) {
    let subject = subject::verdict(&node.id, &result.header.key());
    let spans = spans(node, delivery, &result, this);
    let context = delivery.trace.map(|trace| trace.since(now()));
    match Message::new(subject, &ResultEvent::Attempt(result), &context) {
        Ok(message) => match node.bus.publish_patiently(message, VERDICT_PATIENCE).await {
            Ok(_) => {
                trace::write(spans);
                node.judged.note(&delivery.body);
                delivery.ack.done().await;
            }
            Err(error) => {
                tracing::error!(parent: this.span, %error, "verdict not stored, the check will be repeated")
            }
        },
        Err(error) => tracing::error!(parent: this.span, %error, "verdict cannot be encoded"),
    }
}

/// Returns the spans of a check that ends now.
fn spans(node: &Node, delivery: &Delivery<TaskResult>, result: &TaskResult, this: &Try<'_>) -> Vec<Span> {
    if !trace::is_on() {
        return Vec::new();
    }
    let lost = match &result.outcome {
        Outcome::Failed(failure) => Some((failure.class.as_str(), failure.message.as_str())),
        Outcome::Completed { .. } => None,
    };
    let invalid = result
        .verdict
        .as_ref()
        .and_then(|verdict| verdict.invalid.as_deref());
    let told = CheckTold {
        header: &result.header,
        prover: &result.prover,
        verifier: &node.id,
        deliveries: delivery.deliveries,
        begun_at: this.begun_at,
        end: now(),
        refused: invalid
            .map(|reason| (FailureClass::InvalidProof.as_str(), reason))
            .or(lost),
        events: trace::take_lines(this.span),
    };
    check(&delivery.trace, &told)
}

/// Verifies all outputs of an attempt.
async fn verdict<V: Verify>(node: &Node, verifier: &V, delivery: &Delivery<TaskResult>) -> Said {
    let result = &delivery.body;
    if result.prover == node.id && !node.verify_own {
        let reason = "made by a prover with the name of this verifier, another verifier must check it";
        return Said::Untold(Obstacle::OwnProof, reason.into());
    }
    // No verifier is needed to see that these outputs are no proof.
    if let Some(failure) = result.failure() {
        return Said::Invalid(failure.message);
    }
    let checkable = match statement(node, result).await {
        Ok(checkable) => checkable,
        Err(NoStatement::Contradicted(reason)) => return Said::Invalid(reason),
        Err(NoStatement::Unknown(obstacle, reason)) => return Said::Untold(obstacle, reason),
    };
    let Outcome::Completed { outputs } = &result.outcome else {
        return Said::Invalid("a failed attempt has no proof".into());
    };
    for index in 0..outputs.count() {
        let Some(payload) = outputs.get(index) else {
            return Said::Invalid(format!("output {index} is missing"));
        };
        let bytes = match node.blobs.resolve(&payload).await {
            Ok(bytes) => bytes,
            Err(error) => return unread(&error, delivery.deliveries),
        };
        match said(verifier, &checkable, bytes).await {
            Said::Valid => {}
            other => return other,
        }
    }
    Said::Valid
}

/// Returns the consequence of an unreadable output. An expired or damaged blob says nothing
/// about the prover, who may have stored it well.
fn unread(error: &BlobError, deliveries: u32) -> Said {
    let reason = format!("the output cannot be read: {error}");
    match error {
        BlobError::Missing(_) | BlobError::Corrupt(_) if again::is_lost(deliveries) => Said::Lost(reason),
        BlobError::Missing(_) | BlobError::Corrupt(_) => Said::Untold(Obstacle::Output, reason),
        error if error.is_transient() => Said::Untold(Obstacle::Store, reason),
        // The message itself is wrong: it names an entry that its list cannot have, or too many bytes.
        _ => Said::Invalid(reason),
    }
}

/// Runs the verifier on one output. An error, a panic or a timeout is no verdict.
async fn said<V: Verify>(verifier: &V, checkable: &Checkable, output: Vec<u8>) -> Said {
    let timeout = checkable.timeout;
    let verifying = AssertUnwindSafe(verifier.verify(checkable.statement.clone(), output)).catch_unwind();
    match tokio::time::timeout(timeout, verifying).await {
        Ok(Ok(Ok(None))) => Said::Valid,
        Ok(Ok(Ok(Some(reason)))) => Said::Invalid(reason),
        Ok(Ok(Err(error))) => Said::Untold(Obstacle::Verifier, error.to_string()),
        Ok(Err(panic)) => {
            let reason = format!("the verifier panicked: {}", panic_message(panic.as_ref()));
            Said::Untold(Obstacle::Verifier, reason)
        }
        Err(_) => Said::Untold(Obstacle::Timeout, format!("not verified within {timeout:?}")),
    }
}
