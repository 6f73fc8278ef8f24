//! One block or range: its attempts, its record, and the view of them.

use super::{
    account,
    attempt::{Attempt, Place, State},
    tasks::Tasks,
    text::{LINE_MAX, cut, short},
};
use crate::view;
use push0_domain::{
    BlockHash, BlockRef, PipelineId, ProofType, ProverId, StageName, Timestamp,
    message::{BlockFacts, Emission, EmissionOutcome, EndReason, Held, ObservedBlock, Proof, Role},
    pipeline::{PROOF_TYPES_MAX, STAGES_MAX},
    subject::AttemptKey,
};
use std::{collections::BTreeMap, ops::RangeInclusive};

/// How many attempts of a block are remembered one by one.
pub(super) const ATTEMPTS_MAX: usize = 256;
/// How many stages of a block are remembered.
const STAGES_KEPT: usize = PROOF_TYPES_MAX * STAGES_MAX;
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

    /// Returns the lowest and the highest of all ids of these numbers.
    pub(crate) fn around(pipeline: &PipelineId, numbers: RangeInclusive<u64>) -> (Self, Self) {
        let with = |number, prefix| Self {
            pipeline: pipeline.clone(),
            number,
            prefix,
        };
        (with(*numbers.start(), [0; 4]), with(*numbers.end(), [u8::MAX; 4]))
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
        self.come_back();
        self.hash = Some(observed.block.hash);
        self.parent = Some(observed.parent_hash);
        self.announced_at = now;
        self.deadline_at = observed.deadline_at;
        self.facts = observed.facts;
        self.trace_id = trace.map(str::to_owned);
    }

    /// Begins anew if the block was replaced: the chain returned to it, or its announcement was heard before the end of
    /// its predecessors.
    fn come_back(&mut self) {
        if !self.stands() {
            (self.ended, self.record) = (None, None);
            self.attempts.clear();
            self.stages.clear();
        }
    }

    /// Notes that the dispatcher released an attempt.
    pub(crate) fn release(&mut self, key: &AttemptKey, now: Timestamp) {
        self.come_back();
        self.entry(key).released_at.get_or_insert(now);
    }

    /// Returns an attempt, which is new if nothing was told of it yet. None is new after the block's record.
    pub(crate) fn attempt(&mut self, key: &AttemptKey) -> Option<&mut Attempt> {
        let may_be_new = self.record.is_none() || self.attempts.contains_key(&Place::of(key));
        may_be_new.then(|| self.entry(key))
    }

    fn entry(&mut self, key: &AttemptKey) -> &mut Attempt {
        let place = Place::of(key);
        if self.attempts.len() >= ATTEMPTS_MAX && !self.attempts.contains_key(&place) {
            let first = self.attempts.iter().min_by_key(|(_, attempt)| attempt.rank());
            if let Some(place) = first.map(|(place, _)| place.clone()) {
                self.attempts.remove(&place);
            }
        }
        self.range = (key.block.blocks > 1)
            .then(|| (key.block.first(), key.block.number))
            .or(self.range);
        self.stage_has(key, key.index.saturating_add(1));
        let attempt = self.attempts.entry(place);
        attempt.or_insert_with(|| Attempt::new(key.zkvm.clone()))
    }

    /// Notes how many tasks a stage has.
    pub(crate) fn stage_has(&mut self, key: &AttemptKey, of: u32) {
        if let Some(tasks) = self.tasks(key) {
            tasks.has(of);
        }
    }

    pub(crate) fn task_done(&mut self, key: &AttemptKey) {
        if let Some(tasks) = self.tasks(key) {
            tasks.done(key.index);
        }
    }

    /// Returns the tasks of a stage; `None` if the block has as many stages as a definition can have.
    fn tasks(&mut self, key: &AttemptKey) -> Option<&mut Tasks> {
        let stage = (key.proof_type.clone(), key.stage.clone());
        let is_known = self.stages.len() < STAGES_KEPT || self.stages.contains_key(&stage);
        is_known.then(|| self.stages.entry(stage).or_default())
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
        let attempt = self.entry(key);
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
        attempt.progress = held.progress_permille.map(|permille| permille.min(1000));
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
    pub(crate) fn end(&mut self, reason: &EndReason, now: Timestamp) -> bool {
        if self.ended.is_some() {
            return false;
        }
        self.ended = Some((short(reason), now));
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
                EmissionOutcome::Dead { reason, .. } => Recorded::Dead(cut(reason, LINE_MAX)),
                EmissionOutcome::Abandoned(reason) => Recorded::Abandoned(short(reason)),
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

    /// Returns the numbers of the blocks that are proved with this one.
    pub(crate) fn numbers(&self, id: &BlockId) -> RangeInclusive<u64> {
        self.range
            .map_or(id.number..=id.number, |(first, last)| first..=last)
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
        program_id: proof.program_id.as_ref().map(|id| cut(id, LINE_MAX)),
        prover: proof.prover.to_string(),
        verifier: proof.verifier.as_ref().map(ToString::to_string),
        bytes: proof.bytes,
        hex_prefix: prefix,
    }
}
