//! The executor of the dispatcher's session: hands simulated events to the session of the real dispatcher, with reads of
//! the real executor, and turns the session's operations into steps of the process.

use crate::{
    broker::{Body, Stream},
    process::{Input, Op, Who},
    world::World,
};
use push0_dispatcher::{
    decide::{Ready, SourceId},
    session::{self, Attempts, Found, Received, Session, Token},
};
use push0_domain::{
    Announcement, PipelineId, Timestamp,
    message::{BlockEvent, StageReady, TaskResult},
    subject::{AttemptKey, Kind},
    trace::TraceContext,
};
use std::{collections::VecDeque, rc::Rc};

/// Number of ticks between two searches for cancels in a lane.
const LOOK_EVERY: usize = 5;

/// A session of the dispatcher, and its surroundings.
#[derive(Default)]
pub(crate) struct DispatcherShell {
    pub(crate) session: Session,
    /// The tokens of all publishes, by the number in the answer.
    tokens: Vec<Token>,
    /// Number of stages stored before this session and not delivered yet.
    to_replay: u64,
    consumers: Vec<Consumer>,
    /// The lane whose cancels are searched for next.
    look: Option<usize>,
    /// Inputs held back while the session awaits answers.
    later: VecDeque<Input>,
}

/// The consumer of one pipeline's blocks and cancels.
#[derive(Default)]
struct Consumer {
    unread: VecDeque<(u64, Rc<Body>, Timestamp)>,
    to_replay: u64,
    /// The sequence up to which the stream was searched for cancels.
    looked_to: u64,
}

impl World {
    pub(crate) fn dispatcher_starts(&mut self) {
        self.dispatcher = DispatcherShell::default();
        self.dispatcher.session = Session::new(self.plan.ahead);
        self.promises.dispatcher_starts();
        let leases: Vec<_> = self.broker.leases.values().cloned().collect();
        for lease in leases {
            self.dispatcher.session.core.heard(&lease, self.now);
        }
        for (zkvm, held) in self.released_tasks() {
            self.dispatcher.session.core.adopt(&zkvm, held, self.now);
        }
        for lane in 0..self.plan.lanes.len() {
            let name = self.plan.lanes[lane].pipeline.name.clone();
            self.dispatcher.session.open(&name, true, self.now);
            let of_lane = |body: &Body| body.lane() == Some(&name);
            let to_replay = self.replay(Who::Dispatcher, Stream::Blocks, of_lane) as u64;
            self.dispatcher.consumers.push(Consumer {
                to_replay,
                ..Consumer::default()
            });
        }
        self.dispatcher.to_replay = self.replay(Who::Dispatcher, Stream::Stages, |_| true) as u64;
    }

    fn released_tasks(&mut self) -> Attempts {
        let mut released = Attempts::new();
        for key in self.broker.queue(Stream::Tasks).keys() {
            released.entry(key.zkvm.clone()).or_default().insert(key.clone());
        }
        released
    }

    pub(crate) fn dispatcher_hears(&mut self, input: Input) -> Vec<Op> {
        let ops = match input {
            Input::Answer(token, _) => {
                let token = self.dispatcher.tokens[token as usize];
                self.dispatcher.session.stored(token)
            }
            input if self.dispatcher.session.awaits_answers() => {
                self.dispatcher.later.push_back(input);
                return Vec::new();
            }
            Input::Read(..) => Vec::new(),
            Input::Tick => self.dispatcher_ticks(),
            Input::Signal(body) => self.dispatcher_signal(&body),
            Input::Delivery(_, sequence, body, stored_at) => match &*body {
                Body::Block(_) => {
                    let lane = body.lane().map_or(0, |name| self.lane_of(name));
                    let unread = (sequence, body.clone(), stored_at);
                    self.dispatcher.consumers[lane].unread.push_back(unread);
                    Vec::new()
                }
                Body::Stage(ready) => self.stage(sequence, ready, stored_at),
                _ => Vec::new(),
            },
        };
        then_read_on(ops)
    }

    fn dispatcher_ticks(&mut self) -> Vec<session::Op> {
        let mut ops = Vec::new();
        if self.dispatcher.session.compares() {
            let held = self.released_tasks();
            self.dispatcher.session.reconcile(&held, self.now);
            ops.extend(self.catch_up());
        }
        ops.extend(self.dispatcher.session.tick(self.now));
        let process = self.process(Who::Dispatcher);
        let lane = process.ticks as usize % LOOK_EVERY;
        process.ticks += 1;
        self.dispatcher.look = (lane < self.plan.lanes.len()).then_some(lane);
        ops
    }

