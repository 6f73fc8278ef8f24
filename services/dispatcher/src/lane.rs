//! The blocks and cancellations of one pipeline, in stream order, read by a consumer of their own.
//!
//! A block too far ahead of the output is *parked*: nothing behind it is taken from the consumer, and
//! everything behind it stays in the stream. Two kinds of messages are read before their turn, straight
//! from the stream:
//!
//! | message | when it is read |
//! |---|---|
//! | cancellations | as soon as they are stored, to take effect behind any backlog |
//! | late blocks | while the output stands still: a block published late, to fill a hole, lies behind the parked block. Our ingesters publish in order, others may not |
//!
//! Both are acknowledged when the consumer reaches them.

use futures::{FutureExt, future::BoxFuture};
use push0_bus::{Bus, BusError, Deliveries, Delivery, Kept, Replay, Stream, Window, now};
use push0_domain::{PipelineId, Timestamp, message::BlockEvent, subject};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Messages per request, a large number so that a takeover waits for few answers, and bytes per request. Up
/// to one and a half times these bytes lie in memory while the lane is parked.
const BATCH: usize = 1024;
const BATCH_BYTES: usize = 4 << 20;
/// How long the output of a pipeline stands still before late blocks are searched for.
const STILL: Duration = Duration::from_secs(2);
/// Messages per search before their turn, and how many of these lie in memory at a time.
const PAGE: usize = 256;
const READ: usize = 16;
/// Most late blocks taken in before the consumer has reached them.
const LATE_MAX: usize = 1024;

/// A block or a cancellation, either received or read from the stream.
pub(crate) type Announced = Delivery<BlockEvent, ()>;

/// An event from a lane.
pub(crate) enum Arrival {
    /// A message in its turn, and whether it was stored before this dispatcher led.
    Turn(Announced, bool),
    /// Cancellations read before their turn.
    Cancels(Vec<Kept<BlockEvent>>),
    /// Late blocks, read before their turn.
    Late(Vec<Kept<BlockEvent>>),
}

/// The messages of one pipeline.
pub(crate) struct Lane {
    pub(crate) name: PipelineId,
    /// Whether the pipeline has a definition. Without one no collector emits its blocks, so none wait
    /// for the output.
    pub(crate) is_defined: bool,
    messages: Deliveries<BlockEvent>,
    parked: Option<(Announced, bool)>,
    /// When the last parked block was taken up again.
    unparked_at: Timestamp,
    /// The highest sequence received in its turn.
    passed: u64,
    cancels: Ahead,
    late: Ahead,
    /// The number the pipeline emits next, and since when it has been the same.
    front: (u64, Instant),
    /// Sequences of late blocks taken in, and whether their work is done.
    taken: BTreeMap<u64, bool>,
}

type Page = Result<(u64, Vec<Kept<BlockEvent>>), BusError>;

/// A search of the stream ahead of the consumer.
#[derive(Default)]
struct Ahead {
    /// The sequence up to which the stream was searched.
    looked_to: u64,
    has_looked: bool,
    page: Option<BoxFuture<'static, Page>>,
}

impl Lane {
    /// Creates the consumer, and starts searching for cancellations. At most `open_max` messages are
    /// unacknowledged at a time.
    pub(crate) async fn open(bus: Bus, name: PipelineId, open_max: u32) -> Result<Self, BusError> {
        let replay = Replay {
            stream: Stream::Blocks,
            consumer: consumer(&name),
            filters: vec![subject::block(&name), subject::cancel(&name)],
        };
        let window = Window {
            open_max,
            batch: BATCH,
            bytes: BATCH_BYTES,
        };
        let mut lane = Self {
            messages: bus.replay_within(&replay, window).await?,
            name,
            is_defined: true,
            parked: None,
            unparked_at: Timestamp::default(),
            passed: 0,
            cancels: Ahead::default(),
            late: Ahead::default(),
            front: (0, Instant::now()),
            taken: BTreeMap::new(),
        };
        lane.look_for_cancels(&bus);
        Ok(lane)
    }

