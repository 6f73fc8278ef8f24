//! Verifier mode: checks completed attempts before they count.

use crate::{Statement, Verify, attempt::GIVEN_BACK_MAX, ledger::Place, node::Node};
use futures::FutureExt;
use push0_bus::{BusError, Delivery, Message};
use push0_domain::{
    BlockRef, StageKey,
    message::{Failure, FailureClass, KnownBlock, Outcome, ResultEvent, TaskResult, Verdict},
    subject::{self, AttemptKey},
    time::micros,
};
use push0_runtime::{panic_message, trace};
use std::{
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// How many times a check is delivered before the attempt counts as failed, though not as false. The proof
/// may kill its verifiers, or their stores may be away for long.
const DELIVERIES_MAX: u32 = 20;
/// Delay before a check without a verdict is delivered again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
const VERDICT_PATIENCE: Duration = Duration::from_secs(60);

/// Verifies one completed attempt, stores the verdict and acknowledges the check.
pub(crate) async fn run<V: Verify>(
    node: Arc<Node>,
    verifier: Arc<V>,
    delivery: Delivery<TaskResult>,
    place: Place,
    stop: CancellationToken,
) {
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
    );
    trace::set_parent(&span, &delivery.trace);
    place.started();
    let began = Instant::now();
    let said = tokio::select! {
        biased;
        () = stop.cancelled() => Err("told to stop".into()),
        said = invalid(&node, verifier.as_ref(), &delivery).instrument(span.clone()) => said,
    };
    let took = began.elapsed();
    place.proved();
    drop(slot);
    let mut result = delivery.body.clone();
    result.header.busy_us += micros(took);
    match said {
        Ok(invalid) => {
            node.metrics.verdict(invalid.is_none(), took);
            if let Some(reason) = &invalid {
                tracing::warn!(parent: &span, reason, "false proof");
            } else {
                result.inputs = None;
            }
            let verify_us = micros(took);
            result.verdict = Some(Verdict {
                verifier: node.id.clone(),
                verify_us,
                invalid,
            });
        }
        Err(reason) if delivery.deliveries < DELIVERIES_MAX => {
            tracing::warn!(parent: &span, reason, "could not verify, trying again");
            return delivery.ack.give_back(AGAIN_AFTER).await;
        }
        Err(reason) => {
            let message = format!("not verified in {} deliveries: {reason}", delivery.deliveries);
            result.outcome = Outcome::Failed(Failure::new(FailureClass::Retryable, message));
        }
    }
    store(&node, &delivery, result, &span).await;
}

/// Stores the verdict, then acknowledges the check.
async fn store(node: &Node, delivery: &Delivery<TaskResult>, result: TaskResult, span: &tracing::Span) {
    let key = AttemptKey::of(&result.header.zkvm, &result.header.attempt_id());
    let context = trace::context(span, &delivery.trace);
    match Message::new(subject::verdict(&key), &ResultEvent::Attempt(result), &context) {
        Ok(message) => match node.bus.publish_patiently(message, VERDICT_PATIENCE).await {
            Ok(_) => delivery.ack.done().await,
            Err(error) => {
                tracing::error!(parent: span, %error, "verdict not stored, the check will be repeated")
            }
        },
        Err(error) => tracing::error!(parent: span, %error, "verdict cannot be encoded"),
    }
}

/// Verifies all outputs of an attempt. Returns the reason if the proof is false, `None` if the proof is
/// valid, and an error if there is no verdict now.
async fn invalid<V: Verify>(
    node: &Node,
    verifier: &V,
    delivery: &Delivery<TaskResult>,
) -> Result<Option<String>, String> {
    let result = &delivery.body;
    if delivery.deliveries > DELIVERIES_MAX {
        return Err("its verifiers seem to die".into());
    }
    if result.prover == node.id && !node.verify_own {
        return Err("made by a prover with the name of this verifier, another verifier must check it".into());
    }
    let statement = match statement(node, result).await.map_err(|e| e.to_string())? {
        Ok(statement) => statement,
        Err(reason) => return Ok(Some(reason)),
    };
    let Outcome::Completed { outputs } = &result.outcome else {
        return Ok(Some("a failed attempt has no proof".into()));
    };
    for index in 0..outputs.count() {
        let Some(payload) = outputs.get(index) else {
            return Ok(Some(format!("output {index} is missing")));
        };
        let bytes = match node.blobs.resolve(&payload).await {
            Ok(bytes) => bytes,
            Err(error) if error.is_transient() => return Err(error.to_string()),
            Err(error) => return Ok(Some(error.to_string())),
        };
        if let Some(reason) = said(verifier, &statement, bytes, result).await? {
            return Ok(Some(reason));
        }
    }
    Ok(None)
}

/// Runs the verifier on one output. A panic or a timeout is an error and no verdict, so that other
/// verifiers try the same output.
async fn said<V: Verify>(
    verifier: &V,
    statement: &Statement,
    output: Vec<u8>,
    result: &TaskResult,
) -> Result<Option<String>, String> {
    let timeout = Duration::from_millis(result.header.timeout_ms);
    let verifying = AssertUnwindSafe(verifier.verify(statement.clone(), output)).catch_unwind();
    match tokio::time::timeout(timeout, verifying).await {
        Ok(Ok(said)) => said.map_err(|e| e.to_string()),
        Ok(Err(panic)) => Err(format!(
            "the verifier panicked: {}",
            panic_message(panic.as_ref())
        )),
        Err(_) => Err(format!("not verified within {timeout:?}")),
    }
}

/// Builds the statement from the ingester's facts and the operator's pipeline. The prover's claims are only
/// compared with it. The inner error is the reason why the proof is false.
async fn statement(node: &Node, result: &TaskResult) -> Result<Result<Statement, String>, BusError> {
    let stage = &result.header.id.stage;
    let block = match observed(node, stage, stage.block).await? {
        Ok(block) => block,
        Err(reason) => return Ok(Err(reason)),
    };
    let first = match stage.first {
        None => None,
        Some(first) => match observed(node, stage, first).await? {
            Ok(first) => Some(first),
            Err(reason) => return Ok(Err(reason)),
        },
    };
    let Some(pipeline) = node.pipelines.revision(&stage.pipeline, block.revision).await? else {
        return Ok(Err(format!(
            "pipeline {} has no revision {}",
            stage.pipeline, block.revision
        )));
    };
    let Some(proof) = pipeline.proof(&stage.proof_type) else {
        return Ok(Err(format!(
            "pipeline {} wants no proof of type {}",
            stage.pipeline, stage.proof_type
        )));
    };
    let statement = Statement {
        block,
        first,
        program_id: proof.program_id.clone(),
        header: Some(result.header.clone()),
    };
    let (claimed, parent) = (result.header.context.parent_hash, statement.parent_hash());
    if claimed != parent {
        return Ok(Err(format!("has parent {claimed}, but {parent} was observed")));
    }
    Ok(Ok(statement))
}

/// Returns the ingester's facts about a block. The inner error tells of missing facts, or of facts about a
/// block with another hash.
async fn observed(
    node: &Node,
    stage: &StageKey,
    block: BlockRef,
) -> Result<Result<KnownBlock, String>, BusError> {
    let key = subject::known_block(&stage.pipeline, &block);
    let Some(known) = node.known.find(&key).await?.and_then(|fact| fact.value) else {
        return Ok(Err(format!("block {block} was never observed")));
    };
    if known.block != block {
        let (claimed, observed) = (block.hash, known.block.hash);
        return Ok(Err(format!(
            "is about block {claimed}, but {observed} was observed"
        )));
    }
    Ok(Ok(known))
}
