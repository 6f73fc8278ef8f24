//! The spans that end with a record: the root of a block or a range, and its proofs. The collector writes them.

use super::{
    context::Trace,
    span::{Attributes, Link, Span, UNENDED},
    tree::{about, leaf, proof_id},
};
use crate::{
    BlockRef, ProofType, Timestamp,
    message::{Emission, EmissionOutcome, EndReason},
};

/// A block or range whose record is decided.
#[derive(Clone, Debug)]
pub struct RecordTold<'a> {
    /// Its trace.
    pub trace: &'a Trace,
    /// The block, or the last block of the range.
    pub block: BlockRef,
    /// Whether it is a range.
    pub is_range: bool,
    /// The record.
    pub emission: &'a Emission,
    /// Its proofs, with the end of each; `None` for one that is not done.
    pub proofs: Vec<(ProofType, Option<Timestamp>)>,
    /// When the last of its results was stored; `None` without one.
    pub last_end: Option<Timestamp>,
    /// The range that the block went into.
    pub member_of: Option<Member<'a>>,
    /// The traces of the blocks of a range.
    pub covers: Vec<Trace>,
}

/// The range of a block.
#[derive(Clone, Copy, Debug)]
pub struct Member<'a> {
    /// The trace of the range.
    pub range: &'a Trace,
    /// When the range was proved or given up.
    pub end: Timestamp,
}

/// Returns the spans of a block or range that end when its record is stored.
pub fn record(told: &RecordTold<'_>) -> Vec<Span> {
    let trace = told.trace;
    let mut spans = vec![root(told)];
    if told.is_range {
        let times = (trace.times.observed_at, trace.times.proof_from);
        spans.push(leaf(trace, trace.root, "range wait", times));
    }
    let own_end = told.last_end.unwrap_or(UNENDED);
    for (proof_type, end) in &told.proofs {
        let id = proof_id(trace, proof_type);
        let times = (trace.times.proof_from, end.unwrap_or(own_end));
        let span = Span::new(
            (trace.id, id, Some(trace.root)),
            format!("proof {proof_type}"),
            times,
        )
        .with("block.number", told.block.number)
        .with("proof.type", proof_type.as_str());
        let is_done = end.is_some();
        spans.push(match error(&told.emission.outcome).filter(|_| !is_done) {
            Some((kind, reason)) => span.failed(kind, reason, own_end),
            None => span,
        });
    }
    let mut waits_from = told.last_end;
    if let (Some(member), Some(own_end)) = (&told.member_of, told.last_end) {
        let closed_at = member.range.times.proof_from.max(own_end);
        let end = member.end.max(closed_at);
        spans.push(leaf(trace, trace.root, "range wait", (own_end, closed_at)));
        let mut range = leaf(trace, trace.root, "range", (closed_at, end));
        range.links.push(Link {
            trace: member.range.id,
            span: member.range.root,
            why: "range",
        });
        spans.push(range);
        waits_from = Some(end);
    }
    spans.extend(waits_from.map(|from| leaf(trace, trace.root, "order wait", (from, UNENDED))));
    spans
}

fn root(told: &RecordTold<'_>) -> Span {
    let (trace, emission) = (told.trace, told.emission);
    let name = match (told.is_range, trace.retries) {
        (true, None) => "range",
        (false, None) => "block",
        (true, Some(_)) => "retry of range",
        (false, Some(_)) => "retry of block",
    };
    let times = (trace.times.observed_at, UNENDED);
    let mut span = Span::new((trace.id, trace.root, trace.parent), name, times);
    span.attributes.extend(about(&emission.pipeline, &told.block));
    if told.is_range {
        let blocks = emission.last.number.saturating_sub(emission.first.number);
        span = span
            .with("range.first", emission.first.number)
            .with("range.last", emission.last.number)
            .with("range.blocks", blocks.saturating_add(1));
    }
    span.attributes.extend(outcome(&emission.outcome));
    if let Some((kind, reason)) = error(&emission.outcome) {
        span = span.failed(kind, reason, UNENDED);
    }
    let link = |trace: &Trace, span, why| Link {
        trace: trace.id,
        span,
        why,
    };
    span.links
        .extend(told.covers.iter().map(|block| link(block, block.root, "covers")));
    span.links
        .extend(trace.retries.map(|first| link(trace, first, "retries")));
    span
}

fn outcome(outcome: &EmissionOutcome) -> Attributes {
    match outcome {
        EmissionOutcome::Proved(_) => vec![("outcome", "proved".into())],
        EmissionOutcome::Dead { dead_letter, .. } => vec![
            ("outcome", "dead".into()),
            ("dead_letter.id", dead_letter.as_str().into()),
        ],
        EmissionOutcome::Abandoned(reason) => vec![
            ("outcome", "abandoned".into()),
            ("outcome.reason", reason_of(reason).into()),
        ],
    }
}

/// Returns the error of a block that has no proof, unless no proof was wanted any more.
fn error(outcome: &EmissionOutcome) -> Option<(&'static str, &str)> {
    match outcome {
        EmissionOutcome::Dead { reason, .. } => Some(("dead", reason)),
        EmissionOutcome::Abandoned(reason) if reason.is_late() => Some(("late", reason_of(reason))),
        EmissionOutcome::Proved(_) | EmissionOutcome::Abandoned(_) => None,
    }
}

fn reason_of(reason: &EndReason) -> &'static str {
    match reason {
        EndReason::Cancelled { .. } => "cancelled",
        EndReason::Reorged => "replaced",
        EndReason::DeadlinePassed => "deadline passed",
        EndReason::OutOfReach => "deadline out of reach",
        EndReason::Refused { .. } => "refused",
    }
}