    /// Returns the next event. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Arrival, BusError> {
        tokio::select! {
            biased;
            cancels = self.cancels.next() => Ok(Arrival::Cancels(cancels?)),
            late = self.late.next() => Ok(Arrival::Late(late?)),
            message = read(&mut self.messages, self.parked.is_some()) => {
                let (message, is_replay) = message?;
                Ok(Arrival::Turn(message, is_replay))
            }
        }
    }

    /// Returns whether messages remain to be replayed and can be read. Behind a parked block none can.
    pub(crate) fn is_replaying(&self) -> bool {
        !self.cancels.has_looked || (self.parked.is_none() && self.messages.to_replay() > 0)
    }

    /// Parks a block too far ahead of the output. Nothing behind it is read.
    pub(crate) fn park(&mut self, block: Announced, is_replay: bool) {
        self.parked = Some((block, is_replay));
    }

    pub(crate) fn parked(&self) -> Option<&Announced> {
        self.parked.as_ref().map(|(block, _)| block)
    }

    pub(crate) fn unpark(&mut self) -> Option<(Announced, bool)> {
        self.unparked_at = now();
        self.parked.take()
    }

    /// Returns whether a block stored then came later because this lane was parked.
    pub(crate) fn held_back(&self, stored_at: Timestamp) -> bool {
        self.parked.is_some() || stored_at < self.unparked_at
    }

    /// Marks a message as received in its turn. Returns whether the message is a late block taken in before.
    pub(crate) async fn pass(&mut self, sequence: u64) -> bool {
        self.passed = self.passed.max(sequence);
        let taken = self.taken.remove(&sequence);
        if taken == Some(true) {
            self.messages.done(sequence).await;
        }
        taken.is_some()
    }

    /// Returns whether a message read before its turn is still to come in its turn.
    pub(crate) fn is_ahead(&self, sequence: u64) -> bool {
        sequence > self.passed
    }

    /// Marks a late block as taken in. Returns false if it was taken in or received before.
    pub(crate) fn takes(&mut self, sequence: u64) -> bool {
        self.is_ahead(sequence) && self.taken.insert(sequence, false).is_none()
    }

    /// Acknowledges a message. Returns whether it belongs to this lane.
    pub(crate) async fn done(&mut self, sequence: u64) -> bool {
        if let Some(is_done) = self.taken.get_mut(&sequence) {
            // A message cannot be acknowledged before its delivery.
            *is_done = true;
            return true;
        }
        let is_ours = self.messages.holds(sequence);
        if is_ours {
            self.messages.done(sequence).await;
        }
        is_ours
    }

    /// Searches for cancellations stored behind the known ones.
    pub(crate) fn look_for_cancels(&mut self, bus: &Bus) {
        let subject = subject::cancel(&self.name);
        self.cancels.look(bus, subject, self.passed, is_cancel);
    }

    /// Searches for late blocks if the output stands still while a block is parked. Returns whether this is
    /// the first search behind this block.
    pub(crate) fn look_for_late_blocks(&mut self, bus: &Bus, front: u64, ahead: u64, now: Instant) -> bool {
        if self.front.0 != front {
            self.front = (front, now);
        }
        let stands_still = now.duration_since(self.front.1) >= STILL && self.taken.len() < LATE_MAX;
        let Some((parked, _)) = self.parked.as_ref().filter(|_| stands_still) else {
            return false;
        };
        let (behind, is_first) = (parked.sequence, self.late.looked_to <= parked.sequence);
        let last = front.saturating_add(ahead);
        let is_near = move |event: &BlockEvent| matches!(event, BlockEvent::Observed(block) if block.block.number <= last);
        self.late.look(bus, subject::block(&self.name), behind, is_near) && is_first
    }

    /// Consumes the lane, and returns the name of its consumer for deletion.
    pub(crate) fn close(self) -> String {
        consumer(&self.name)
    }
}

impl Ahead {
    /// Starts searching the next page of a subject, unless a search is running. Returns whether it started.
    fn look(
        &mut self,
        bus: &Bus,
        subject: String,
        behind: u64,
        is_wanted: impl Fn(&BlockEvent) -> bool + Send + Sync + 'static,
    ) -> bool {
        let begins = self.page.is_none();
        if begins {
            let from = self.looked_to.max(behind) + 1;
            self.page = Some(page(bus.clone(), subject, from, is_wanted).boxed());
        }
        begins
    }

    /// Returns the messages found by a search, once the search ends. Cancel safe.
    async fn next(&mut self) -> Result<Vec<Kept<BlockEvent>>, BusError> {
        let Some(page) = &mut self.page else {
            return std::future::pending().await;
        };
        let looked = page.await;
        self.page = None;
        let (looked_to, found) = looked?;
        self.looked_to = looked_to;
        self.has_looked = true;
        Ok(found)
    }
}

/// Searches one page of a subject. Returns the sequence up to which it searched, and the wanted messages.
async fn page(bus: Bus, subject: String, from: u64, is_wanted: impl Fn(&BlockEvent) -> bool) -> Page {
    let (mut looked_to, mut found) = (from - 1, Vec::new());
    for _ in 0..PAGE / READ {
        let read = bus.scan(Stream::Blocks, &subject, looked_to + 1, READ).await?;
        let Some(newest) = read.last() else { break };
        looked_to = newest.sequence;
        found.extend(
            read.into_iter()
                .filter(|kept| kept.body.as_ref().is_ok_and(&is_wanted)),
        );
    }
    Ok((looked_to, found))
}

/// Returns the next message in its turn, and whether it was stored before this dispatcher led. While a block
/// is parked, returns only when the consumer fails.
async fn read(messages: &mut Deliveries<BlockEvent>, is_parked: bool) -> Result<(Announced, bool), BusError> {
    if is_parked {
        return Err(messages.watch().await);
    }
    let message = messages.next().await?;
    Ok((message, messages.is_replay()))
}

fn is_cancel(event: &BlockEvent) -> bool {
    matches!(event, BlockEvent::Cancelled(_))
}

fn consumer(pipeline: &PipelineId) -> String {
    format!("dispatcher-blocks-{pipeline}")
}
