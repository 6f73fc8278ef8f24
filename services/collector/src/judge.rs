//! Judges results: whether an attempt counts, and how its task changes.

use crate::{
    advance,
    bodies::{Bodies, Body},
    intake::Handle,
    state::{Origin, Proof},
    task::{Done, Failed, Task},
};
use push0_domain::{
    Timestamp,
    message::{Failure, FailureClass, Outcome, TaskResult},
    pipeline::ProofSpec,
    trace::TraceContext,
};
use std::sync::Arc;

/// Delivery of a result.
pub(crate) struct Came<'a> {
    pub(crate) handle: Handle,
    /// The first number of the result's block or range.
    pub(crate) number: u64,
    /// Whether a verifier reported the result.
    pub(crate) verified: bool,
    pub(crate) trace: &'a TraceContext,
    /// When the broker stored the result.
    pub(crate) stored_at: Timestamp,
}

/// Adds a result to its task. Returns the settled messages.
pub(crate) fn note(
    (proof, origin): (&mut Proof, &Origin),
    spec: &ProofSpec,
    result: TaskResult,
    came: &Came<'_>,
    bodies: &mut Bodies,
) -> Vec<Handle> {
    let Some((position, stage)) = spec.stage(&result.header.id.stage.stage) else {
        return vec![came.handle];
    };
    if proof.done.is_some() || position < proof.position {
        return vec![came.handle];
    }
    let (of, index) = (result.header.of, result.header.id.index);
    let level = advance::level_start(stage, of, index);
    let mut settled = Vec::new();
    if position > proof.position || level > proof.settled {
        // A later stage, or a later level of a tree, has results. It was opened with all outputs of the
        // earlier ones, so their remaining messages are settled.
        settled = proof.move_to(position, level);
    }
    let is_done = proof.tasks.get(&index).is_some_and(|task| task.done.is_some());
    if index < proof.settled || is_done {
        // The result changes nothing, and is acknowledged now: a failure outliving the completion before it
        // would ask for another attempt.
        settled.push(came.handle);
        return settled;
    }
    // Most messages about a block carry the same context, so they share one copy.
    let context = if *origin.context == result.header.context {
        origin.context.clone()
    } else {
        Arc::new(result.header.context.clone())
    };
    let task = proof.tasks.entry(index);
    let task = task.or_insert_with(|| Task::new(&result.header, context.clone()));
    task.handles.reserve_exact(1);
    task.handles.push(came.handle);
    let verdict = verdict(&result, spec, came.verified);
    match &verdict {
        Ok(()) => {
            task.complete(Done {
                handle: came.handle,
                stored_at: came.stored_at,
            });
            proof.completed += 1;
            proof.failing.remove(&index);
        }
        Err(failure) => {
            let failed = Failed {
                attempt: result.header.attempt,
                class: failure.class,
                has_inputs: result.inputs.is_some(),
                handle: came.handle,
            };
            task.fail(&result.header, context, failed);
            proof.failing.insert(index);
        }
    }
    let body = Body::of(result, verdict, came.stored_at, came.trace);
    bodies.put(came.handle, came.number, body);
    settled
}

/// Returns whether a result counts. Where the pipeline asks for verification, a completed attempt counts only
/// with a verifier's verdict.
pub(crate) fn verdict(result: &TaskResult, spec: &ProofSpec, verified: bool) -> Result<(), Failure> {
    if let Outcome::Failed(failure) = &result.outcome {
        return Err(failure.clone());
    }
    if !spec.is_checked(&result.header.id.stage.stage) {
        return Ok(());
    }
    match &result.verdict {
        Some(verdict) if verified => match &verdict.invalid {
            None => Ok(()),
            Some(reason) => Err(Failure::new(FailureClass::InvalidProof, reason)),
        },
        _ => Err(Failure::new(
            FailureClass::InvalidProof,
            "reported as completed without a verifier's verdict",
        )),
    }
}
