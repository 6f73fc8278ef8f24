//! What a result says of its task, and whether it counts.

use crate::{
    advance,
    state::{Handle, Proof},
    task::Task,
};
use push0_domain::{
    Payloads, Timestamp,
    message::{Failure, FailureClass, Outcome, TaskResult},
    pipeline::ProofSpec,
    trace::TraceContext,
};

/// How a result came.
pub(crate) struct Came<'a> {
    pub(crate) handle: Handle,
    /// Whether a verifier reported it.
    pub(crate) verified: bool,
    /// Counts results.
    pub(crate) order: u64,
    pub(crate) trace: &'a TraceContext,
    /// When the broker had stored it.
    pub(crate) stored_at: Timestamp,
    pub(crate) now: Timestamp,
}

/// Notes a result with its task. Returns what is settled by that.
pub(crate) fn note(proof: &mut Proof, spec: &ProofSpec, result: TaskResult, came: Came<'_>) -> Vec<Handle> {
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
    let task = proof
        .tasks
        .entry(index)
        .or_insert_with(|| Task::new(&result.header, came.trace));
    task.handles.push(came.handle);
    match judge(&result, spec, came.verified) {
        Ok(outputs) => {
            task.complete(result, outputs, &came);
            proof.completed += 1;
            proof.failing.remove(&index);
        }
        Err(failure) => {
            task.fail(result, failure, came.now);
            proof.failing.insert(index);
        }
    }
    settled
}

/// Whether a result counts: a completed attempt only with a verifier's word where the pipeline asks
/// for one.
fn judge(result: &TaskResult, spec: &ProofSpec, verified: bool) -> Result<Payloads, Failure> {
    let outputs = match &result.outcome {
        Outcome::Failed(failure) => return Err(failure.clone()),
        Outcome::Completed { outputs } => outputs.clone(),
    };
    if !spec.is_checked(&result.header.id.stage.stage) {
        return Ok(outputs);
    }
    match &result.verdict {
        Some(verdict) if verified => match &verdict.invalid {
            None => Ok(outputs),
            Some(reason) => Err(Failure::new(FailureClass::InvalidProof, reason)),
        },
        _ => Err(Failure::new(
            FailureClass::InvalidProof,
            "reported as complete without a verifier's word",
        )),
    }
}
