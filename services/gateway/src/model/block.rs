//! One block or range: its attempts, its record, and the view of them.

use super::account;
use crate::view;
use push0_domain::{
    BlockHash, BlockRef, PipelineId, ProofType, ProverId, StageName, Timestamp, ZkvmId,
    message::{
        BlockFacts, Emission, EmissionOutcome, EndReason, Failure, FailureClass, Held, ObservedBlock, Proof,
        Role, TaskResult,
    },
    subject::AttemptKey,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    ops::RangeInclusive,
};

/// How many attempts of a block are remembered one by one.
const ATTEMPTS_MAX: usize = 256;
/// How many first bytes of a proof are shown.
const PROOF_PREFIX: usize = 64;

/// A block by pipeline, number and the first bytes of its hash, as subjects name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BlockId {
    pub(crate) pipeline: PipelineId,
    pub(crate) number: u64,
    prefix: [u8; 4],
}

impl BlockId {
    pub(crate) fn of(pipeline: &PipelineId, block: &BlockRef) -> Self {
        Self {
            pipeline: pipeline.clone(),
            number: block.number,
            prefix: block.key().hash_prefix,
        }
    }

    pub(crate) fn of_key(key: &AttemptKey) -> Self {
        Self {
            pipeline: key.pipeline.clone(),
            number: key.block.number,
            prefix: key.block.hash_prefix,
        }
    }

    /// Returns whether a hash is that of this block.
    pub(crate) fn is(&self, hash: &BlockHash) -> bool {
        hash.0.starts_with(&self.prefix)
    }

    /// Returns the range of all blocks of this number.
    pub(crate) fn all_of_number(&self) -> RangeInclusive<Self> {
        let with = |prefix| Self {
            prefix,
            ..self.clone()
        };
        with([0; 4])..=with([u8::MAX; 4])
    }
}

/// A block as far as messages told of it.
#[derive(Debug)]
pub(crate) struct Block {
    pub(super) hash: Option<BlockHash>,
    pub(super) parent: Option<BlockHash>,
    pub(super) announced_at: Timestamp,
    pub(super) deadline_at: Option<Timestamp>,
    pub(super) facts: BlockFacts,
    pub(super) trace_id: Option<String>,
    pub(super) attempts: BTreeMap<Place, Attempt>,
    pub(super) stages: BTreeMap<(ProofType, StageName), Tasks>,
    pub(super) ended: Option<(EndReason, Timestamp)>,
    pub(super) record: Option<Record>,
    /// First and last number of the range that the block is a part of.
    pub(super) range: Option<(u64, u64)>,
}

/// An attempt within its block.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) proof: ProofType,
    pub(crate) stage: StageName,
    pub(crate) index: u32,
    pub(crate) number: u32,
}

impl Place {
    fn of(key: &AttemptKey) -> Self {
        Self {
            proof: key.proof_type.clone(),
            stage: key.stage.clone(),
            index: key.index,
            number: key.attempt,
        }
    }
}

/// The tasks of a stage.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    pub(super) of: u32,
    pub(super) done: BTreeSet<u32>,
}

/// The record of a block.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) stored_at: Timestamp,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) account: Option<view::Account>,
    pub(crate) legs: Vec<view::Leg>,
    pub(crate) outcome: Recorded,
}

/// The outcome in a record, without the bytes of proofs.
#[derive(Clone, Debug)]
pub(crate) enum Recorded {
    Proved(Vec<view::ProofView>),
    Dead(String),
    Abandoned(EndReason),
}

/// An attempt as far as messages told of it.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    pub(crate) zkvm: ZkvmId,
    pub(crate) state: State,
    pub(crate) prover: Option<ProverId>,
    pub(crate) hedge_of: Option<u32>,
    pub(crate) released_at: Option<Timestamp>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) proved_at: Option<Timestamp>,
    pub(crate) ended_at: Option<Timestamp>,
    pub(crate) prove_us: u64,
    pub(crate) transfer_us: u64,
    pub(crate) verify_us: Option<u64>,
    pub(crate) verifier: Option<ProverId>,
    pub(crate) failure: Option<Failure>,
    pub(crate) progress: Option<u16>,
}

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Released,
    Running,
    Checking,
    Done,
    Failed(FailureClass),
}

impl State {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Running => "running",
            Self::Checking => "checking",
            Self::Done => "done",
            Self::Failed(class) => super::fleet::outcome_of(class),
        }
    }

    pub(crate) fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed(_))
    }
}

impl Attempt {
    fn new(zkvm: ZkvmId) -> Self {
        Self {
            zkvm,
            state: State::Released,
            prover: None,
            hedge_of: None,
            released_at: None,
            started_at: None,
            proved_at: None,
            ended_at: None,
            prove_us: 0,
            transfer_us: 0,
            verify_us: None,
            verifier: None,
            failure: None,
            progress: None,
        }
    }

