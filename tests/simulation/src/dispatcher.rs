//! The dispatcher's shell, with its effects in the order of `services/dispatcher/src/service.rs`.

use crate::{
    broker::{Body, Stream},
    process::{Input, Op, Who},
    world::World,
};
use push0_dispatcher::{
    decide::{Dispatcher, Effect, Outcome, Ready, SourceId},
    task,
};
use push0_domain::{
    Announcement, PipelineId, Timestamp, ZkvmId,
    message::{BlockEvent, Cancel, ObservedBlock, ResultEvent},
    subject::AttemptKey,
};
use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    rc::Rc,
    time::Duration,
};

const RECONCILE_EVERY: u32 = 20;
/// Number of ticks between two searches for cancels.
const LOOK_EVERY: u32 = 5;
const RECONCILE_AGE: Duration = Duration::from_secs(2);

/// State of one session of the dispatcher.
#[derive(Default)]
pub(crate) struct DispatcherShell {
    pub(crate) core: Dispatcher,
    bodies: BTreeMap<SourceId, task::Body>,
    tokens: BTreeMap<u64, (SourceId, u32)>,
    next_token: u64,
    /// Number of stages stored before this session and not delivered yet.
    to_replay: usize,
    lanes: Vec<LaneShell>,
}

/// The blocks and cancels of one pipeline, as delivered by its consumer.
#[derive(Default)]
struct LaneShell {
    unread: VecDeque<(u64, Rc<Body>, Timestamp)>,
    /// The highest sequence read in its turn.
    passed: u64,
    to_replay: usize,
}

impl DispatcherShell {
    /// Returns whether the broker's answer to a release is still missing.
    pub(crate) fn is_releasing(&self) -> bool {
        !self.tokens.is_empty()
    }
}

impl World {
    pub(crate) fn dispatcher_starts(&mut self) {
        self.dispatcher = DispatcherShell::default();
        let lanes = 0..self.plan.lanes.len();
        self.dispatcher.lanes = lanes.clone().map(|_| LaneShell::default()).collect();
        self.promises.dispatcher_starts();
        let leases: Vec<_> = self.broker.leases.values().cloned().collect();
        for lease in leases {
            self.dispatcher.core.heard(&lease, self.now);
        }
        for (zkvm, released) in self.released_tasks() {
            self.dispatcher.core.adopt(&zkvm, released, self.now);
        }
        for lane in lanes {
            let name = self.plan.lanes[lane].pipeline.name.clone();
            let of_lane = |body: &Body| body.lane() == Some(&name);
            self.dispatcher.lanes[lane].to_replay = self.replay(Who::Dispatcher, Stream::Blocks, of_lane);
        }
        self.dispatcher.to_replay = self.replay(Who::Dispatcher, Stream::Stages, |_| true);
    }

    fn released_tasks(&mut self) -> BTreeMap<ZkvmId, HashSet<AttemptKey>> {
        let mut released = BTreeMap::new();
        for zkvm in &self.plan.zkvms {
            released.insert(zkvm.clone(), HashSet::new());
        }
        for key in self.broker.queue(Stream::Tasks).keys() {
            released.entry(key.zkvm.clone()).or_default().insert(key.clone());
        }
        released
    }

    fn reconcile_dispatcher(&mut self) {
        let before = self.now.minus(RECONCILE_AGE);
        for (zkvm, present) in self.released_tasks() {
            self.dispatcher.core.reconcile(&zkvm, &present, before);
        }
    }

    pub(crate) fn dispatcher_hears(&mut self, input: Input) -> Vec<Op> {
        let mut ops = match input {
            Input::Read(..) => Vec::new(),
            Input::Tick => {
                let process = self.process(Who::Dispatcher);
                process.ticks += 1;
                let process_ticks = process.ticks;
                let mut ops = Vec::new();
                if process_ticks.is_multiple_of(RECONCILE_EVERY) {
                    self.reconcile_dispatcher();
                    ops.extend(self.catch_up());
                }
                // A task on its way to TASKS must be stored before a cancel can purge the task.
                if process_ticks.is_multiple_of(LOOK_EVERY) && !self.dispatcher.is_releasing() {
                    ops.extend(self.early_cancels());
                }
                let effects = self.dispatcher.core.tick(self.now);
                ops.extend(self.apply(effects));
                ops
            }
            Input::Answer(token, _) => match self.dispatcher.tokens.remove(&token) {
                Some((source, index)) => {
                    let effects = self.dispatcher.core.stored(source, index);
                    self.apply(effects)
                }
                None => Vec::new(),
            },
            Input::Signal(body) => self.dispatcher_signal(&body),
            Input::Delivery(stream, sequence, body, stored_at) => match &*body {
                Body::Block(_) if stream == Stream::Blocks => {
                    let lane = body.lane().map_or(0, |name| self.lane_of(name));
                    let unread = (sequence, body.clone(), stored_at);
                    self.dispatcher.lanes[lane].unread.push_back(unread);
                    Vec::new()
                }
                Body::Stage(ready) => {
                    self.dispatcher.core.replays(self.dispatcher.to_replay > 0);
                    self.dispatcher.to_replay = self.dispatcher.to_replay.saturating_sub(1);
                    self.stage(sequence, ready)
                }
                _ => Vec::new(),
            },
        };
        let mut may_release = self.dispatcher.to_replay == 0;
        for lane in 0..self.plan.lanes.len() {
            ops.extend(self.read_on(lane));
            let lane = &self.dispatcher.lanes[lane];
            // An unread message at the front is a block too far ahead, or a cancel that waits for answers.
            // Only the cancel holds releases back.
            let front = lane.unread.front();
            may_release &= lane.to_replay == 0 || front.is_some();
            may_release &= front.is_none_or(|(_, body, _)| !body.is_cancel());
        }
        if may_release {
            ops.extend(self.release());
        }
        ops
    }

