//! A collector: the real session, as a process of the simulation.
//!
//! The session decides. This file translates inputs of the simulated broker for it, and its operations into those
//! of a process.

use crate::{
    broker::{Answer, Body, Stream},
    process::{Input, Op, Who},
    world::World,
};
use push0_collector::{
    decide::{Collector, Told},
    session::{self, Found, Report, Session, Token, is_dead},
    state::Handle,
};
use push0_domain::{PipelineId, Timestamp, output::Output, subject::Kind, trace::TraceContext};
use std::collections::BTreeMap;

/// The token of records on their way into the log. The tokens of a session begin behind it.
const RECORDS: u64 = 0;

/// State of one process of a collector.
#[derive(Default)]
pub(crate) struct CollectorShell {
    session: Option<Session>,
    output: Option<Output>,
    last_sequence: u64,
    to_replay: usize,
    /// The newest result that was read.
    read_to: u64,
}

impl World {
    pub(crate) fn collector_starts(&mut self, lane: usize) {
        let (output, last_sequence) = self.broker.output(lane).unzip();
        let name = self.plan.lanes[lane].pipeline.name.clone();
        let concerns = |body: &Body| is_result_of(body, &name);
        self.collectors[lane] = CollectorShell {
            session: None,
            output,
            last_sequence: last_sequence.unwrap_or(0),
            to_replay: self.replay(Who::Collector(lane), Stream::Results, concerns),
            read_to: 0,
        };
    }

    fn session_of(&mut self, lane: usize) -> Option<&mut Session> {
        self.collectors[lane].session.as_mut()
    }

    pub(crate) fn collector_hears(&mut self, lane: usize, input: Input) -> Vec<Op> {
        let now = self.now;
        if let Input::Delivery(_, sequence, body, stored_at) = input {
            self.collector_receives(lane, Handle(sequence), &body, stored_at);
            return self.collector_acts(lane);
        }
        let shell = &mut self.collectors[lane];
        let Some(session) = &mut shell.session else {
            return Vec::new();
        };
        match input {
            Input::Read(sequence, found) => {
                let report = found.and_then(|(body, stored_at)| report(&body, stored_at));
                session.recalled(Handle(sequence), report, now);
            }
            Input::Answer(RECORDS, Answer::Stored(sequence)) => {
                shell.last_sequence = sequence;
                session.recorded(now);
            }
            Input::Answer(RECORDS, _) => session.overtaken(),
            Input::Answer(token, _) => session.opened(Token(token)),
            Input::Tick => {
                session.replays(shell.to_replay > 0);
                session.tick(now);
            }
            Input::Delivery(..) | Input::Signal(_) => {}
        }
        self.collector_acts(lane)
    }

    fn collector_receives(&mut self, lane: usize, handle: Handle, body: &Body, stored_at: Timestamp) {
        let (now, pipeline) = (self.now, self.plan.lanes[lane].pipeline.clone());
        let shell = &mut self.collectors[lane];
        shell.to_replay = shell.to_replay.saturating_sub(1);
        shell.read_to = shell.read_to.max(handle.0);
        if shell.session.is_none() {
            let first = self.broker.known[lane].keys().next();
            let first = first.map(|(number, _)| Output::new(*number, BTreeMap::new()));
            shell.session = shell.output.take().or(first).map(|output| {
                let name = pipeline.name.clone();
                let core = Collector::new(name, output.next(), output.emitted().clone());
                Session::new(core.with_room(self.plan.room))
            });
        }
        let Some(session) = &mut shell.session else {
            return self
                .promises
                .break_with(format_args!("a result before any block was observed"));
        };
        session.replays(shell.to_replay > 0);
        if let Body::Ended(ended) = body {
            return session.end(handle, ended.clone(), now);
        }
        let Some(mut report) = report(body, stored_at) else {
            return;
        };
        let result = &report.result;
        if !self.plan.keys.verify(&result.header) {
            self.promises
                .break_with(format_args!("a seal is wrong: {:?}", result.header));
        }
        if session.asks_to_amend(result) {
            let number = result.header.id.stage.block.number;
            let mut log = self.broker.log[lane].iter().rev().map(|(_, record)| record);
            let newest = log.find(|record| record.last.number == number);
            report.told.amends = newest.is_some_and(|newest| is_dead(newest, result));
        }
        session.result(handle, report, &pipeline, now);
    }

