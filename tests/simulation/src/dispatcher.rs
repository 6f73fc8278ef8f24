//! The dispatcher's shell, as `services/dispatcher/src/service.rs` orders its effects.

use crate::{
    broker::{Body, Stream},
    process::{Input, Op, Who},
    world::World,
};
use push0_dispatcher::{
    decide::{Dispatcher, Effect, Ready, SourceId},
    task,
};
use push0_domain::{
    Timestamp, ZkvmId,
    message::{BlockEvent, ResultEvent},
    subject::AttemptKey,
};
use std::{
    collections::{BTreeMap, HashSet},
    rc::Rc,
    time::Duration,
};

const RECONCILE_EVERY: u32 = 20;
const RECONCILE_AGE: Duration = Duration::from_secs(2);

/// One session.
#[derive(Default)]
pub(crate) struct DispatcherShell {
    pub(crate) core: Dispatcher,
    bodies: BTreeMap<SourceId, task::Body>,
    tokens: BTreeMap<u64, (SourceId, u32)>,
    next_token: u64,
    to_replay: usize,
}

impl DispatcherShell {
    /// Whether releases are not answered yet.
    pub(crate) fn is_releasing(&self) -> bool {
        !self.tokens.is_empty()
    }
}

impl World {
    pub(crate) fn dispatcher_starts(&mut self) {
        self.dispatcher = DispatcherShell::default();
        self.promises.dispatcher_starts();
        let leases: Vec<_> = self.broker.leases.values().cloned().collect();
        for lease in leases {
            self.dispatcher.core.heard(&lease, self.now);
        }
        for (zkvm, released) in self.released_tasks() {
            self.dispatcher.core.adopt(&zkvm, released, self.now);
        }
        let blocks = self.replay(Who::Dispatcher, Stream::Blocks, |_| true);
        let stages = self.replay(Who::Dispatcher, Stream::Stages, |_| true);
        self.dispatcher.to_replay = blocks + stages;
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
            Input::Tick => {
                let process = self.process(Who::Dispatcher);
                process.ticks += 1;
                if process.ticks.is_multiple_of(RECONCILE_EVERY) {
                    self.reconcile_dispatcher();
                }
                let effects = self.dispatcher.core.tick(self.now);
                self.apply(effects)
            }
            Input::Answer(token, _) => match self.dispatcher.tokens.remove(&token) {
                Some((source, index)) => {
                    let effects = self.dispatcher.core.stored(source, index);
                    self.apply(effects)
                }
                None => Vec::new(),
            },
            Input::Signal(body) => self.dispatcher_signal(&body),
            Input::Delivery(stream, sequence, body, stored_at) => {
                self.dispatcher.core.replays(self.dispatcher.to_replay > 0);
                self.dispatcher.to_replay = self.dispatcher.to_replay.saturating_sub(1);
                match &*body {
                    Body::Block(event) if stream == Stream::Blocks => self.block(sequence, event, stored_at),
                    Body::Stage(ready) => self.stage(sequence, ready),
                    _ => Vec::new(),
                }
            }
        };
        if self.dispatcher.to_replay == 0 {
            ops.extend(self.release());
        }
        ops
    }

    fn dispatcher_signal(&mut self, body: &Rc<Body>) -> Vec<Op> {
        match &**body {
            Body::Lease(lease) => self.dispatcher.core.heard(lease, self.now),
            Body::Check(result) | Body::Result(result) | Body::Verdict(result) => {
                let key = AttemptKey::of(&result.header.zkvm, &result.header.attempt_id());
                self.dispatcher.core.ended(&key);
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

    /// With the first sight of a pipeline: how far its output is.
    fn know(&mut self, pipeline: &push0_domain::PipelineId) {
        if self.dispatcher.core.knows(pipeline) {
            return;
        }
        let lane = self.lane_of(pipeline);
        let output = self.broker.output(lane).map(|(output, _)| output);
        let core = &mut self.dispatcher.core;
        core.recall(pipeline, output.unwrap_or_default());
    }

    fn block(&mut self, sequence: u64, event: &BlockEvent, stored_at: Timestamp) -> Vec<Op> {
        let source = SourceId::Block(sequence);
        match event {
            BlockEvent::Cancelled(cancel) => {
                let held = self.released_tasks();
                let held = held.values().flatten();
                let effects = self.dispatcher.core.cancel(source, cancel, stored_at, held);
                self.promises.dispatcher_cancels(cancel, stored_at);
                self.apply(effects)
            }
            BlockEvent::Observed(block) => {
                self.know(&block.pipeline);
                let pipeline = self.plan.lanes[self.lane_of(&block.pipeline)].pipeline.clone();
                let effects =
                    self.dispatcher
                        .core
                        .block(source, block.block, stored_at, block.deadline_at, &pipeline);
                if effects.is_empty() {
                    self.dispatcher
                        .bodies
                        .insert(source, task::Body::Block(block.clone(), stored_at));
                    self.promises.block_is_ready(source, block, stored_at, &pipeline);
                }
                self.apply(effects)
            }
        }
    }

    fn stage(&mut self, sequence: u64, stage: &push0_domain::message::StageReady) -> Vec<Op> {
        let source = SourceId::Stage(sequence);
        self.know(&stage.stage.pipeline);
        let pipeline = self.plan.lanes[self.lane_of(&stage.stage.pipeline)]
            .pipeline
            .clone();
        let cursor = self.broker.cursors.get(&sequence).copied().unwrap_or(0);
        let ready = Ready {
            stage: stage.stage.clone(),
            zkvm: stage.zkvm.clone(),
            tasks: stage.tasks,
            attempt: stage.attempt,
            announced_at: stage.context.stored_at,
            first_announced_at: stage.context.first_stored_at(),
            deadline_at: stage.context.deadline_at,
            is_hedge: stage.hedge_of.is_some(),
            amends: stage.context.amends,
        };
        let effects = self
            .dispatcher
            .core
            .stage(source, ready.clone(), cursor, &pipeline);
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
                .and_then(|body| body.task(&release, &pipeline));
            let Some(task) = task else {
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
                Effect::SaveCursor(SourceId::Block(sequence) | SourceId::Stage(sequence), next) => {
                    ops.push(Op::SaveCursor(sequence, next));
                }
                Effect::DropCursor(SourceId::Block(sequence) | SourceId::Stage(sequence)) => {
                    ops.push(Op::DropCursor(sequence));
                }
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
