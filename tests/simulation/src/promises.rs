//! What must hold at every step, and at the end. Nothing here shares code with what it judges.

use crate::{
    broker::Body,
    chain::Chain,
    plan::Lane,
    proofs::{self, Written},
};
use push0_dispatcher::decide::{Release, SourceId};
use push0_domain::{
    BlockHash, BlockRef, PipelineId, ProverId, Timestamp, ZkvmId,
    message::{
        BlockEnded, BlockEvent, Cancel, Dead, DeadLetter, Emission, EmissionOutcome, EndReason, FailureClass,
        ObservedBlock, Outcome, StageReady, TaskHeader, TaskResult,
    },
    pipeline::{Pipeline, Policy},
    task::{AttemptId, StageKey, TaskId},
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    fmt::Arguments,
};

/// What waits in the dispatcher, as an onlooker has it.
#[derive(Clone, Debug)]
struct Waiting {
    source: SourceId,
    zkvm: ZkvmId,
    stage: StageKey,
    stored_at: Timestamp,
    attempt: u32,
    first: u32,
    next: u32,
    end: u32,
    /// Deadline, block, stages left, attempts (more first), age.
    rank: (u64, u64, usize, Reverse<u32>, u64),
}

/// The onlooker.
pub(crate) struct Promises {
    pub(crate) broken: Option<String>,
    lanes: Vec<Lane>,
    /// Per lane, the output as its consumers have it.
    views: Vec<BTreeMap<u64, Emission>>,
    reorgs: Vec<Vec<Cancel>>,
    waiting: Vec<Waiting>,
    /// The messages that its session has not let go of.
    open: BTreeSet<SourceId>,
    age: u64,
    /// What the dispatcher's session was told to give up.
    given_up: Vec<(Cancel, Timestamp)>,
    attempts: BTreeMap<(TaskId, Timestamp), BTreeSet<u32>>,
    stopped: BTreeMap<(TaskId, Timestamp), BTreeSet<u32>>,
    /// Tasks that are done.
    completed: BTreeSet<(TaskId, Timestamp)>,
    honest: BTreeSet<(AttemptId, ProverId, Vec<u64>)>,
    expected: BTreeMap<(usize, BlockRef, usize), Written>,
    letters: BTreeSet<String>,
    pub(crate) outcomes: [u64; 4],
    pub(crate) rollbacks: u64,
}

impl Promises {
    pub(crate) fn new(lanes: &[Lane]) -> Self {
        Self {
            broken: None,
            lanes: lanes.to_vec(),
            views: vec![BTreeMap::new(); lanes.len()],
            reorgs: vec![Vec::new(); lanes.len()],
            waiting: Vec::new(),
            open: BTreeSet::new(),
            age: 0,
            given_up: Vec::new(),
            attempts: BTreeMap::new(),
            stopped: BTreeMap::new(),
            completed: BTreeSet::new(),
            honest: BTreeSet::new(),
            expected: BTreeMap::new(),
            letters: BTreeSet::new(),
            outcomes: [0; 4],
            rollbacks: 0,
        }
    }

    pub(crate) fn break_with(&mut self, what: Arguments<'_>) {
        self.broken.get_or_insert(what.to_string());
    }

    fn lane(&self, pipeline: &PipelineId) -> usize {
        let found = self.lanes.iter().position(|lane| lane.pipeline.name == *pipeline);
        found.unwrap_or_default()
    }

    /// Sees what is stored.
    pub(crate) fn stored(&mut self, body: &Body) {
        match body {
            Body::Block(BlockEvent::Cancelled(cancel)) if cancel.reason == EndReason::Reorged => {
                let lane = self.lane(&cancel.pipeline);
                self.reorgs[lane].push(cancel.clone());
            }
            Body::Result(result) | Body::Verdict(result) => {
                let key = (result.header.id.clone(), result.header.context.stored_at);
                let valid = result
                    .verdict
                    .as_ref()
                    .is_none_or(|verdict| verdict.invalid.is_none());
                match &result.outcome {
                    Outcome::Completed { .. } if valid => drop(self.completed.insert(key)),
                    Outcome::Failed(failure) if failure.class == FailureClass::Stopped => {
                        self.stopped.entry(key).or_default().insert(result.header.attempt);
                    }
                    _ => {}
                }
            }
            Body::Letter(letter) => self.letter(letter),
            Body::Records(lane, _, records) => records.iter().for_each(|record| self.record(*lane, record)),
            _ => {}
        }
    }

