//! Decides when a block's record can be written, and builds it.

use crate::{
    advance,
    bodies::{Bodies, Completed},
    intake::Handle,
    state::{Block, Dead},
    task::Done,
};
use push0_domain::{
    BlockRef, Payload, PipelineId, Timestamp,
    message::{BlockFacts, Emission, EmissionOutcome, EndReason, Proof},
    pipeline::{Pipeline, ProofSpec},
    trace::TraceContext,
};

/// Outcome of a block, before its record is built.
pub(crate) enum Outcome {
    /// The finished proofs, each with the message of its last attempt.
    Proved(Vec<(ProofSpec, Handle)>),
    /// The position of a dead proof, and its dead task.
    Dead(usize, Dead),
    /// The block ends without a proof.
    GivenUp(std::sync::Arc<EndReason>),
}

/// Returns the outcome of a block if its record can be written now.
///
/// The pipeline is needed for proofs only: if a block ended before any result came, no definition may have
/// been read yet.
pub(crate) fn outcome(block: &Block, is_range: bool, pipeline: Option<&Pipeline>) -> Option<Outcome> {
    if let Some(reason) = block.ended.as_ref().filter(|reason| !reason.is_late()) {
        return Some(Outcome::GivenUp(reason.clone()));
    }
    let Some(pipeline) = pipeline else {
        let ended = block.ended.clone().filter(|_| block.is_unseen());
        return ended.map(Outcome::GivenUp);
    };
    // In a pipeline with ranges, a single block's output is an intermediate, not a proof.
    let is_part = !is_range && pipeline.range().is_some();
    let done = |spec: &ProofSpec| {
        let mut done = block.done().filter(|_| !is_part);
        let (_, done) = done.find(|(proof_type, _)| **proof_type == spec.proof_type)?;
        Some((spec.clone(), done.handle))
    };
    let proofs: Vec<(ProofSpec, Handle)> = pipeline.proofs.iter().filter_map(done).collect();
    if proofs.len() >= pipeline.quorum as usize {
        return Some(Outcome::Proved(proofs));
    }
    // Proofs are checked first: those that came in time count, even if the block's turn comes
    // after its deadline.
    if let Some(reason) = &block.ended {
        return Some(Outcome::GivenUp(reason.clone()));
    }
    let all = block.proofs().iter().enumerate();
    let dead: Vec<(usize, Dead)> = all.filter_map(|(at, (_, p))| Some((at, p.dead?))).collect();
    if pipeline.proofs.len() - dead.len() >= pipeline.quorum as usize {
        return None;
    }
    dead.first().map(|(at, dead)| Outcome::Dead(*at, *dead))
}

/// Returns when the last result of the record's proofs was stored; `None` without proofs.
pub(crate) fn ready_at(block: &Block, outcome: &Outcome) -> Option<Timestamp> {
    let Outcome::Proved(proofs) = outcome else {
        return None;
    };
    let done = block.done().map(|(_, done)| done);
    let counted = done.filter(|done| proofs.iter().any(|(_, handle)| *handle == done.handle));
    counted.map(|done| done.stored_at).max()
}

/// Returns the messages needed to build the record.
pub(crate) fn made_of(block: &Block, outcome: &Outcome) -> Vec<Handle> {
    let mut handles: Vec<Handle> = match outcome {
        Outcome::Proved(proofs) => proofs.iter().map(|(_, handle)| *handle).collect(),
        Outcome::Dead(at, dead) => block
            .proofs()
            .get(*at)
            .map(|(_, proof)| advance::death_in(proof, *dead))
            .unwrap_or_default(),
        Outcome::GivenUp(_) => Vec::new(),
    };
    handles.extend(last(block).map(|done| done.handle));
    handles.sort_unstable();
    handles.dedup();
    handles
}

/// Builds the record of a block, and returns it with the trace it ends. Returns `None` while needed messages
/// are being read.
pub(crate) fn emission(
    pipeline: &PipelineId,
    (block, first, last_block): (&Block, BlockRef, BlockRef),
    outcome: &Outcome,
    next: u64,
    bodies: &Bodies,
) -> Option<(Emission, TraceContext)> {
    let last = match last(block) {
        Some(done) => Some(bodies.completed(done.handle)?),
        None => None,
    };
    let emission = Emission {
        pipeline: pipeline.clone(),
        first,
        last: last_block,
        hashes: Vec::new(),
        standing: Vec::new(),
        parent_hash: block.parent_hash,
        outcome: said(block, outcome, bodies)?,
        next,
        announcement: block.announcement,
        stored_at: block.stored_at,
        order_us: 0,
        facts: facts(block, last),
    };
    Some((emission, trace(block, bodies)))
}

fn said(block: &Block, outcome: &Outcome, bodies: &Bodies) -> Option<EmissionOutcome> {
    Some(match outcome {
        Outcome::Proved(proofs) => {
            let proofs = proofs.iter();
            let proofs = proofs.map(|(spec, handle)| Some(proof(spec, bodies.completed(*handle)?)));
            EmissionOutcome::Proved(proofs.collect::<Option<_>>()?)
        }
        Outcome::Dead(at, dead) => {
            let (_, proof) = block.proofs().get(*at)?;
            let (dead_letter, reason) = advance::death(proof, *dead, bodies)?;
            EmissionOutcome::Dead { dead_letter, reason }
        }
        Outcome::GivenUp(reason) => match (**reason).clone() {
            EndReason::Refused { dead_letter, reason } => EmissionOutcome::Dead { dead_letter, reason },
            reason => EmissionOutcome::Abandoned(reason),
        },
    })
}

fn proof(spec: &ProofSpec, done: &Completed) -> Proof {
    let payload = done.outputs.get(0).unwrap_or_else(Payload::empty);
    Proof {
        proof_type: spec.proof_type.clone(),
        zkvm: spec
            .stages
            .last()
            .map_or_else(|| spec.zkvm.clone(), |stage| stage.zkvm.clone()),
        program_id: spec.program_id.clone(),
        prover: done.prover.clone(),
        verifier: done.verifier.clone(),
        bytes: payload.len(),
        payload,
        prove_us: done.prove_us,
        transfer_us: done.transfer_us,
        verify_us: done.verify_us,
        attempt: done.attempt,
        path: done.legs.clone(),
        signed: done.signed.clone(),
    }
}

fn facts(block: &Block, last: Option<&Completed>) -> BlockFacts {
    let origin = block.origin().map(|origin| origin.context.facts);
    origin.or(last.map(|done| done.facts)).unwrap_or_default()
}

/// Returns the approximate size of a record, in bytes.
pub(crate) fn size(emission: &Emission) -> usize {
    let proofs = match &emission.outcome {
        EmissionOutcome::Proved(proofs) => proofs.as_slice(),
        _ => &[],
    };
    let of_proof = |proof: &Proof| {
        let inline = match &proof.payload {
            Payload::Inline(bytes) => bytes.len(),
            _ => 0,
        };
        640 + inline + proof.path.len() * 192
    };
    1024 + emission.hashes.len() * 32 + proofs.iter().map(of_proof).sum::<usize>()
}

/// Returns the trace ended by a block's record, which is the trace of the last completed proof.
pub(crate) fn trace(block: &Block, bodies: &Bodies) -> TraceContext {
    let done = last(block).and_then(|done| bodies.completed(done.handle));
    let origin = || block.origin().map(|origin| origin.trace.clone());
    done.map(|done| done.trace.clone())
        .or_else(origin)
        .unwrap_or_default()
}

fn last(block: &Block) -> Option<Done> {
    block.done().map(|(_, done)| done).max_by_key(|done| done.handle)
}
