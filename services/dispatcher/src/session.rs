//! The session of a leading dispatcher decides all steps, their order, and their waits for each other. Pure: an executor
//! tells the session each input, and carries out the operations in the answer. Service and simulation are both executors.
//!
//! | rule | reason |
//! |---|---|
//! | nothing is released before everything stored earlier was read | a message not read yet may be more urgent, or a cancel |
//! | the end of a block is stored before its message is acknowledged | a crash in between tells the collector again |
//! | a message is acknowledged when its releases are stored | a crash in between releases them again, and TASKS refuses the copies |
//! | a cancel is applied when no publish is in flight | an attempt must be in TASKS before it can be purged |
//! | a cancel is applied before anything else is told | a release in between could be of a cancelled block |

mod blocks;
mod lane;
mod op;
mod refusal;
mod release;

pub use self::op::{Attempts, Blocks, Found, LateSearch, Op, Outgoing, Received, Refusal, Token};

use self::{
    lane::Lane,
    op::{Cancelling, never_defined},
};
use crate::{
    bodies::Bodies,
    decide::{Dispatcher, Effect, Outcome, Ready, SourceId},
    task::Body,
    waits::Waits,
};
use push0_domain::{
    PipelineId, Timestamp, ZkvmId,
    message::{self, BlockEnded, Emission, StageReady, Task, TaskResult},
    output::Output,
    pipeline::Pipeline,
    subject::{AttemptKey, Kind},
    wanted::Claims,
};
use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

/// After how many ticks the outstanding attempts are compared with TASKS, and the outputs with PROOFS.
const COMPARE_EVERY: u32 = 20;
/// Minimum age of a release to be compared with TASKS. By then its publish has long been answered.
const COMPARE_AGE: Duration = Duration::from_secs(2);

/// The dispatcher while it leads.
#[derive(Debug, Default)]
pub struct Session {
    /// The decisions. Inputs without effects go straight to them: heartbeats, room, attempts and holds from before.
    pub core: Dispatcher,
    lanes: BTreeMap<PipelineId, Lane>,
    /// How many blocks ahead of the next one to emit are dispatched.
    ahead: u64,
    bodies: Bodies,
    pub(crate) waits: Waits,
    /// How many releases are not answered.
    in_flight: usize,
    /// Cancellations to apply before anything else.
    cancels: VecDeque<Cancelling>,
    ticks: u32,
}

impl Session {
    /// Creates a session for a reach of so many blocks ahead of the output.
    pub fn new(ahead: u64) -> Self {
        Self {
            ahead,
            ..Self::default()
        }
    }

    /// Returns the pipelines whose output was read, each with the number whose record may have been missed, or 0 where
    /// any record may be. A missed record of a range has the number of its last block, so a pipeline that waits for its
    /// output asks for the newest record.
    pub fn outputs(&self) -> Vec<(PipelineId, u64)> {
        let outputs = self.core.outputs();
        let asked = |(name, next): (&PipelineId, u64)| match self.is_parked(name) {
            true => (name.clone(), 0),
            false => (name.clone(), next),
        };
        outputs.map(asked).collect()
    }

    /// Takes note of a pipeline's output, which must be known before a message of the pipeline is received. Without a
    /// record, the output begins with the first block in the ingester's facts.
    pub fn recall(&mut self, pipeline: &PipelineId, output: Option<Output>, first: Option<u64>) -> Vec<Op> {
        if let (None, Some(first)) = (&output, first) {
            self.core.announced(pipeline, first);
        }
        let effects = self.core.recall(pipeline, output.unwrap_or_default());
        self.follow(effects)
    }

    /// Handles a stored record.
    pub fn emitted(&mut self, record: &Emission) -> Vec<Op> {
        let effects = self.core.emitted(record);
        self.follow(effects)
    }

    /// Handles a believed report about an attempt, which is of this kind.
    pub fn report(&mut self, kind: Kind, key: &AttemptKey, result: &TaskResult, now: Timestamp) -> Vec<Op> {
        let outcome = match kind {
            Kind::Check => Outcome::Unverified,
            _ => Outcome::of(result),
        };
        let mut ops = Vec::new();
        if kind == Kind::Verdict {
            self.judged(key, result);
        } else if let message::Outcome::Completed { outputs } = &result.outcome {
            self.core.stores(kind, key, outputs.blob_len());
            let worked = Duration::from_micros(result.prove_us.saturating_add(result.transfer_us));
            let waited = self.core.waited(key, worked, now);
            ops.extend(waited.map(|waited| Op::Observe(key.pipeline.clone(), waited)));
        }
        let effects = self.core.came(key, outcome, now);
        ops.extend(self.follow(effects));
        ops
    }