    fn dispatcher_signal(&mut self, body: &Rc<Body>) -> Vec<Op> {
        match &**body {
            Body::Lease(lease) => self.dispatcher.core.heard(lease, self.now),
            Body::Check(result) | Body::Result(result) | Body::Verdict(result) => {
                let key = AttemptKey::of(&result.header.zkvm, &result.header.attempt_id());
                let effects = self.dispatcher.core.came(&key, Outcome::of(result), self.now);
                return self.apply(effects);
            }
            Body::Records(_, _, records) => {
                let mut ops = Vec::new();
                for record in records {
                    let core = &mut self.dispatcher.core;
                    let effects = core.emitted(record);
                    self.promises.dispatcher_knows(record);
                    ops.extend(self.apply(effects));
                }
                return ops;
            }
            _ => {}
        }
        Vec::new()
    }

    /// On the first sight of a pipeline, tells the core how far the pipeline's output is.
    fn know(&mut self, pipeline: &PipelineId) {
        if self.dispatcher.core.knows(pipeline) {
            return;
        }
        let lane = self.lane_of(pipeline);
        let output = self.broker.output(lane).map(|(output, _)| output);
        let core = &mut self.dispatcher.core;
        if let Some((first, _)) = self.broker.known[lane].keys().next() {
            core.announced(pipeline, *first);
        }
        // No entry of the pipeline waits yet, so the recall drops nothing.
        core.recall(pipeline, output.unwrap_or_default());
    }

    /// Reads the pipeline's blocks that are near enough to its output, and its cancels.
    fn read_on(&mut self, lane: usize) -> Vec<Op> {
        let mut ops = Vec::new();
        while let Some((sequence, body, stored_at)) = self.dispatcher.lanes[lane].unread.front().cloned() {
            let may_read = match &*body {
                Body::Block(BlockEvent::Observed(block)) => self.has_room(lane, sequence, block),
                _ => !self.dispatcher.is_releasing(),
            };
            if !may_read {
                break;
            }
            let shell = &mut self.dispatcher.lanes[lane];
            shell.unread.pop_front();
            shell.passed = shell.passed.max(sequence);
            self.dispatcher.core.replays(shell.to_replay > 0);
            shell.to_replay = shell.to_replay.saturating_sub(1);
            match &*body {
                Body::Block(BlockEvent::Observed(block)) => {
                    ops.extend(self.block(SourceId::Block(sequence), block, stored_at));
                }
                Body::Block(BlockEvent::Cancelled(cancel)) => {
                    ops.extend(self.cancel(sequence, cancel, false));
                }
                _ => {}
            }
        }
        ops
    }

    fn has_room(&mut self, lane: usize, sequence: u64, block: &ObservedBlock) -> bool {
        self.know(&block.pipeline);
        let (source, ahead) = (SourceId::Block(sequence), self.plan.lanes[lane].ahead);
        let core = &mut self.dispatcher.core;
        core.announced(&block.pipeline, block.block.number);
        core.has_room(source, &block.pipeline, &block.block, ahead)
    }

    /// Tells the core of stored records whose signals were lost.
    fn catch_up(&mut self) -> Vec<Op> {
        let outputs = self.dispatcher.core.outputs();
        let outputs: Vec<(PipelineId, u64)> = outputs.map(|(name, next)| (name.clone(), next)).collect();
        let mut ops = Vec::new();
        for (name, next) in outputs {
            let lane = self.lane_of(&name);
            if let Some((output, _)) = self.broker.output(lane)
                && output.next() > next
            {
                for (_, record) in &self.broker.log[lane] {
                    self.promises.dispatcher_knows(record);
                }
                let effects = self.dispatcher.core.recall(&name, output);
                ops.extend(self.apply(effects));
            }
        }
        ops
    }

