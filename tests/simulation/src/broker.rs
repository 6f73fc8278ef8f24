//! A model of the broker's streams, limited to the properties that the services' shells rely on.
//!
//! The model is not one of NATS. It has work queues with at most one message per subject, redelivery,
//! unfenced acknowledgements and a log with compare-and-set, because decisions rest on these.

use crate::plan::Lane;
use push0_domain::{
    BlockHash, Participant, PipelineId, Timestamp, ZkvmId,
    message::{
        BlockEnded, BlockEvent, DeadLetter, Emission, KnownBlock, Lease, StageReady, Task, TaskResult,
    },
    output::{Output, Reading},
    subject::AttemptKey,
    task::AttemptId,
    wanted::{Claim, Claims},
};
use push0_watchdog::reputation::Quarantine;
use std::{
    collections::{BTreeMap, VecDeque},
    rc::Rc,
    time::Duration,
};

/// The work queues of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stream {
    Blocks,
    Stages,
    Tasks,
    Checks,
    Results,
}

/// The content of a stored message or a signal.
#[derive(Clone, Debug)]
pub(crate) enum Body {
    Block(BlockEvent),
    Stage(StageReady),
    Task(Task),
    Check(TaskResult),
    Result(TaskResult),
    Verdict(TaskResult),
    Ended(BlockEnded),
    Lease(Lease),
    Stop(usize, AttemptId),
    /// An order to a prover to take no work for this long; zero ends the rest.
    Rest(usize, Duration),
    Letter(DeadLetter),
    /// Records of a lane stored together, if the newest record of the lane has this sequence.
    Records(usize, u64, Vec<Emission>),
}

impl Body {
    /// Returns the pipeline whose blocks this message announces or cancels.
    pub(crate) fn lane(&self) -> Option<&PipelineId> {
        match self {
            Self::Block(BlockEvent::Observed(block)) => Some(&block.pipeline),
            Self::Block(BlockEvent::Cancelled(cancel)) => Some(&cancel.pipeline),
            _ => None,
        }
    }

    fn claim(&self) -> Option<Claim> {
        match self {
            Self::Stage(ready) => Some(ready.claim()),
            Self::Task(task) => Some(task.claim()),
            _ => None,
        }
    }
}

/// A message stored in a work queue.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) body: Rc<Body>,
    pub(crate) stored_at: Timestamp,
    key: Option<AttemptKey>,
    /// Number of deliveries to a prover or verifier.
    pub(crate) deliveries: u32,
    /// Time of the newest progress on the delivery; `None` while the message is not delivered.
    pub(crate) held_at: Option<Timestamp>,
}

/// A single work queue.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    last: u64,
    pub(crate) messages: BTreeMap<u64, Message>,
    occupied: BTreeMap<AttemptKey, u64>,
}

impl Queue {
    fn push(&mut self, body: Rc<Body>, key: Option<AttemptKey>, now: Timestamp) -> Option<u64> {
        if let Some(key) = &key
            && let Some(sequence) = self.occupied.get(key).copied()
        {
            let there = self.messages.get(&sequence).and_then(|there| there.body.claim());
            if there >= body.claim() {
                return None;
            }
            // A newer claim replaces an older one.
            self.messages.remove(&sequence);
        }
        self.last += 1;
        self.occupied.extend(key.clone().map(|key| (key, self.last)));
        let message = Message {
            body,
            stored_at: now,
            key,
            deliveries: 0,
            held_at: None,
        };
        self.messages.insert(self.last, message);
        Some(self.last)
    }

    /// Returns the sequence of the newest message ever stored.
    pub(crate) fn newest(&self) -> u64 {
        self.last
    }

    pub(crate) fn ack(&mut self, sequence: u64) {
        if let Some(key) = self.messages.remove(&sequence).and_then(|gone| gone.key) {
            self.occupied.remove(&key);
        }
    }

    pub(crate) fn sequence_of(&self, key: &AttemptKey) -> Option<u64> {
        self.occupied.get(key).copied()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &AttemptKey> {
        self.occupied.keys()
    }
}

/// Waiting work for provers or verifiers of one zkVM. Redeliveries go first.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    pub(crate) again: VecDeque<u64>,
    pub(crate) fresh: VecDeque<u64>,
}

/// State outside the services, which survives their crashes.
#[derive(Debug, Default)]
pub(crate) struct Broker {
    queues: BTreeMap<Stream, Queue>,
    pub(crate) backlogs: BTreeMap<(Stream, ZkvmId), Backlog>,
    pub(crate) cursors: BTreeMap<u64, u32>,
    /// Per pipeline, the sequence and the record.
    pub(crate) log: Vec<Vec<(u64, Emission)>>,
    last_record: u64,
    pub(crate) letters: BTreeMap<String, DeadLetter>,
    pub(crate) leases: BTreeMap<String, Lease>,
    pub(crate) quarantines: BTreeMap<Participant, Quarantine>,
    /// Lead of the broker's clock over the true time, in microseconds; negative if the clock is behind.
    skew: i64,
    /// Per pipeline, the facts about blocks written by the ingester.
    pub(crate) known: Vec<BTreeMap<(u64, BlockHash), KnownBlock>>,
}