    /// P6: a task dies of failures that count, as many as its budget, or of a final one.
    fn letter(&mut self, letter: &DeadLetter) {
        self.letters.insert(letter.id.clone());
        let Dead::Task { retry, history } = &letter.what else {
            return;
        };
        let lane = self.lane(&retry.stage.pipeline);
        let spec = self.lanes[lane].pipeline.proof(&retry.stage.proof_type);
        let budget = spec
            .and_then(|spec| spec.stage(&retry.stage.stage))
            .map_or(0, |(_, s)| s.attempts);
        let counted = history
            .iter()
            .filter(|r| r.failure.class != FailureClass::Stopped)
            .count();
        let fatal = history.iter().any(|r| r.failure.class == FailureClass::Fatal);
        if !fatal && counted < budget as usize {
            self.break_with(format_args!(
                "P6: {} died of {counted} failures, its budget is {budget}",
                retry.stage
            ));
        }
    }

    /// P2, P3 and P7.
    fn record(&mut self, lane: usize, record: &Emission) {
        let view = &mut self.views[lane];
        let number = record.last.number;
        if let Some((newest, _)) = view.last_key_value() {
            let newest = *newest;
            if number <= newest {
                // A step back is right only if the chain had replaced what stood here.
                let replaced = &view[&number.max(*view.first_key_value().map_or(&0, |(n, _)| n))];
                let told = self.reorgs[lane]
                    .iter()
                    .any(|c| c.hashes.contains(&replaced.last.hash));
                if !told {
                    let what =
                        format!("P2: record {number} after {newest}, which no reorg replaced: {record:?}");
                    return self.break_with(format_args!("{what}"));
                }
                self.rollbacks += 1;
                view.split_off(&number);
            } else if number != newest + 1 {
                return self.break_with(format_args!("P2: record {number} after {newest}"));
            }
        } else if number != self.lanes[lane].first {
            return self.break_with(format_args!("P2: the first record is {number}"));
        }
        let view = &mut self.views[lane];
        if let Some((_, parent)) = view.last_key_value()
            && parent.last.hash != record.parent_hash
        {
            return self.break_with(format_args!("P2: record {number} is no child of the one before"));
        }
        if record.next != number + 1 || view.insert(number, record.clone()).is_some() {
            return self.break_with(format_args!("P3: record {number} twice"));
        }
        match &record.outcome {
            EmissionOutcome::Proved(proofs) => {
                self.outcomes[0] += 1;
                let types: BTreeSet<_> = proofs.iter().map(|p| &p.proof_type).collect();
                let quorum = self.lanes[lane].pipeline.quorum as usize;
                if types.len() != proofs.len() || proofs.len() < quorum {
                    return self.break_with(format_args!("P3: the proofs of {number} are {types:?}"));
                }
                for proof in proofs {
                    let pipeline = self.lanes[lane].pipeline.clone();
                    let Some(at) = pipeline
                        .proofs
                        .iter()
                        .position(|p| p.proof_type == proof.proof_type)
                    else {
                        return self.break_with(format_args!("P3: a proof of {number} that nobody wanted"));
                    };
                    let is = proofs::number(&proof.payload);
                    let expected = self
                        .expect(lane, &record.last, at)
                        .last()
                        .and_then(|s| s.last())
                        .cloned();
                    if expected != Some(vec![is]) {
                        self.break_with(format_args!("P7: a false proof in record {number}"));
                    }
                }
            }
            EmissionOutcome::Dead { dead_letter, .. } => {
                self.outcomes[1] += 1;
                if !self.letters.contains(dead_letter) {
                    self.break_with(format_args!(
                        "P1: record {number} names a dead letter that nobody stored"
                    ));
                }
            }
            EmissionOutcome::Abandoned(EndReason::Reorged) => {
                self.break_with(format_args!("P1: record {number} was abandoned for a reorg"));
            }
            EmissionOutcome::Abandoned(_) => self.outcomes[2] += 1,
        }
    }