    /// Translates the operations of a session. Facts it asks for are read at once: the real shell waits for them
    /// too.
    fn collector_acts(&mut self, lane: usize) -> Vec<Op> {
        let mut ops = Vec::new();
        while let Some(op) = self.session_of(lane).and_then(Session::next_op) {
            if self.logs() {
                self.log(format_args!("collector {lane}: {op:?}"));
            }
            match op {
                session::Op::Ack(handles) => {
                    let acks = handles.iter().map(|handle| Op::Ack(Stream::Results, handle.0));
                    ops.extend(acks);
                }
                session::Op::Open(opening, token) => ops.push(Op::Send(Body::Stage(opening.ready), token.0)),
                session::Op::Bury(letter, _) => ops.push(Op::Store(Body::Letter(*letter))),
                session::Op::Append => {
                    let shell = &self.collectors[lane];
                    let batch = shell.session.iter().flat_map(Session::batch);
                    let records = batch.map(|ready| (*ready.emission).clone()).collect();
                    let records = Body::Records(lane, shell.last_sequence, records);
                    ops.push(Op::Send(records, RECORDS));
                }
                session::Op::Read(handle) => ops.push(Op::Read(Stream::Results, handle.0)),
                session::Op::Look(number) => {
                    let known = self.broker.known[lane].values();
                    let known = known.filter(|known| known.block.number == number);
                    let known: Vec<_> = known.map(|known| (known.clone(), known.observed_at)).collect();
                    let now = self.now;
                    if let Some(session) = self.session_of(lane) {
                        session.known(&known, now);
                    }
                }
                session::Op::LookForRanges(_) => {
                    let (now, found) = (self.now, self.found(lane));
                    let shell = &mut self.collectors[lane];
                    let Some(session) = &mut shell.session else {
                        continue;
                    };
                    let lost = session.ranges_looked(&found, shell.read_to, now);
                    if !lost.is_empty() {
                        self.promises.break_with(format_args!(
                            "{lost:?} are begun anew, and no prover took work away"
                        ));
                    }
                }
                session::Op::Show(_) => {}
                session::Op::StartOver(_) => {
                    self.stop(Who::Collector(lane), 50_000);
                    return Vec::new();
                }
            }
        }
        ops
    }
}

impl World {
    /// Looks for the work of a lane's ranges.
    fn found(&mut self, lane: usize) -> Found {
        let streams = [
            (Stream::Stages, Kind::Stage),
            (Stream::Tasks, Kind::Task),
            (Stream::Checks, Kind::Check),
        ];
        let attempts = streams.map(|(stream, kind)| {
            let attempts = self.broker.attempts(stream).into_keys();
            attempts.map(|key| (kind, key)).collect::<Vec<_>>()
        });
        let name = self.plan.lanes[lane].pipeline.name.clone();
        let results = self.broker.queue(Stream::Results).messages.iter().rev();
        let mut results = results.filter(|(_, message)| is_result_of(&message.body, &name));
        Found {
            attempts: attempts.concat(),
            results_to: results.next().map_or(0, |(sequence, _)| *sequence),
        }
    }
}

/// Returns whether the collector of a pipeline reads a message.
fn is_result_of(body: &Body, name: &PipelineId) -> bool {
    match body {
        Body::Result(result) | Body::Verdict(result) => result.header.id.stage.pipeline == *name,
        Body::Ended(ended) => ended.pipeline == *name,
        _ => false,
    }
}

/// Reads a message that holds the end of an attempt.
fn report(body: &Body, stored_at: Timestamp) -> Option<Report> {
    let (Body::Result(result) | Body::Verdict(result)) = body else {
        return None;
    };
    let told = Told {
        verified: matches!(body, Body::Verdict(_)),
        amends: false,
        stored_at,
    };
    Some(Report {
        result: result.clone(),
        told,
        trace: TraceContext::default(),
    })
}
