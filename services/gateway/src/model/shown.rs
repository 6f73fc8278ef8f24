//! A block as clients see it.

use super::{
    attempt::{Attempt, Place, State},
    block::{Block, BlockId, Recorded},
    sentence,
    tasks::Tasks,
};
use crate::view::{self, millis};
use push0_domain::Timestamp;
use push0_domain::{
    ProofType, StageName, ZkvmId,
    message::{EndReason, HeldQueue, StageKind},
    pipeline::Pipeline,
};
use std::collections::BTreeMap;

impl Block {
    pub(crate) fn attempt_views(&self, id: &BlockId) -> Vec<view::AttemptView> {
        let mut views: Vec<_> = self
            .attempts
            .iter()
            .map(|(place, attempt)| attempt_view(id, place, attempt))
            .collect();
        views.sort_by_key(|view| (view.released_at.or(view.started_at), view.index, view.attempt));
        views
    }

    fn state(&self, id: &BlockId, holds: &BTreeMap<ZkvmId, HeldQueue>) -> &'static str {
        if !self.stands() {
            return "replaced";
        }
        match self.record.as_ref().map(|record| &record.outcome) {
            Some(Recorded::Proved(_)) => return "proved",
            Some(Recorded::Dead(_)) => return "dead",
            Some(Recorded::Abandoned(EndReason::Reorged)) => return "replaced",
            Some(Recorded::Abandoned(_)) => return "abandoned",
            None => {}
        }
        match &self.ended {
            Some((EndReason::Refused { .. }, _)) => return "dead",
            Some(_) => return "abandoned",
            None => {}
        }
        let has = |state: State| self.attempts.values().any(|attempt| attempt.state == state);
        let is_held = || {
            self.attempts
                .values()
                .filter_map(|attempt| holds.get(&attempt.zkvm))
                .any(|hold| hold.concerns(&id.pipeline, &self.numbers(id)))
        };
        if has(State::Running) {
            "proving"
        } else if has(State::Checking) {
            "verifying"
        } else if is_held() && !has(State::Done) {
            "held"
        } else if has(State::Done) {
            "joining"
        } else {
            "waiting"
        }
    }

    /// Returns the block for clients.
    pub(crate) fn view(
        &self,
        id: &BlockId,
        definition: Option<&Pipeline>,
        next: Option<u64>,
        holds: &BTreeMap<ZkvmId, HeldQueue>,
        now: Timestamp,
    ) -> view::Block {
        let running = self.attempts.values().find(|a| a.state == State::Running);
        let proofs = self.proof_views();
        let prover = proofs.first().map(|proof| proof.prover.clone());
        let record = self.record.as_ref();
        let is_last = record.is_none_or(|record| record.last == id.number);
        let failed = |a: &&Attempt| matches!(a.state, State::Failed(_));
        view::Block {
            pipeline: id.pipeline.to_string(),
            number: id.number,
            hash: self.hash_text(id),
            first: None,
            at: millis(self.announced_at),
            deadline_at: self.deadline_at.map(millis),
            transactions: self.facts.transactions,
            gas: self.facts.gas_used,
            state: self.state(id, holds),
            waits_for: sentence::waits_for(id, self, next, holds, now),
            recorded_at: record.map(|record| millis(record.stored_at)),
            reason: sentence::reason(self),
            range: self.range.map(|(first, last)| view::RangeOf { first, last }),
            stages: self.stage_views(definition),
            attempts: self.attempts.len(),
            failures: self.attempts.values().filter(failed).count(),
            prover: prover.or(running.and_then(|a| Some(a.prover.as_ref()?.to_string()))),
            proof_bytes: is_last.then(|| proofs.first().map(|proof| proof.bytes)).flatten(),
            overhead_us: record
                .filter(|_| is_last && !proofs.is_empty())
                .and_then(|record| i64::try_from(record.account?.own_us).ok()),
        }
    }

    fn stage_views(&self, definition: Option<&Pipeline>) -> Vec<view::StageProgress> {
        let is_proved = matches!(
            self.record.as_ref().map(|record| &record.outcome),
            Some(Recorded::Proved(_))
        );
        let mut views = Vec::new();
        for proof in definition.iter().flat_map(|definition| &definition.proofs) {
            for stage in &proof.stages {
                let key = (proof.proof_type.clone(), stage.name.clone());
                let mut view = self.stage_view(&key, kind(stage.kind));
                if is_proved && view.done < view.of {
                    // The gateway began to listen after the stage was done.
                    view.done = view.of;
                }
                views.push(view);
            }
        }
        views
    }

    fn stage_view(&self, key: &(ProofType, StageName), kind: &'static str) -> view::StageProgress {
        let of_stage = || {
            let all = self.attempts.iter();
            all.filter(|(place, _)| (&place.proof, &place.stage) == (&key.0, &key.1))
                .map(|(_, attempt)| attempt)
        };
        let count =
            |state: State| u32::try_from(of_stage().filter(|a| a.state == state).count()).unwrap_or(u32::MAX);
        let failed = of_stage().filter(|a| matches!(a.state, State::Failed(_))).count();
        let progress: Vec<f64> = of_stage().filter_map(Attempt::progress).collect();
        let tasks = self.stages.get(key);
        view::StageProgress {
            proof: key.0.to_string(),
            stage: key.1.to_string(),
            kind,
            of: tasks.map_or(1, |tasks| tasks.of().max(1)),
            done: tasks.map_or(0, Tasks::count_done),
            running: count(State::Running),
            failed: u32::try_from(failed).unwrap_or(u32::MAX),
            checking: count(State::Checking),
            progress: (!progress.is_empty()).then(|| progress.iter().sum::<f64>() / progress.len() as f64),
        }
    }
}

fn attempt_view(id: &BlockId, place: &Place, attempt: &Attempt) -> view::AttemptView {
    let known = |micros: u64| attempt.proved_at.map(|_| micros);
    view::AttemptView {
        key: format!(
            "{}/{}/{}/{}/{}#{}",
            id.pipeline, id.number, place.proof, place.stage, place.index, place.number
        ),
        proof: place.proof.to_string(),
        stage: place.stage.to_string(),
        index: place.index,
        attempt: place.number,
        zkvm: attempt.zkvm.to_string(),
        prover: attempt.prover.as_ref().map(ToString::to_string),
        state: attempt.state.as_str(),
        hedge_of: attempt.hedge_of,
        released_at: attempt.released_at.map(millis),
        started_at: attempt.started_at.map(millis),
        ended_at: attempt.ended_at.map(millis),
        prove_us: known(attempt.prove_us),
        transfer_us: known(attempt.transfer_us),
        verify_us: attempt.verify_us,
        verifier: attempt.verifier.as_ref().map(ToString::to_string),
        class: attempt
            .failure
            .as_ref()
            .map(|failure| failure.class.as_str().to_owned()),
        message: attempt.failure.as_ref().map(|failure| failure.message.clone()),
        progress: attempt.progress(),
    }
}

/// Returns the name of a stage's kind.
pub(crate) fn kind(kind: StageKind) -> &'static str {
    match kind {
        StageKind::Split => "split",
        StageKind::Map => "map",
        StageKind::Join => "join",
        StageKind::Range => "range",
    }
}
