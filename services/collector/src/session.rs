//! Everything a collector does for one pipeline, in its order, with the waits between operations.
//!
//! A session is told of an event and the time, and queues operations. The service and the simulation carry out
//! the operations one after another, and pass in the next event when [`Session::next_op`] returns none. A
//! session ends with the first failed operation, and its successor starts over from stored state.
//!
//! Each message is acknowledged by one operation, so the handles in hand are listed once, in the receiver: it
//! compares them with the broker's.

mod op;
mod ranges;
mod records;

pub use op::{Found, Op, Report, Stale, Token};
pub use records::Ready;

use crate::{
    decide::{Collector, Step},
    intake::Handle,
    standing::Standing,
};
use push0_domain::{
    Timestamp,
    message::{BlockEnded, Emission, EmissionOutcome, KnownBlock, TaskResult},
    pipeline::Pipeline,
    trace::Span,
};
use records::Records;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

/// After how many ticks the finished proofs of old blocks without a record are counted.
const COUNT_EVERY: u32 = 100;
/// The age at which a block without a record is stuck.
const STUCK_AFTER: Duration = Duration::from_secs(20 * 60);
/// After how many ticks a block is looked up that was given up before any result came.
const LOOK_EVERY: u32 = 10;
/// How many such blocks are looked up in a tick, for a cancellation of many.
const LOOKS_AT_ONCE: u32 = 64;
/// Most publishes in flight, in number and in bytes. At this limit no more results are read.
const IN_FLIGHT_MAX: usize = 1024;
const IN_FLIGHT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Most reads in flight: enough to keep the connection busy, and few enough for large messages.
const READS_MAX: usize = 64;

/// A publish to STAGES in flight.
#[derive(Debug)]
struct Opened {
    /// Messages to acknowledge when the stage or attempt is stored.
    settles: Vec<Handle>,
    bytes: usize,
}

/// The work for one pipeline, from the first result after a start to the first failure.
#[derive(Debug)]
pub struct Session {
    core: Collector,
    /// Revisions of the pipeline, as far as results have named them.
    definitions: BTreeMap<u32, Arc<Pipeline>>,
    ops: VecDeque<Op>,
    in_flight: BTreeMap<Token, Opened>,
    in_flight_bytes: usize,
    next_token: u64,
    records: Records,
    /// The ranges that wait for a result.
    standing: Standing,
    /// Messages to read again, and how many are being read and were read.
    to_read: VecDeque<Handle>,
    reading: usize,
    read: usize,
    is_replay: bool,
    ticks: u32,
    /// How many more blocks may be looked up before the next tick.
    looks_left: u32,
}

impl Session {
    /// Creates a session with the state of the output.
    pub fn new(core: Collector) -> Self {
        Self {
            core,
            definitions: BTreeMap::new(),
            ops: VecDeque::new(),
            in_flight: BTreeMap::new(),
            in_flight_bytes: 0,
            next_token: 1,
            records: Records::default(),
            standing: Standing::default(),
            to_read: VecDeque::new(),
            reading: 0,
            read: 0,
            is_replay: true,
            ticks: 0,
            looks_left: LOOKS_AT_ONCE,
        }
    }

    /// Returns the next operation. Records come last: all letters they name are stored by then, and those ready
    /// together are stored together.
    pub fn next_op(&mut self) -> Option<Op> {
        let op = self.ops.pop_front().or_else(|| self.next_read());
        op.or_else(|| self.records.next_batch().then_some(Op::Append))
    }

    fn next_read(&mut self) -> Option<Op> {
        let handle = self.to_read.pop_front_if(|_| self.reading < READS_MAX)?;
        self.reading += 1;
        Some(Op::Read(handle))
    }

    /// Returns whether more results may be read.
    pub fn has_room(&self) -> bool {
        self.in_flight.len() < IN_FLIGHT_MAX && self.in_flight_bytes < IN_FLIGHT_BYTES_MAX
    }

    /// Notes whether results from before the session are still to come. Until all of them are here, a step that
    /// seems due may have been taken already, so no conclusion is drawn from any.
    pub fn replays(&mut self, is_replay: bool) {
        self.is_replay = is_replay;
    }

    /// Takes the spans that have ended.
    pub fn take_spans(&mut self) -> Vec<Span> {
        self.core.take_spans()
    }

    /// Returns whether a result is only of use if the block's record [is dead](is_dead).
    pub fn asks_to_amend(&self, result: &TaskResult) -> bool {
        self.core.asks_to_amend(result)
    }

    /// Handles the end of an attempt, of this revision of the pipeline.
    pub fn result(&mut self, handle: Handle, report: Report, pipeline: &Arc<Pipeline>, now: Timestamp) {
        let Report { result, told, trace } = report;
        let revision = result.header.context.revision;
        self.definitions.insert(revision, pipeline.clone());
        let steps = self.core.result(handle, result, told, &trace, pipeline);
        self.follow(steps);
        self.advance(now);
    }

    /// Handles the end of blocks no longer wanted.
    pub fn end(&mut self, handle: Handle, ended: BlockEnded, now: Timestamp) {
        let steps = self.core.end(handle, ended);
        self.follow(steps);
        self.advance(now);
    }

