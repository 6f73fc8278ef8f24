//! A collector's shell, with its effects in the order of `services/collector/src/pipeline.rs`.

use crate::{
    broker::{Answer, Body, Stream},
    plan::Lane,
    process::{Input, Op, Who},
    world::World,
};
use push0_collector::{
    decide::{Collector, Step, Told},
    state::Handle,
};
use push0_domain::{
    Timestamp,
    message::{Emission, EmissionOutcome},
    output::Output,
    trace::TraceContext,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

const LOOK_EVERY: u32 = 10;

/// The results to acknowledge once a publish is stored.
enum Settles {
    Handles(Vec<Handle>),
    Records(Vec<Vec<Handle>>),
}

/// State of one session of a collector.
pub(crate) struct CollectorShell {
    lane: usize,
    core: Option<Collector>,
    output: Option<Output>,
    last_sequence: u64,
    /// Revisions of the pipeline read in this session.
    revisions: BTreeSet<u32>,
    acks: BTreeSet<Handle>,
    tokens: BTreeMap<u64, Settles>,
    next_token: u64,
    queue: Vec<(Emission, Vec<Handle>)>,
    emitting: bool,
    to_replay: usize,
}

impl CollectorShell {
    pub(crate) fn new((lane, _): (usize, &Lane)) -> Self {
        Self {
            lane,
            core: None,
            output: None,
            last_sequence: 0,
            revisions: BTreeSet::new(),
            acks: BTreeSet::new(),
            tokens: BTreeMap::new(),
            next_token: 0,
            queue: Vec::new(),
            emitting: false,
            to_replay: 0,
        }
    }

    fn token(&mut self, settles: Settles) -> u64 {
        self.next_token += 1;
        self.tokens.insert(self.next_token, settles);
        self.next_token
    }

    fn take(&mut self, handles: Vec<Handle>) -> Vec<Handle> {
        handles
            .into_iter()
            .filter(|handle| self.acks.remove(handle))
            .collect()
    }
}

fn acks(handles: Vec<Handle>) -> impl Iterator<Item = Op> {
    handles
        .into_iter()
        .map(|handle| Op::Ack(Stream::Results, handle.0))
}

impl World {
    pub(crate) fn collector_starts(&mut self, lane: usize) {
        let mut shell = CollectorShell::new((lane, &self.plan.lanes[lane]));
        let (output, last_sequence) = self.broker.output(lane).unzip();
        shell.last_sequence = last_sequence.unwrap_or(0);
        shell.output = output;
        self.collectors[lane] = shell;
        let name = self.plan.lanes[lane].pipeline.name.clone();
        let concerns = |body: &Body| match body {
            Body::Result(result) | Body::Verdict(result) => result.header.id.stage.pipeline == name,
            Body::Ended(ended) => ended.pipeline == name,
            _ => false,
        };
        self.collectors[lane].to_replay = self.replay(Who::Collector(lane), Stream::Results, concerns);
    }

    /// Creates the core as soon as the first block to emit is known. Returns whether the core exists.
    fn collector_core(&mut self, lane: usize) -> bool {
        if self.collectors[lane].core.is_some() {
            return true;
        }
        let first = self.broker.known[lane].keys().next();
        let first = first.map(|(number, _)| Output::new(*number, BTreeMap::new()));
        let output = self.collectors[lane].output.clone().or(first);
        let name = self.plan.lanes[lane].pipeline.name.clone();
        let room = self.plan.room;
        let core = output
            .map(|output| Collector::new(name, output.next(), output.emitted().clone()).with_room(room));
        self.collectors[lane].core = core;
        self.collectors[lane].core.is_some()
    }

    pub(crate) fn collector_hears(&mut self, lane: usize, input: Input) -> Vec<Op> {
        let now = self.now;
        match input {
            Input::Signal(_) => Vec::new(),
            Input::Read(sequence, found) => self.collector_reads(lane, Handle(sequence), found),
            Input::Answer(token, answer) => {
                let settles = self.collectors[lane].tokens.remove(&token);
                match (settles, answer) {
                    (Some(Settles::Handles(handles)), _) => acks(handles).collect(),
                    (Some(Settles::Records(records)), Answer::Stored(sequence)) => {
                        let shell = &mut self.collectors[lane];
                        shell.emitting = false;
                        shell.last_sequence = sequence;
                        let steps = shell.core.as_mut().map(|core| core.stored(records.len()));
                        let mut ops: Vec<Op> = acks(records.concat()).collect();
                        ops.extend(self.steps(lane, steps.unwrap_or_default()));
                        ops.extend(self.advance(lane));
                        ops.extend(self.next_batch(lane));
                        ops
                    }
                    (Some(Settles::Records(_)), _) => {
                        // The log holds a record unknown to this session, so the session starts over.
                        self.stop(Who::Collector(lane), 50_000);
                        Vec::new()
                    }
                    (None, _) => Vec::new(),
                }
            }
            Input::Delivery(_, sequence, body, stored_at) => {
                self.collectors[lane].to_replay = self.collectors[lane].to_replay.saturating_sub(1);
                if !self.collector_core(lane) {
                    self.promises
                        .break_with(format_args!("a result before any block was observed"));
                    return Vec::new();
                }
                let pipeline = self.plan.lanes[lane].pipeline.clone();
                let shell = &mut self.collectors[lane];
                let Some(core) = &mut shell.core else {
                    return Vec::new();
                };
                let handle = Handle(sequence);
                if !core.is_new(handle) {
                    return Vec::new();
                }
                shell.acks.insert(handle);
                let steps = match &*body {
                    Body::Ended(ended) => core.end(handle, ended.clone()),
                    Body::Result(result) | Body::Verdict(result) => {
                        if !self.plan.keys.verify(&result.header) {
                            self.promises
                                .break_with(format_args!("a seal is wrong: {:?}", result.header));
                        }
                        shell.revisions.insert(pipeline.revision);
                        let verified = matches!(*body, Body::Verdict(_));
                        let stage = &result.header.id.stage;
                        let block = &stage.block;
                        let mut log = self.broker.log[lane].iter().rev().map(|(_, record)| record);
                        let is_dead = |record: &Emission| {
                            (record.first, record.last) == (stage.first_block(), *block)
                                && matches!(record.outcome, EmissionOutcome::Dead { .. })
                        };
                        let amends = core.asks_to_amend(result)
                            && log.find(|r| r.last.number == block.number).is_some_and(is_dead);
                        let told = Told {
                            verified,
                            amends,
                            stored_at,
                        };
                        core.result(handle, result.clone(), told, &TraceContext::default(), &pipeline)
                    }
                    _ => Vec::new(),
                };
                let mut ops = self.steps(lane, steps);
                ops.extend(self.advance(lane));
                ops
            }
            Input::Tick => {
                let process = self.process(Who::Collector(lane));
                process.ticks += 1;
                let looks = process.ticks.is_multiple_of(LOOK_EVERY);
                let shell = &mut self.collectors[lane];
                let Some(core) = &mut shell.core else {
                    return Vec::new();
                };
                if shell.to_replay > 0 {
                    return Vec::new();
                }
                core.tick(now);
                if looks && let Some(number) = core.unseen_end() {
                    let known = self.broker.known[lane].values();
                    for block in known.filter(|known| known.block.number == number) {
                        core.known(block, block.observed_at);
                    }
                }
                self.advance(lane)
            }
        }
    }

    /// Passes a result that was read again to the core; `found` is `None` if the message is gone.
    fn collector_reads(
        &mut self,
        lane: usize,
        handle: Handle,
        found: Option<(Rc<Body>, Timestamp)>,
    ) -> Vec<Op> {
        let pipeline = self.plan.lanes[lane].pipeline.clone();
        let core = self.collectors[lane].core.as_mut();
        let Some(core) = core.filter(|core| core.waits_for(handle)) else {
            return Vec::new();
        };
        let Some((body, stored_at)) = found else {
            // Another session believed to lead and acknowledged the message, so this session starts over.
            self.stop(Who::Collector(lane), 50_000);
            return Vec::new();
        };
        if let Body::Result(result) | Body::Verdict(result) = &*body {
            let told = Told {
                verified: matches!(*body, Body::Verdict(_)),
                amends: false,
                stored_at,
            };
            core.recalled(handle, result.clone(), told, &TraceContext::default(), &pipeline);
        }
        self.advance(lane)
    }

    fn advance(&mut self, lane: usize) -> Vec<Op> {
        let now = self.now;
        let shell = &mut self.collectors[lane];
        // While old results are replayed, their effects may have happened already.
        if shell.to_replay > 0 {
            return Vec::new();
        }
        let Some(core) = &mut shell.core else {
            return Vec::new();
        };
        let (revisions, pipeline) = (&shell.revisions, &self.plan.lanes[lane].pipeline);
        let steps = core.advance(now, |revision| {
            revisions.contains(&revision).then(|| pipeline.clone())
        });
        self.steps(lane, steps)
    }

    fn steps(&mut self, lane: usize, steps: Vec<Step>) -> Vec<Op> {
        let mut ops = Vec::new();
        for step in steps {
            if self.logs() {
                self.log(format_args!("collector {lane}: {step:?}"));
            }
            let shell = &mut self.collectors[lane];
            match step {
                Step::Ack(handles) => ops.extend(acks(shell.take(handles))),
                Step::Open(opening, handles) => {
                    let handles = shell.take(handles);
                    ops.push(Op::Send(
                        Body::Stage(opening.ready),
                        shell.token(Settles::Handles(handles)),
                    ));
                }
                Step::Recall(handles) => {
                    ops.extend(
                        handles
                            .into_iter()
                            .map(|handle| Op::Read(Stream::Results, handle.0)),
                    );
                }
                Step::Bury(letter, _) => ops.push(Op::Store(Body::Letter(*letter))),
                Step::Emit(emission, _, handles, _) => {
                    let handles = shell.take(handles);
                    shell.queue.push((*emission, handles));
                }
            }
        }
        ops.extend(self.next_batch(lane));
        ops
    }

    fn next_batch(&mut self, lane: usize) -> Option<Op> {
        let shell = &mut self.collectors[lane];
        if shell.emitting || shell.queue.is_empty() {
            return None;
        }
        shell.emitting = true;
        let (records, handles): (Vec<_>, Vec<_>) = std::mem::take(&mut shell.queue).into_iter().unzip();
        let token = shell.token(Settles::Records(handles));
        Some(Op::Send(
            Body::Records(shell.lane, shell.last_sequence, records),
            token,
        ))
    }
}