    fn expect(&mut self, lane: usize, block: &BlockRef, at: usize) -> &Written {
        let Lane { pipeline, widest, .. } = &self.lanes[lane];
        let compute = || proofs::expected(&pipeline.proofs[at], block, *widest);
        self.expected.entry((lane, *block, at)).or_insert_with(compute)
    }

    /// Whether a completed attempt wrote what it must.
    pub(crate) fn is_genuine(&mut self, result: &TaskResult) -> bool {
        let stage = &result.header.id.stage;
        let lane = self.lane(&stage.pipeline);
        let pipeline = self.lanes[lane].pipeline.clone();
        let Some(at) = pipeline
            .proofs
            .iter()
            .position(|p| p.proof_type == stage.proof_type)
        else {
            return false;
        };
        let Some((position, _)) = pipeline.proofs[at].stage(&stage.stage) else {
            return false;
        };
        let Outcome::Completed { outputs } = &result.outcome else {
            return false;
        };
        let expected = self.expect(lane, &stage.block, at);
        expected[position].get(result.header.id.index as usize) == Some(&proofs::numbers(outputs))
    }

    /// An attempt that did its work.
    pub(crate) fn honest(&mut self, attempt: AttemptId, prover: &ProverId, wrote: Vec<u64>) {
        self.honest.insert((attempt, prover.clone(), wrote));
    }

    /// A verifier found a proof to be false: then its prover must have lied. If it did not, it was
    /// given the wrong inputs.
    pub(crate) fn refused(&mut self, result: &TaskResult) {
        let Outcome::Completed { outputs } = &result.outcome else {
            return;
        };
        let id = result.header.attempt_id();
        let wrote = proofs::numbers(outputs);
        if self.honest.contains(&(id.clone(), result.prover.clone(), wrote)) {
            self.break_with(format_args!(
                "{id} was honest and is wrong: it read the wrong inputs"
            ));
        }
    }

    /// P6: an attempt begins at a task that is not done. Besides those that the task may spend there
    /// is a hedge, and there are those that were told to stop.
    pub(crate) fn starts(&mut self, header: &TaskHeader) {
        let key = (header.id.clone(), header.context.stored_at);
        // What a crash made forget may run again, although it is settled.
        if self.completed.contains(&key) {
            return;
        }
        let attempts = self.attempts.entry(key.clone()).or_default();
        attempts.insert(header.attempt);
        let stopped = self.stopped.get(&key).map_or(0, BTreeSet::len);
        let (count, max) = (attempts.len(), header.attempts_max as usize + 1 + stopped);
        if count > max {
            self.break_with(format_args!("P6: attempt {count} of {max} at {}", header.id));
        }
    }

    pub(crate) fn dispatcher_starts(&mut self) {
        self.waiting.clear();
        self.open.clear();
        self.given_up.clear();
    }

    pub(crate) fn block_is_ready(
        &mut self,
        source: SourceId,
        block: &ObservedBlock,
        stored_at: Timestamp,
        pipeline: &Pipeline,
    ) {
        if !self.open.insert(source) {
            return;
        }
        for proof in &pipeline.proofs {
            let Some(stage) = proof.stages.first() else {
                continue;
            };
            let key = StageKey {
                pipeline: pipeline.name.clone(),
                block: block.block,
                proof_type: proof.proof_type.clone(),
                stage: stage.name.clone(),
            };
            self.wait(source, key, stored_at, block.deadline_at, (1, 0, 0, 1), pipeline);
        }
    }

    pub(crate) fn stage_is_ready(
        &mut self,
        source: SourceId,
        ready: &StageReady,
        cursor: u32,
        pipeline: &Pipeline,
    ) {
        if !self.open.insert(source) {
            return;
        }
        let (first, count) = (ready.tasks.first, ready.tasks.count);
        let next = first + cursor.min(count.saturating_sub(1));
        let range = (ready.attempt, first, next, first + count);
        let context = &ready.context;
        self.wait(
            source,
            ready.stage.clone(),
            context.stored_at,
            context.deadline_at,
            range,
            pipeline,
        );
    }