/// The broker's answer to a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The message is stored, under this sequence.
    Stored(u64),
    /// The subject holds a message already.
    Occupied,
    /// The log has moved on.
    Unexpected,
}

impl Broker {
    pub(crate) fn new(lanes: &[Lane]) -> Self {
        Self {
            log: vec![Vec::new(); lanes.len()],
            known: vec![BTreeMap::new(); lanes.len()],
            ..Self::default()
        }
    }

    pub(crate) fn queue(&mut self, stream: Stream) -> &mut Queue {
        self.queues.entry(stream).or_default()
    }

    /// Returns the time at which a message was stored, by the broker's clock.
    pub(crate) fn stored_at(&self, stream: Stream, sequence: u64) -> Option<Timestamp> {
        let message = self.queues.get(&stream)?.messages.get(&sequence);
        message.map(|message| message.stored_at)
    }

    pub(crate) fn messages(&self, stream: Stream) -> impl Iterator<Item = &Message> {
        self.queues
            .get(&stream)
            .into_iter()
            .flat_map(|queue| queue.messages.values())
    }

    /// Sets the lead of the broker's clock, in microseconds.
    pub(crate) fn jump(&mut self, skew: i64) {
        self.skew = skew;
    }

    pub(crate) fn store(&mut self, body: &Rc<Body>, now: Timestamp) -> Answer {
        let (stream, key, zkvm) = match &**body {
            Body::Block(_) => (Stream::Blocks, None, None),
            Body::Ended(_) | Body::Result(_) | Body::Verdict(_) => (Stream::Results, None, None),
            Body::Stage(ready) => {
                let id = ready.stage.task(ready.tasks.first).attempt(ready.attempt);
                (Stream::Stages, Some(AttemptKey::of(&any_zkvm(), &id)), None)
            }
            Body::Task(task) => {
                let zkvm = task.header.zkvm.clone();
                let key = AttemptKey::of(&zkvm, &task.header.attempt_id());
                (Stream::Tasks, Some(key), Some(zkvm))
            }
            Body::Check(result) => (Stream::Checks, None, Some(result.header.zkvm.clone())),
            Body::Records(lane, last, records) => return self.append(*lane, *last, records),
            Body::Letter(letter) => {
                self.letters.insert(letter.id.clone(), letter.clone());
                return Answer::Stored(0);
            }
            Body::Lease(lease) => {
                self.leases.insert(lease.prover.to_string(), lease.clone());
                return Answer::Stored(0);
            }
            Body::Stop(..) | Body::Rest(..) => return Answer::Stored(0),
        };
        let dated = Timestamp(now.0.saturating_add_signed(self.skew));
        let Some(sequence) = self.queue(stream).push(body.clone(), key, dated) else {
            return Answer::Occupied;
        };
        if let Some(zkvm) = zkvm {
            self.backlogs
                .entry((stream, zkvm))
                .or_default()
                .fresh
                .push_back(sequence);
        }
        Answer::Stored(sequence)
    }

    fn append(&mut self, lane: usize, expected: u64, records: &[Emission]) -> Answer {
        let log = &mut self.log[lane];
        if log.last().map_or(0, |(sequence, _)| *sequence) != expected {
            return Answer::Unexpected;
        }
        for record in records {
            self.last_record += 1;
            log.push((self.last_record, record.clone()));
        }
        Answer::Stored(self.last_record)
    }
}

impl Broker {
    /// Returns the attempts in TASKS or CHECKS, and the sequence of the newest message of each.
    pub(crate) fn attempts(&self, stream: Stream) -> BTreeMap<AttemptKey, u64> {
        let messages = self
            .queues
            .get(&stream)
            .into_iter()
            .flat_map(|queue| &queue.messages);
        let keyed = messages.filter_map(|(sequence, message)| match &*message.body {
            Body::Task(task) => Some((task.header.key(), *sequence)),
            Body::Check(result) => Some((result.header.key(), *sequence)),
            Body::Stage(ready) => {
                let first = ready.stage.task(ready.tasks.first).attempt(ready.attempt);
                Some((AttemptKey::of(&ready.zkvm, &first), *sequence))
            }
            _ => None,
        });
        keyed.collect()
    }

    /// Returns the state of an output and the sequence of its newest record; `None` before the first record.
    pub(crate) fn output(&self, lane: usize) -> Option<(Output, u64)> {
        let log = &self.log[lane];
        let (sequence, newest) = log.last()?;
        let mut reading = Reading::new(newest);
        while let Some(number) = reading.wants() {
            let Some((_, record)) = log.iter().rev().find(|(_, r)| r.last.number == number) else {
                break;
            };
            reading.read(record);
        }
        Some((reading.output(), *sequence))
    }
}

/// Returns a fixed zkVM for the keys of STAGES: a stage has only one zkVM, so keys need not tell them apart.
fn any_zkvm() -> ZkvmId {
    crate::plan::valid(ZkvmId::new("any"))
}