    pub(crate) fn release(&mut self, now: Timestamp) {
        self.released_at.get_or_insert(now);
    }

    pub(crate) fn is_checking(&self) -> bool {
        self.state == State::Checking
    }

    /// Takes over times and names from a result, which is told after the attempt ended.
    fn take(&mut self, result: &TaskResult, now: Timestamp) {
        self.prover = Some(result.prover.clone());
        self.hedge_of = result.header.hedge_of;
        (self.prove_us, self.transfer_us) = (result.prove_us, result.transfer_us);
        let took = std::time::Duration::from_micros(result.prove_us + result.transfer_us);
        self.started_at.get_or_insert(now.minus(took));
        self.proved_at.get_or_insert(now);
        self.progress = None;
        if let Some(verdict) = &result.verdict {
            self.verify_us = Some(verdict.verify_us);
            self.verifier = Some(verdict.verifier.clone());
        }
    }

    pub(crate) fn complete(&mut self, result: &TaskResult, is_final: bool, now: Timestamp) {
        if self.state.is_over() {
            return;
        }
        self.take(result, now);
        let invalid = result
            .verdict
            .as_ref()
            .and_then(|verdict| verdict.invalid.clone());
        self.state = match (invalid, is_final) {
            (Some(reason), _) => {
                self.failure = Some(Failure::new(FailureClass::InvalidProof, reason));
                State::Failed(FailureClass::InvalidProof)
            }
            (None, true) => State::Done,
            (None, false) => State::Checking,
        };
        if is_final {
            self.ended_at = Some(now);
        }
    }

    pub(crate) fn fail(&mut self, result: &TaskResult, failure: &Failure, now: Timestamp) {
        if self.state == State::Done {
            return;
        }
        self.take(result, now);
        self.failure = Some(failure.clone());
        self.state = State::Failed(failure.class);
        self.ended_at = Some(now);
    }

    pub(super) fn progress(&self) -> Option<f64> {
        self.progress.map(|permille| f64::from(permille) / 1000.0)
    }
}