    /// Notes how large the message of a publish in flight is.
    pub fn weighs(&mut self, token: Token, bytes: usize) {
        if let Some(opened) = self.in_flight.get_mut(&token) {
            opened.bytes = bytes;
            self.in_flight_bytes += bytes;
        }
    }

    /// Handles a stored stage or attempt, or one that was stored before.
    pub fn opened(&mut self, token: Token) {
        if let Some(opened) = self.in_flight.remove(&token) {
            self.in_flight_bytes -= opened.bytes;
            self.acknowledge(opened.settles);
        }
    }

    /// Returns the records being stored.
    pub fn batch(&self) -> &[Ready] {
        &self.records.batch
    }

    /// Handles the storing of the whole batch.
    pub fn recorded(&mut self, now: Timestamp) {
        let batch = std::mem::take(&mut self.records.batch);
        self.core.recorded(batch.len(), now);
        let steps = self.core.stored(batch.len());
        for ready in batch {
            self.acknowledge(ready.handles);
        }
        self.follow(steps);
        self.advance(now);
    }

    /// Handles the refusal of the batch: another collector has written a record behind the newest one known here.
    pub fn overtaken(&mut self) {
        self.ops.push_back(Op::StartOver(Stale::Log));
    }

    /// Handles a result read again because a step needs its body; `None` if no result is there any more. Another
    /// collector has acknowledged such a result.
    pub fn recalled(&mut self, handle: Handle, report: Option<Report>, now: Timestamp) {
        self.reading -= 1;
        self.read += 1;
        if !self.core.waits_for(handle) {
            return;
        }
        let known = report.and_then(|report| {
            let revision = report.result.header.context.revision;
            Some((self.definitions.get(&revision)?, report))
        });
        let Some((pipeline, report)) = known else {
            return self.ops.push_back(Op::StartOver(Stale::Result(handle)));
        };
        let Report { result, told, trace } = report;
        self.core.recalled(handle, result, told, &trace, pipeline);
        // Advancing costs more than reading, so it is rare while more messages are coming.
        let is_last = self.reading == 0 && self.to_read.is_empty();
        if is_last || self.read.is_multiple_of(READS_MAX / 2) {
            self.advance(now);
        }
    }

    /// Handles the passing of time, every 50 ms.
    pub fn tick(&mut self, now: Timestamp) {
        if self.is_replay {
            return;
        }
        self.core.tick(now);
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(COUNT_EVERY) {
            let held = self.core.held_proofs(now.minus(STUCK_AFTER));
            self.ops.push_back(Op::Show(held));
        }
        self.advance(now);
        let looks_on = self.looks_left == 0;
        if looks_on || self.ticks.is_multiple_of(LOOK_EVERY) {
            self.looks_left = LOOKS_AT_ONCE;
            self.look();
            self.look_for_ranges(now);
        }
    }

    /// Looks up the next block, if it was given up before any result came.
    fn look(&mut self) {
        if self.looks_left > 0
            && let Some(number) = self.core.unseen_end()
        {
            self.looks_left -= 1;
            self.ops.push_back(Op::Look(number));
        }
    }

    /// Handles the blocks known of the number that was looked up. Without any, a later tick looks again.
    pub fn known(&mut self, known: &[(KnownBlock, Timestamp)], now: Timestamp) {
        for (block, stored_at) in known {
            self.core.known(block, *stored_at);
        }
        if !known.is_empty() {
            self.advance(now);
            self.look();
        }
    }

    fn advance(&mut self, now: Timestamp) {
        if !self.is_replay {
            let (core, known) = (&mut self.core, &self.definitions);
            let steps = core.advance(now, |revision| known.get(&revision).cloned());
            self.follow(steps);
        }
    }

    fn acknowledge(&mut self, handles: Vec<Handle>) {
        if !handles.is_empty() {
            self.ops.push_back(Op::Ack(handles));
        }
    }

    fn follow(&mut self, steps: Vec<Step>) {
        for step in steps {
            match step {
                Step::Ack(handles) => self.acknowledge(handles),
                Step::Open(opening, settles) => {
                    let token = Token(self.next_token);
                    self.next_token += 1;
                    self.in_flight.insert(token, Opened { settles, bytes: 0 });
                    self.ops.push_back(Op::Open(opening, token));
                }
                Step::Bury(letter, trace) => self.ops.push_back(Op::Bury(letter, trace)),
                Step::Emit(emission, traces, handles, ready_at) => self.records.push(Ready {
                    emission,
                    traces,
                    handles,
                    ready_at,
                }),
                Step::Recall(handles) => self.to_read.extend(handles),
            }
        }
    }
}

/// Returns whether the newest record of its number says of a result's block or range that it is dead.
pub fn is_dead(newest: &Emission, result: &TaskResult) -> bool {
    let stage = &result.header.id.stage;
    let same = newest.last == stage.block && newest.first == stage.first_block();
    same && matches!(newest.outcome, EmissionOutcome::Dead { .. })
}