    /// Reads cancels before their turn, from behind blocks that are too far ahead or still undelivered.
    fn early_cancels(&mut self) -> Vec<Op> {
        let stored = &self.broker.queue(Stream::Blocks).messages;
        let cancels = stored.iter().filter(|(_, message)| message.body.is_cancel());
        let cancels: Vec<_> = cancels
            .map(|(sequence, message)| (*sequence, message.body.clone()))
            .collect();
        let mut ops = Vec::new();
        for (sequence, body) in cancels {
            if let Body::Block(BlockEvent::Cancelled(cancel)) = &*body {
                let lane = self.lane_of(&cancel.pipeline);
                let core = &self.dispatcher.core;
                let is_ahead = sequence > self.dispatcher.lanes[lane].passed;
                if is_ahead && core.has_room_for_cancels(&cancel.pipeline) {
                    ops.extend(self.cancel(sequence, cancel, true));
                }
            }
        }
        ops
    }

    fn cancel(&mut self, sequence: u64, cancel: &Cancel, is_early: bool) -> Vec<Op> {
        let held = self.released_tasks();
        let held = held.values().flatten();
        let source = SourceId::Block(sequence);
        let core = &mut self.dispatcher.core;
        let effects = core.cancel(source, cancel, held, is_early);
        self.promises.dispatcher_cancels(cancel, Announcement(sequence));
        self.apply(effects)
    }

    fn block(&mut self, source: SourceId, block: &ObservedBlock, stored_at: Timestamp) -> Vec<Op> {
        let lane = self.lane_of(&block.pipeline);
        let pipeline = self.plan.lanes[lane].pipeline.clone();
        let core = &mut self.dispatcher.core;
        let effects = core.block(source, block.block, block.deadline_at, &pipeline);
        if effects.is_empty() {
            let body = task::Body::Block(block.clone(), stored_at);
            self.dispatcher.bodies.insert(source, body);
            self.promises.block_is_ready(source, block, &pipeline);
        }
        self.apply(effects)
    }

    fn stage(&mut self, sequence: u64, stage: &push0_domain::message::StageReady) -> Vec<Op> {
        let source = SourceId::Stage(sequence);
        self.know(&stage.stage.pipeline);
        let pipeline = self.plan.lanes[self.lane_of(&stage.stage.pipeline)]
            .pipeline
            .clone();
        let cursor = self.broker.cursors.get(&sequence).copied().unwrap_or(0);
        let ready = Ready::from(stage);
        let effects = self
            .dispatcher
            .core
            .stage(source, ready.clone(), cursor, &pipeline, self.now);
        if effects.is_empty() {
            self.dispatcher
                .bodies
                .insert(source, task::Body::Stage(stage.clone()));
            self.promises.stage_is_ready(source, ready, cursor, &pipeline);
        }
        self.apply(effects)
    }

    fn release(&mut self) -> Vec<Op> {
        let mut ops = Vec::new();
        while let Some(release) = self.dispatcher.core.release(self.now) {
            self.promises.released(&release, self.now);
            let lane = self.lane_of(&release.stage.pipeline);
            let pipeline = self.plan.lanes[lane].pipeline.clone();
            let task = self
                .dispatcher
                .bodies
                .get(&release.source)
                .and_then(|body| body.task(&release, 0, &pipeline, &self.plan.keys));
            let Some(Ok(task)) = task else {
                self.promises.break_with(format_args!("no task for {release:?}"));
                break;
            };
            self.dispatcher.next_token += 1;
            let token = self.dispatcher.next_token;
            self.dispatcher
                .tokens
                .insert(token, (release.source, release.index));
            ops.push(Op::Send(Body::Task(task), token));
        }
        ops
    }

    fn apply(&mut self, effects: Vec<Effect>) -> Vec<Op> {
        let mut ops = Vec::new();
        for effect in effects {
            match effect {
                Effect::Done(source) => ops.extend(self.done(source)),
                Effect::SaveCursor(source, next) => ops.push(Op::SaveCursor(source.sequence(), next)),
                Effect::DropCursor(source) => ops.push(Op::DropCursor(source.sequence())),
                Effect::Hold(..) => {}
                Effect::Purge(key, ended) => ops.push(Op::Purge(key, ended)),
                Effect::End(ended, source) => {
                    self.promises.dispatcher_ends(&ended);
                    let ResultEvent::Ended(ended) = ResultEvent::Ended(ended) else {
                        continue;
                    };
                    ops.push(Op::Store(Body::Ended(ended)));
                    if let Some(source) = source {
                        ops.extend(self.done(source));
                    }
                }
            }
        }
        ops
    }

    fn done(&mut self, source: SourceId) -> Vec<Op> {
        self.dispatcher.bodies.remove(&source);
        self.promises.done(source);
        match source {
            SourceId::Block(sequence) => vec![Op::Ack(Stream::Blocks, sequence)],
            SourceId::Stage(sequence) => vec![Op::Ack(Stream::Stages, sequence)],
        }
    }
}
