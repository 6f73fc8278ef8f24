//! Judges results: whether an attempt counts, and how its task changes.

use crate::{
    advance,
    bodies::{Bodies, Body},
    intake::Handle,
    state::{Origin, Proof},
    task::{Budget, Done, Failed, Task},
};
use push0_domain::{
    ProverId, Timestamp,
    message::{BlockContext, Failure, FailureClass, TaskResult},
    pipeline::ProofSpec,
    task::start_of,
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
    /// How many failures of its own the task has with this result.
    pub(crate) charges: u32,
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
    let start = start_of(result.header.attempt);
    if proof.done.is_some() || start < proof.start || (start == proof.start && position < proof.position) {
        return vec![came.handle];
    }
    let mut settled = Vec::new();
    if start > proof.start {
        settled = proof.begin_anew(start);
    }
    let (of, index) = (result.header.of, result.header.id.index);
    let level = advance::level_start(stage, of, index);
    if position > proof.position || level > proof.settled {
        // A later stage, or a later level of a tree, has results. It was opened with all outputs of the
        // earlier ones, so their remaining messages are settled.
        settled.extend(proof.move_to(position, level));
    }
    let is_done = proof.tasks.get(&index).is_some_and(|task| task.done.is_some());
    if index < proof.settled || is_done {
        // The result changes nothing, and is acknowledged now: a failure outliving the completion before it
        // would ask for another attempt.
        settled.push(came.handle);
        return settled;
    }
    let context = shared_context(origin, &result);
    let budget = Budget::of(&result.header, stage, spec);
    let task = proof.tasks.entry(index);
    let task = task.or_insert_with(|| Task::new(&result.header, budget, context.clone()));
    let verdict = verdict(&result, spec, came.verified);
    match &verdict {
        Ok(()) => {
            task.hold(came.handle);
            task.complete(Done {
                handle: came.handle,
                stored_at: came.stored_at,
            });
            proof.completed += 1;
            proof.failing.remove(&index);
        }
        Err(failure) => {
            let failed = Failed::of(&result, failure, came);
            if task.has_failed(failed.attempt) {
                // A prover may repeat a failure without end, so of each attempt one is kept.
                let repeated = task.fail_again(failed);
                settled.push(repeated);
                if repeated == came.handle {
                    return settled;
                }
            } else {
                task.hold(came.handle);
                settled.extend(task.fail(&result.header, context, failed));
                proof.failing.insert(index);
            }
        }
    }
    let body = Body::of(result, verdict, came.stored_at, came.trace);
    bodies.put(came.handle, came.number, body);
    settled
}

impl Failed {
    fn of(result: &TaskResult, failure: &Failure, came: &Came<'_>) -> Self {
        Self {
            attempt: result.header.attempt,
            class: failure.class,
            prover: hash_of(&result.prover),
            at: came.stored_at,
            charges: came.charges,
            has_inputs: result.inputs.is_some(),
            handle: came.handle,
        }
    }
}

/// Returns the context of a result. Most messages about a block carry the same context, so they share one copy.
fn shared_context(origin: &Origin, result: &TaskResult) -> Arc<BlockContext> {
    if *origin.context == result.header.context {
        origin.context.clone()
    } else {
        Arc::new(result.header.context.clone())
    }
}

/// Returns a number that tells a prover from others, for decisions without the prover's name.
fn hash_of(prover: &ProverId) -> u64 {
    use std::hash::{DefaultHasher, Hash, Hasher};
    let mut hasher = DefaultHasher::new();
    prover.hash(&mut hasher);
    hasher.finish()
}

/// Returns whether a result counts. Where the pipeline asks for verification, a completed attempt counts only
/// with a verifier's verdict.
pub(crate) fn verdict(result: &TaskResult, spec: &ProofSpec, verified: bool) -> Result<(), Failure> {
    if let Some(failure) = result.failure() {
        return Err(failure);
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
