//! Where the time of a block went, as spans.

use super::{
    attempt::{Attempt, Place},
    block::{Block, BlockId},
};
use crate::view::{Span, millis};
use push0_domain::{Timestamp, pipeline::Pipeline};
use std::{collections::BTreeMap, time::Duration};

const ROOT: &str = "block";

/// Returns the spans of a block: the block, its stages, their attempts, and every wait.
pub(super) fn of(id: &BlockId, block: &Block, definition: Option<&Pipeline>) -> Vec<Span> {
    let recorded_at = block.recorded().map(|record| record.stored_at);
    let ended_at = recorded_at.or(block.ended().map(|(_, at)| *at));
    let mut spans = vec![Span {
        id: ROOT.into(),
        parent: None,
        name: format!("block {}", id.number),
        kind: "block",
        start: millis(block.at()),
        end: ended_at.map(millis),
        prover: None,
        outcome: super::sentence::reason(block),
        note: None,
    }];
    let mut stages: BTreeMap<(usize, usize), Vec<(&Place, &Attempt)>> = BTreeMap::new();
    for (place, attempt) in block.attempts() {
        stages
            .entry(position(definition, place))
            .or_default()
            .push((place, attempt));
    }
    let mut ready_at = block.at();
    for attempts in stages.values() {
        ready_at = of_stage(attempts, ready_at, ended_at, &mut spans);
    }
    if let Some(recorded_at) = recorded_at.filter(|at| *at > ready_at && ready_at > block.at()) {
        let order = wait(
            "order",
            ROOT,
            "wait for the chain's order",
            ready_at,
            Some(recorded_at),
        );
        spans.push(Span {
            kind: "order",
            ..order
        });
    }
    spans
}

/// Adds the spans of a stage, which was ready at `ready_at`. Returns when its outputs were.
fn of_stage(
    attempts: &[(&Place, &Attempt)],
    ready_at: Timestamp,
    ended_at: Option<Timestamp>,
    spans: &mut Vec<Span>,
) -> Timestamp {
    let Some((place, _)) = attempts.first() else {
        return ready_at;
    };
    let stage = format!("{}.{}", place.proof, place.stage);
    let begins = attempts
        .iter()
        .filter_map(|(_, a)| a.released_at.or(a.started_at))
        .min();
    let begins = begins.unwrap_or(ready_at);
    let ends = attempts
        .iter()
        .map(|(_, a)| a.ended_at)
        .collect::<Option<Vec<_>>>();
    let ends = ends.and_then(|ends| ends.into_iter().max());
    if begins > ready_at {
        let id = format!("{stage}/release");
        spans.push(wait(&id, ROOT, "wait for the release", ready_at, Some(begins)));
    }
    spans.push(Span {
        name: stage.clone(),
        kind: "stage",
        ..wait(&stage, ROOT, "", begins, ends)
    });
    for (place, attempt) in attempts {
        spans.extend(of_attempt(&stage, place, attempt, ended_at));
    }
    ends.unwrap_or(ready_at)
}

/// Returns the place of a stage in the definition, so that stages come in their order.
fn position(definition: Option<&Pipeline>, place: &Place) -> (usize, usize) {
    let find = || {
        let proofs = &definition?.proofs;
        let proof = proofs.iter().position(|proof| proof.proof_type == place.proof)?;
        let stage = proofs[proof]
            .stages
            .iter()
            .position(|stage| stage.name == place.stage)?;
        Some((proof, stage))
    };
    find().unwrap_or((usize::MAX, usize::MAX))
}

fn of_attempt(stage: &str, place: &Place, attempt: &Attempt, ended_at: Option<Timestamp>) -> Vec<Span> {
    let id = format!("{stage}/{}#{}", place.index, place.number);
    let begins = attempt.released_at.or(attempt.started_at);
    let Some(begins) = begins else { return Vec::new() };
    let ends = attempt.ended_at.or(ended_at);
    let prover = attempt.prover.as_ref().map(ToString::to_string);
    let mut spans = vec![Span {
        name: format!("attempt {}", place.number),
        kind: "attempt",
        prover: prover.clone(),
        outcome: attempt
            .failure
            .as_ref()
            .map(|failure| failure.class.as_str().to_owned()),
        note: attempt.hedge_of.map(|of| format!("second copy of attempt {of}")),
        ..wait(&id, stage, "", begins, ends)
    }];
    let Some(started) = attempt.started_at else {
        spans.push(wait(
            &format!("{id}/queue"),
            &id,
            "wait for a free prover",
            begins,
            ends,
        ));
        return spans;
    };
    if started > begins {
        spans.push(wait(
            &format!("{id}/queue"),
            &id,
            "wait for a free prover",
            begins,
            Some(started),
        ));
    }
    let proved = attempt.proved_at.or(ends);
    let transfer = Duration::from_micros(attempt.transfer_us);
    let computed = proved.map(|at| at.minus(transfer));
    spans.push(Span {
        name: "prove".into(),
        kind: "attempt",
        prover,
        ..wait(&format!("{id}/prove"), &id, "", started, computed)
    });
    if let (Some(computed), true) = (computed, attempt.transfer_us > 0) {
        let moved = wait(
            &format!("{id}/transfer"),
            &id,
            "transfer of inputs and outputs",
            computed,
            proved,
        );
        spans.push(Span {
            kind: "transfer",
            ..moved
        });
    }
    spans.extend(of_check(&id, attempt));
    spans
}

/// Returns the wait for a verifier, and the verification.
fn of_check(id: &str, attempt: &Attempt) -> Vec<Span> {
    let times = (attempt.proved_at, attempt.verify_us, attempt.ended_at);
    let (Some(proved), Some(took), Some(ended)) = times else {
        return Vec::new();
    };
    let began = ended.minus(Duration::from_micros(took)).max(proved);
    let mut spans = Vec::new();
    if began > proved {
        let wait_id = format!("{id}/check");
        spans.push(wait(&wait_id, id, "wait for a verifier", proved, Some(began)));
    }
    spans.push(Span {
        kind: "verify",
        prover: attempt.verifier.as_ref().map(ToString::to_string),
        ..wait(&format!("{id}/verify"), id, "verify", began, Some(ended))
    });
    spans
}

fn wait(id: &str, parent: &str, name: &str, start: Timestamp, end: Option<Timestamp>) -> Span {
    Span {
        id: id.to_owned(),
        parent: Some(parent.to_owned()),
        name: name.to_owned(),
        kind: "wait",
        start: millis(start),
        end: end.map(millis),
        prover: None,
        outcome: None,
        note: None,
    }
}