    /// Believes the size of outputs that a verifier called valid.
    fn judged(&mut self, key: &AttemptKey, result: &TaskResult) {
        let is_valid = |verdict: &message::Verdict| verdict.invalid.is_none();
        if let message::Outcome::Completed { outputs } = &result.outcome
            && result.verdict.as_ref().is_some_and(is_valid)
        {
            self.core.reserve().believes(&key.zkvm, outputs.blob_len());
        }
    }

    /// Handles a ready stage or a further attempt. `cursor` counts the tasks already released before a restart, and
    /// `definition` is the revision named by the stage.
    pub fn stage(
        &mut self,
        message: Received<StageReady>,
        cursor: u32,
        definition: Option<Arc<Pipeline>>,
        now: Timestamp,
    ) -> Vec<Op> {
        self.core.replays(message.is_replay);
        let source = SourceId::Stage(message.sequence);
        let stage = message.body;
        let Some(pipeline) = definition else {
            let announcement = stage.context.announcement.max(stage.context.first_announcement());
            let reason = never_defined(&stage.stage.pipeline, stage.context.revision);
            let blocks = stage.stage.first_block()..=stage.stage.block;
            let blocks = Some((stage.stage.pipeline, blocks, announcement));
            return Op::refuse(source, message.subject, reason, blocks);
        };
        let ready = Ready::from(&stage);
        let effects = self.core.stage(source, ready, cursor, &pipeline, now);
        if effects.is_empty() {
            self.waits.begin(source, message.stored_at, false);
            self.bodies.keep(source, Body::Stage(stage), message.trace);
        }
        self.follow(effects)
    }

    /// Counts a tick. Returns whether the outstanding attempts and the outputs are to be compared with the broker's before
    /// [`Self::tick`].
    pub fn compares(&mut self) -> bool {
        self.ticks = self.ticks.wrapping_add(1);
        self.ticks.is_multiple_of(COMPARE_EVERY)
    }

    /// Corrects the outstanding attempts against TASKS, which was asked at this time.
    pub fn reconcile(&mut self, held: &Attempts, asked_at: Timestamp) {
        let before = asked_at.minus(COMPARE_AGE);
        let zkvms: Vec<ZkvmId> = self.core.provers().map(|(zkvm, ..)| zkvm.clone()).collect();
        for zkvm in zkvms {
            let held = held.get(&zkvm);
            self.core
                .reconcile(&zkvm, held.unwrap_or(&HashSet::new()), before);
        }
    }

    /// Handles the passing of time.
    pub fn tick(&mut self, now: Timestamp) -> Vec<Op> {
        let effects = self.core.tick(now);
        self.follow(effects)
    }

    /// Returns whether an attempt ended by a cancel is to be removed from TASKS. Only its task distinguishes work for a
    /// replaced block from work for the same block announced again after the chain went back to it. No release comes before
    /// the removal, so the place may count as free from here on.
    pub fn purge(&mut self, key: &AttemptKey, ended: &BlockEnded, task: Option<&Task>) -> bool {
        let is_wanted = |task: &Task| ended.assess(&task.header.id.stage, task.claim()).is_wanted();
        let is_purged = !task.is_some_and(is_wanted);
        if is_purged {
            self.core.ended(key);
        }
        is_purged
    }

    /// Returns the operations for effects, in the order of the effects.
    fn follow(&mut self, effects: Vec<Effect>) -> Vec<Op> {
        let mut ops = Vec::with_capacity(effects.len());
        for effect in effects {
            match effect {
                Effect::Done(source) => ops.extend(self.done(source)),
                Effect::SaveCursor(source, next) => ops.push(Op::SaveCursor(source, next)),
                Effect::DropCursor(source) => ops.push(Op::DropCursor(source)),
                Effect::Hold(zkvm, turn) => ops.push(Op::Hold(zkvm, turn)),
                Effect::Purge(key, ended) => ops.push(Op::Purge(key, ended)),
                Effect::End(ended, source) => {
                    // The collector is told before the message is acknowledged, so a crash in between tells the
                    // collector again.
                    ops.push(Op::End(ended));
                    ops.extend(source.and_then(|source| self.done(source)));
                }
            }
        }
        ops
    }

    /// Forgets a message. A late block cannot be acknowledged before the consumer has delivered it in its turn.
    fn done(&mut self, source: SourceId) -> Option<Op> {
        self.bodies.forget(source);
        self.waits.end(source);
        if let SourceId::Block(sequence) = source
            && let Some(is_done) = self
                .lanes
                .values_mut()
                .find_map(|lane| lane.taken.get_mut(&sequence))
        {
            *is_done = true;
            return None;
        }
        Some(Op::Acknowledge(source))
    }
}
