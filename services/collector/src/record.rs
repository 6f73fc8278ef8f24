//! What a block's record says, and when it can be written.

use crate::{state::Block, task::Done};
use push0_domain::{
    Payload, PipelineId,
    message::{Emission, EmissionOutcome, EndReason, Proof},
    pipeline::{Pipeline, ProofSpec},
    trace::TraceContext,
};

/// What a block's record says, if it can be written now.
///
/// Its pipeline is needed for its proofs only: of a block that ended before any result came, no
/// definition may have been read yet.
pub(crate) fn outcome(block: &Block, pipeline: Option<&Pipeline>) -> Option<EmissionOutcome> {
    if let Some(reason) = block.ended.as_ref().filter(|reason| !reason.is_late()) {
        return Some(given_up(reason));
    }
    let Some(pipeline) = pipeline else {
        let is_unseen = block.proofs.is_empty();
        return block.ended.as_ref().filter(|_| is_unseen).map(given_up);
    };
    // What a single block has where ranges are wanted is no proof yet.
    let is_part = block.first.is_none() && pipeline.range().is_some();
    let done = |spec: &ProofSpec| {
        let done = block.proofs.get(&spec.proof_type)?.done.clone();
        Some((spec.clone(), done.filter(|_| !is_part)?))
    };
    let proofs: Vec<(ProofSpec, Done)> = pipeline.proofs.iter().filter_map(done).collect();
    if proofs.len() >= pipeline.quorum as usize {
        return Some(EmissionOutcome::Proved(
            proofs
                .into_iter()
                .map(|(spec, done)| emitted(&spec, done))
                .collect(),
        ));
    }
    // Only after the proofs: those that came in time count, also if the block's turn comes later.
    if let Some(reason) = &block.ended {
        return Some(given_up(reason));
    }
    let mut dead = block.proofs.values().filter_map(|p| p.dead.clone());
    let dead_count = block.proofs.values().filter(|p| p.dead.is_some()).count();
    if pipeline.proofs.len() - dead_count >= pipeline.quorum as usize {
        return None;
    }
    dead.next()
        .map(|(dead_letter, reason)| EmissionOutcome::Dead { dead_letter, reason })
}

fn given_up(reason: &EndReason) -> EmissionOutcome {
    match reason.clone() {
        EndReason::Refused { dead_letter, reason } => EmissionOutcome::Dead { dead_letter, reason },
        reason => EmissionOutcome::Abandoned(reason),
    }
}

fn emitted(spec: &ProofSpec, done: Done) -> Proof {
    let payload = done.outputs.get(0).unwrap_or_else(Payload::empty);
    Proof {
        proof_type: spec.proof_type.clone(),
        zkvm: spec
            .stages
            .last()
            .map_or_else(|| spec.zkvm.clone(), |stage| stage.zkvm.clone()),
        program_id: spec.program_id.clone(),
        prover: done.prover,
        verifier: done.verifier,
        bytes: payload.len(),
        payload,
        prove_us: done.prove_us,
        verify_us: done.verify_us,
        attempt: done.attempt,
    }
}

/// The record of a block, and the trace that it ends.
pub(crate) fn emission(
    pipeline: &PipelineId,
    block: &Block,
    outcome: EmissionOutcome,
    next: u64,
) -> (Emission, TraceContext) {
    let emission = Emission {
        pipeline: pipeline.clone(),
        first: block.first.unwrap_or(block.block),
        last: block.block,
        hashes: Vec::new(),
        standing: Vec::new(),
        parent_hash: block.context.parent_hash,
        outcome,
        next,
        stored_at: block.context.stored_at,
        busy_us: last(block).map_or(0, |d| d.busy_us),
        facts: block.context.facts,
    };
    (emission, trace(block))
}

/// The trace that a block's record ends: that of the proof that came last.
pub(crate) fn trace(block: &Block) -> TraceContext {
    last(block).map_or(&block.trace, |done| &done.trace).clone()
}

fn last(block: &Block) -> Option<&Done> {
    let done = block.proofs.values().filter_map(|p| p.done.as_ref());
    done.max_by_key(|d| d.order)
}