    fn wait(
        &mut self,
        source: SourceId,
        stage: StageKey,
        stored_at: Timestamp,
        deadline_at: Option<Timestamp>,
        (attempt, first, next, end): (u32, u32, u32, u32),
        pipeline: &Pipeline,
    ) {
        let same = |w: &Waiting| (&w.stage, w.attempt, w.first, w.end) == (&stage, attempt, first, end);
        if self.waiting.iter().any(same) {
            return;
        }
        let Some(spec) = pipeline.proof(&stage.proof_type) else {
            return;
        };
        let Some((position, of)) = spec.stage(&stage.stage) else {
            return;
        };
        let deadline = match pipeline.policy {
            Policy::OldestFirst => 0,
            Policy::Deadline { .. } => deadline_at.map_or(u64::MAX, |at| at.0),
        };
        self.age += 1;
        let left = spec.stages.len() - position;
        self.waiting.push(Waiting {
            source,
            zkvm: of.zkvm.clone(),
            stored_at,
            attempt,
            first,
            next,
            end,
            rank: (deadline, stage.block.number, left, Reverse(attempt), self.age),
            stage,
        });
    }

    /// P4 and P8.
    pub(crate) fn released(&mut self, release: &Release) {
        let found = self
            .waiting
            .iter()
            .position(|w| w.source == release.source && w.stage == release.stage && w.next == release.index);
        let Some(at) = found else {
            return self.break_with(format_args!("{release:?} was not waiting"));
        };
        let this = self.waiting[at].clone();
        let rival = self
            .waiting
            .iter()
            .filter(|w| w.zkvm == this.zkvm && w.stage.pipeline == this.stage.pipeline);
        if let Some(first) = rival.min_by_key(|w| w.rank)
            && first.rank < this.rank
        {
            let what = format!(
                "P4: released {:?} {:?} before {:?} {:?}",
                this.stage, this.rank, first.stage, first.rank
            );
            return self.break_with(format_args!("{what}"));
        }
        let unwanted = self.given_up.iter().any(|(cancel, at)| {
            this.stored_at <= *at && covers(cancel, &this.stage.pipeline, &this.stage.block)
        });
        if unwanted {
            self.break_with(format_args!("P8: released {} after it was cancelled", this.stage));
        }
        self.waiting[at].next += 1;
        if self.waiting[at].next == this.end {
            self.waiting.swap_remove(at);
        }
    }

    pub(crate) fn dispatcher_cancels(&mut self, cancel: &Cancel, stored_at: Timestamp) {
        self.given_up.push((cancel.clone(), stored_at));
        self.waiting
            .retain(|w| !(w.stored_at <= stored_at && covers(cancel, &w.stage.pipeline, &w.stage.block)));
    }

    pub(crate) fn dispatcher_ends(&mut self, ended: &BlockEnded) {
        if ended.reason == EndReason::DeadlinePassed {
            self.waiting.retain(|w| {
                !(w.stage.pipeline == ended.pipeline && ended.hashes.contains(&w.stage.block.hash))
            });
        }
    }

    pub(crate) fn dispatcher_knows(&mut self, record: &Emission) {
        self.waiting.retain(|w| {
            let same = w.stage.pipeline == record.pipeline && w.stage.block.number == record.last.number;
            !same || w.stored_at > record.stored_at
        });
    }

    pub(crate) fn done(&mut self, source: SourceId) {
        self.open.remove(&source);
        self.waiting.retain(|w| w.source != source);
    }

    /// P1: whether the output is the chain.
    pub(crate) fn is_emitted(&self, lane: usize, chain: &Chain) -> bool {
        let view = self.views[lane].values().map(|record| record.last);
        chain.is_over() && view.eq(chain.canonical.iter().map(|link| link.block))
    }

    /// Whether a message may lie in RESULTS for ever: it waits for blocks that are not there yet.
    pub(crate) fn may_stay(&self, body: &Body) -> bool {
        let Body::Ended(ended) = body else {
            return false;
        };
        let view = &self.views[self.lane(&ended.pipeline)];
        view.last_key_value()
            .is_none_or(|(newest, _)| ended.last > *newest)
    }
}

fn covers(cancel: &Cancel, pipeline: &PipelineId, block: &BlockRef) -> bool {
    let named = |hash: &BlockHash| cancel.hashes.is_empty() || cancel.hashes.contains(hash);
    cancel.pipeline == *pipeline && (cancel.first..=cancel.last).contains(&block.number) && named(&block.hash)
}