    fn dispatcher_signal(&mut self, body: &Rc<Body>) -> Vec<session::Op> {
        let (kind, result): (Kind, &TaskResult) = match &**body {
            Body::Check(result) => (Kind::Check, result),
            Body::Result(result) => (Kind::Result, result),
            Body::Verdict(result) => (Kind::Verdict, result),
            Body::Lease(lease) => {
                self.dispatcher.session.core.heard(lease, self.now);
                return Vec::new();
            }
            Body::Records(_, _, records) => {
                let mut ops = Vec::new();
                for record in records {
                    self.promises.dispatcher_knows(record);
                    ops.extend(self.dispatcher.session.emitted(record));
                }
                return ops;
            }
            _ => return Vec::new(),
        };
        let key = AttemptKey::of(&result.header.zkvm, &result.header.attempt_id());
        self.dispatcher.session.report(kind, &key, result, self.now)
    }

    /// Reads the output of a pipeline on its first sight.
    fn know(&mut self, pipeline: &PipelineId) {
        if !self.dispatcher.session.core.knows(pipeline) {
            let lane = self.lane_of(pipeline);
            let output = self.broker.output(lane).map(|(output, _)| output);
            let first = self.broker.known[lane].keys().next().map(|(first, _)| *first);
            // No entry of the pipeline waits yet, so the recall asks for nothing.
            self.dispatcher.session.recall(pipeline, output, first);
        }
    }

    /// Tells the session of stored records whose signals were lost.
    fn catch_up(&mut self) -> Vec<session::Op> {
        let mut ops = Vec::new();
        for (name, next) in self.dispatcher.session.outputs() {
            let lane = self.lane_of(&name);
            let log = &self.broker.log[lane];
            let is_missed = log
                .iter()
                .any(|(_, record)| next == 0 || record.last.number == next);
            if is_missed && let Some((output, _)) = self.broker.output(lane) {
                for (_, record) in log {
                    self.promises.dispatcher_knows(record);
                }
                ops.extend(self.dispatcher.session.recall(&name, Some(output), None));
            }
        }
        ops
    }

    /// Searches the stream for cancels, behind blocks too far ahead or still undelivered.
    fn look_for_cancels(&mut self, lane: usize) -> Vec<session::Op> {
        let name = &self.plan.lanes[lane].pipeline.name;
        let Some(behind) = self.dispatcher.session.seeks_cancels(name) else {
            return Vec::new();
        };
        let behind = behind.max(self.dispatcher.consumers[lane].looked_to);
        let stored = self.broker.queue(Stream::Blocks);
        self.dispatcher.consumers[lane].looked_to = stored.newest();
        let behind = stored.messages.range(behind + 1..);
        let cancels = behind.filter_map(|(sequence, message)| match &*message.body {
            Body::Block(BlockEvent::Cancelled(cancel)) if cancel.pipeline == *name => {
                Some((*sequence, cancel.clone()))
            }
            _ => None,
        });
        let cancels: Vec<_> = cancels.collect();
        for (sequence, cancel) in &cancels {
            self.promises.dispatcher_cancels(cancel, Announcement(*sequence));
        }
        self.dispatcher.session.receive_early(name, cancels)
    }

    /// Takes parked blocks up again, releases tasks, and reads the next message of a lane.
    pub(crate) fn dispatcher_reads_on(&mut self) -> Vec<Op> {
        if self.dispatcher.session.awaits_answers() {
            return Vec::new();
        }
        if let Some(lane) = self.dispatcher.look.take() {
            return then_read_on(self.look_for_cancels(lane));
        }
        for name in self.dispatcher.session.parked() {
            if let Some(block) = self.dispatcher.session.unpark(&name, self.now) {
                let ops = self.receive(&name, block);
                if !ops.is_empty() {
                    return then_read_on(ops);
                }
            }
        }
        let ops = self.release();
        if !ops.is_empty() {
            return then_read_on(ops);
        }
        for lane in 0..self.plan.lanes.len() {
            let name = self.plan.lanes[lane].pipeline.name.clone();
            let session = &self.dispatcher.session;
            let may_read = session.may_read() && !session.is_parked(&name);
            let consumer = &mut self.dispatcher.consumers[lane];
            let next = may_read.then(|| consumer.unread.pop_front()).flatten();
            if let Some((sequence, body, stored_at)) = next
                && let Body::Block(event) = &*body
            {
                let is_replay = consumer.to_replay > 0;
                consumer.to_replay = consumer.to_replay.saturating_sub(1);
                let message = received(event.clone(), sequence, stored_at, is_replay);
                return then_read_on(self.receive(&name, message));
            }
        }
        let later = std::mem::take(&mut self.dispatcher.later);
        self.process(Who::Dispatcher).put_back(later);
        Vec::new()
    }

    fn receive(&mut self, lane: &PipelineId, message: Received<BlockEvent>) -> Vec<session::Op> {
        self.know(lane);
        let pipeline = self.plan.lanes[self.lane_of(lane)].pipeline.clone();
        let (event, source) = (message.body.clone(), SourceId::Block(message.sequence));
        let session = &mut self.dispatcher.session;
        let ops = session.receive(lane, message, Some(pipeline.clone()));
        match event {
            BlockEvent::Cancelled(cancel) => {
                let announcement = Announcement(source.sequence());
                self.promises.dispatcher_cancels(&cancel, announcement);
            }
            BlockEvent::Observed(block) if ops.is_empty() && !session.is_parked(lane) => {
                self.promises.block_is_ready(source, &block, &pipeline);
            }
            BlockEvent::Observed(_) => {}
        }
        ops
    }