impl Block {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            hash: None,
            parent: None,
            announced_at: now,
            deadline_at: None,
            facts: BlockFacts::default(),
            trace_id: None,
            attempts: BTreeMap::new(),
            stages: BTreeMap::new(),
            ended: None,
            record: None,
            range: None,
        }
    }

    pub(crate) fn announce(&mut self, observed: &ObservedBlock, trace: Option<&str>, now: Timestamp) {
        let is_back = self
            .ended
            .as_ref()
            .is_some_and(|(reason, _)| *reason == EndReason::Reorged);
        if is_back && self.record.is_none() {
            self.ended = None;
        }
        self.hash = Some(observed.block.hash);
        self.parent = Some(observed.parent_hash);
        self.announced_at = now;
        self.deadline_at = observed.deadline_at;
        self.facts = observed.facts;
        self.trace_id = trace.map(str::to_owned);
    }

    /// Returns an attempt, which is new if nothing was told of it yet.
    pub(crate) fn attempt(&mut self, key: &AttemptKey) -> &mut Attempt {
        if self.attempts.len() >= ATTEMPTS_MAX {
            let over = self
                .attempts
                .iter()
                .find(|(_, attempt)| attempt.state == State::Done);
            if let Some(place) = over.map(|(place, _)| place.clone()) {
                self.attempts.remove(&place);
            }
        }
        self.range = (key.block.blocks > 1)
            .then(|| (key.block.first(), key.block.number))
            .or(self.range);
        let tasks = self
            .stages
            .entry((key.proof_type.clone(), key.stage.clone()))
            .or_default();
        tasks.of = tasks.of.max(key.index + 1);
        let attempt = self.attempts.entry(Place::of(key));
        attempt.or_insert_with(|| Attempt::new(key.zkvm.clone()))
    }

    /// Notes how many tasks a stage has.
    pub(crate) fn stage_has(&mut self, key: &AttemptKey, of: u32) {
        let tasks = self
            .stages
            .entry((key.proof_type.clone(), key.stage.clone()))
            .or_default();
        tasks.of = tasks.of.max(of);
    }

    pub(crate) fn task_done(&mut self, key: &AttemptKey) {
        let tasks = self
            .stages
            .entry((key.proof_type.clone(), key.stage.clone()))
            .or_default();
        tasks.done.insert(key.index);
    }

    /// Notes that a lease lists an attempt. Returns whether that is news for people.
    pub(crate) fn hold(
        &mut self,
        key: &AttemptKey,
        held: &Held,
        by: &ProverId,
        role: Role,
        now: Timestamp,
    ) -> bool {
        if self.record.is_some() || role == Role::Verifier {
            return false;
        }
        self.stage_has(key, held.header.of);
        let attempt = self.attempt(key);
        if attempt.state.is_over() || attempt.state == State::Checking {
            return false;
        }
        let before = (attempt.state, attempt.progress, attempt.prover.clone());
        if let Some(running) = held.running_ms {
            attempt.state = State::Running;
            let began = now.minus(std::time::Duration::from_millis(running));
            attempt.started_at.get_or_insert(began);
        }
        attempt.hedge_of = held.header.hedge_of;
        attempt.prover = Some(by.clone());
        attempt.progress = held.progress_permille;
        before != (attempt.state, attempt.progress, attempt.prover.clone())
    }

    /// Returns when an attempt began, or when its verification did.
    pub(crate) fn started_at(&self, key: &AttemptKey, verifies: bool) -> Option<Timestamp> {
        let attempt = self.attempts.get(&Place::of(key))?;
        if !verifies {
            return attempt.started_at;
        }
        let took = std::time::Duration::from_micros(attempt.verify_us?);
        Some(attempt.ended_at?.minus(took))
    }

    /// Ends the block without a proof. Returns whether that is news.
    pub(crate) fn end(&mut self, reason: EndReason, now: Timestamp) -> bool {
        if self.ended.is_some() {
            return false;
        }
        self.ended = Some((reason, now));
        true
    }

    /// Returns whether the block has a record from this time or later. An older one changes nothing.
    pub(crate) fn is_recorded_since(&self, stored_at: Timestamp) -> bool {
        self.record
            .as_ref()
            .is_some_and(|record| record.stored_at >= stored_at)
    }

    pub(crate) fn record(
        &mut self,
        record: &Emission,
        block: &BlockRef,
        stored_at: Timestamp,
        trace: Option<&str>,
    ) {
        self.hash = Some(block.hash);
        if *block == record.first {
            self.parent = Some(record.parent_hash);
        }
        if *block == record.last {
            self.facts = record.facts;
            self.trace_id = trace.map(str::to_owned).or(self.trace_id.take());
        }
        self.announced_at = self.announced_at.min(stored_at);
        if record.first == record.last {
            self.announced_at = record.stored_at;
        } else {
            self.range = Some((record.first.number, record.last.number));
        }
        self.ended = None;
        self.record = Some(Record {
            stored_at,
            first: record.first.number,
            last: record.last.number,
            account: account::account(record, stored_at),
            legs: account::legs(record),
            outcome: match &record.outcome {
                EmissionOutcome::Proved(proofs) => Recorded::Proved(proofs.iter().map(proof_view).collect()),
                EmissionOutcome::Dead { reason, .. } => Recorded::Dead(reason.clone()),
                EmissionOutcome::Abandoned(reason) => Recorded::Abandoned(reason.clone()),
            },
        });
    }

    pub(crate) fn at(&self) -> Timestamp {
        self.announced_at
    }

    pub(crate) fn hash(&self) -> Option<BlockHash> {
        self.hash
    }

    pub(crate) fn parent_hash(&self) -> Option<BlockHash> {
        self.parent
    }

    pub(crate) fn trace_id(&self) -> Option<&str> {
        self.trace_id.as_deref()
    }

    pub(crate) fn recorded(&self) -> Option<&Record> {
        self.record.as_ref()
    }

    pub(crate) fn ended(&self) -> Option<&(EndReason, Timestamp)> {
        self.ended.as_ref()
    }

    pub(crate) fn attempts(&self) -> impl Iterator<Item = (&Place, &Attempt)> {
        self.attempts.iter()
    }

    pub(crate) fn range(&self) -> Option<(u64, u64)> {
        self.range
    }

    /// Returns whether the block was not replaced.
    pub(crate) fn stands(&self) -> bool {
        !matches!(&self.ended, Some((EndReason::Reorged, _)))
    }

    /// Returns whether work on the block may go on.
    pub(crate) fn is_open(&self) -> bool {
        self.record.is_none() && self.ended.is_none()
    }

    /// Returns the hash, or its first bytes if no message carried it as a whole.
    pub(crate) fn hash_text(&self, id: &BlockId) -> String {
        let prefix = || format!("0x{}", hex::encode(id.prefix));
        self.hash.map_or_else(prefix, |hash| hash.to_string())
    }

    pub(crate) fn proof_views(&self) -> Vec<view::ProofView> {
        match self.record.as_ref().map(|record| &record.outcome) {
            Some(Recorded::Proved(proofs)) => proofs.clone(),
            _ => Vec::new(),
        }
    }
}

fn proof_view(proof: &Proof) -> view::ProofView {
    let prefix = match &proof.payload {
        push0_domain::Payload::Inline(bytes) => hex::encode(&bytes[..bytes.len().min(PROOF_PREFIX)]),
        _ => String::new(),
    };
    view::ProofView {
        proof_type: proof.proof_type.to_string(),
        zkvm: proof.zkvm.to_string(),
        program_id: proof.program_id.clone(),
        prover: proof.prover.to_string(),
        verifier: proof.verifier.as_ref().map(ToString::to_string),
        bytes: proof.bytes,
        hex_prefix: prefix,
    }
}
