//! What a result says of its task, and whether it counts.

use crate::{
    advance,
    bodies::{Bodies, Body},
    state::{Done, Handle, Origin, Proof},
    task::{Failed, Task},
};
use push0_domain::{
    Timestamp,
    message::{Failure, FailureClass, Outcome, TaskResult},
    pipeline::ProofSpec,
    trace::TraceContext,
};
use std::sync::Arc;

/// How a result came.
pub(crate) struct Came<'a> {
    pub(crate) handle: Handle,
    /// The first number of its block.
    pub(crate) number: u64,
    /// Whether a verifier reported it.
    pub(crate) verified: bool,
    pub(crate) trace: &'a TraceContext,
    /// When the broker had stored it.
    pub(crate) stored_at: Timestamp,
}

/// Notes a result with its task. Returns what is settled by that.
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
        // A later stage, or a later level of a tree, has results: it was opened with all that the
        // earlier ones wrote, so what is left of them is settled.
        settled = proof.move_to(position, level);
    }
    let is_done = proof.tasks.get(&index).is_some_and(|task| task.done.is_some());
    if index < proof.settled || is_done {
        // Nothing follows from it. What comes after a completion must not outlive it: a failure alone
        // would ask for another attempt.
        settled.push(came.handle);
        return settled;
    }
    // Most messages about a block carry the same along.
    let context = if *origin.context == result.header.context {
        origin.context.clone()
    } else {
        Arc::new(result.header.context.clone())
    };
    let task = proof.tasks.entry(index);
    let task = task.or_insert_with(|| Task::new(&result.header, context.clone()));
    task.handles.reserve_exact(1);
    task.handles.push(came.handle);
    match verdict(&result, spec, came.verified) {
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
    let body = Body::of(result, spec, came.verified, came.stored_at, came.trace);
    bodies.put(came.handle, came.number, body);
    settled
}

/// Whether a result counts: a completed attempt only with a verifier's word where the pipeline asks
/// for one.
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
            "reported as complete without a verifier's word",
        )),
    }
}