    fn stage(&mut self, sequence: u64, stage: &StageReady, stored_at: Timestamp) -> Vec<session::Op> {
        let source = SourceId::Stage(sequence);
        let is_replay = self.dispatcher.to_replay > 0;
        self.dispatcher.to_replay = self.dispatcher.to_replay.saturating_sub(1);
        self.know(&stage.stage.pipeline);
        let pipeline = &self.plan.lanes[self.lane_of(&stage.stage.pipeline)].pipeline;
        let cursor = self.broker.cursors.get(&sequence).copied().unwrap_or(0);
        let message = received(stage.clone(), sequence, stored_at, is_replay);
        let definition = Some(pipeline.clone());
        let session = &mut self.dispatcher.session;
        let ops = session.stage(message, cursor, definition, self.now);
        if ops.is_empty() {
            self.promises
                .stage_is_ready(source, Ready::from(stage), cursor, pipeline);
        }
        ops
    }

    fn release(&mut self) -> Vec<session::Op> {
        let consumers = self.plan.lanes.iter().zip(&self.dispatcher.consumers);
        let lanes = consumers.map(|(lane, consumer)| (&lane.pipeline.name, consumer.to_replay));
        let session = &mut self.dispatcher.session;
        let Some(releases) = session.release(self.dispatcher.to_replay, lanes, self.now) else {
            return Vec::new();
        };
        let mut round: Vec<Found> = Vec::new();
        for release in releases {
            self.promises.released(&release, self.now);
            let pipeline = &self.plan.lanes[self.lane_of(&release.stage.pipeline)].pipeline;
            let body = self.dispatcher.session.body(release.source);
            round.push((release, body.map(|body| (body, pipeline.clone()))));
        }
        let count = round.len();
        let ops = self.dispatcher.session.publish(round, &self.plan.keys, self.now);
        let published = ops.as_ref().map_or(0, Vec::len);
        if published != count {
            self.promises
                .break_with(format_args!("no task for a release: {ops:?}"));
        }
        ops.unwrap_or_default()
    }

    /// Carries out an operation, or turns it into the next steps.
    pub(crate) fn dispatcher_performs(&mut self, op: session::Op) -> Vec<Op> {
        match op {
            session::Op::Acknowledge(source) => {
                self.promises.done(source);
                let stream = match source {
                    SourceId::Block(_) => Stream::Blocks,
                    SourceId::Stage(_) => Stream::Stages,
                };
                return vec![Op::Ack(stream, source.sequence())];
            }
            session::Op::Publish(outgoing) => {
                let release = &outgoing.release;
                self.dispatcher.tokens.push((release.source, release.index));
                let token = self.dispatcher.tokens.len() as u64 - 1;
                return vec![Op::Send(Body::Task(outgoing.task), token)];
            }
            session::Op::End(ended) => {
                self.promises.dispatcher_ends(&ended);
                return vec![Op::Store(Body::Ended(ended))];
            }
            session::Op::ListTasks => {
                let held = self.released_tasks();
                let ops = self.dispatcher.session.list(&held);
                return ops.into_iter().map(Op::Dispatcher).collect();
            }
            session::Op::Purge(key, ended) => {
                let queue = self.broker.queue(Stream::Tasks);
                let sequence = queue.sequence_of(&key);
                let message = sequence.and_then(|sequence| queue.messages.get(&sequence));
                let task = message.and_then(|message| match &*message.body {
                    Body::Task(task) => Some(task),
                    _ => None,
                });
                if self.dispatcher.session.purge(&key, &ended, task)
                    && let Some(sequence) = sequence
                {
                    queue.ack(sequence);
                }
            }
            session::Op::SaveCursor(source, cursor) => {
                self.broker.cursors.insert(source.sequence(), cursor);
            }
            session::Op::DropCursor(source) => drop(self.broker.cursors.remove(&source.sequence())),
            session::Op::Refuse(refusal) => {
                self.promises
                    .break_with(format_args!("a dead letter: {refusal:?}"));
            }
            session::Op::Hold(..) | session::Op::Observe(..) => {}
        }
        Vec::new()
    }
}

/// Returns the steps of these operations, after which the dispatcher reads on.
fn then_read_on(ops: Vec<session::Op>) -> Vec<Op> {
    let ops = ops.into_iter().map(Op::Dispatcher);
    ops.chain(std::iter::once(Op::ReadOn)).collect()
}

fn received<T>(body: T, sequence: u64, stored_at: Timestamp, is_replay: bool) -> Received<T> {
    Received {
        body,
        trace: TraceContext::default(),
        subject: String::new(),
        sequence,
        stored_at,
        is_replay,
    }
}
