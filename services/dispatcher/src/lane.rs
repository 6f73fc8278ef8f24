//! The blocks and cancels of one pipeline, in the order of the stream, from a consumer of its own.
//!
//! A block that is too far ahead of the output is *parked*: nothing behind it is taken from the consumer,
//! and all that waits there stays in the stream. Two kinds of messages are read before their turn, straight
//! from the stream:
//!
//! | what | when |
//! |---|---|
//! | cancels | as soon as they are stored, so that they are effective behind any backlog |
//! | late blocks | while the output stands still: a block that was published late, to fill a hole, lies behind the parked block that waits for it. Our ingesters publish in order, others may not |
//!
//! Both are acknowledged when the consumer comes to them.

use futures::{FutureExt, future::BoxFuture};
use push0_bus::{Bus, BusError, Deliveries, Delivery, Kept, Replay, Stream, Window};
use push0_domain::{PipelineId, message::BlockEvent, subject};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// How many messages are asked for at once, so that a takeover waits for few answers, and how many bytes: one
/// and a half times as much may lie in memory while the lane is parked.
const BATCH: usize = 1024;
const BATCH_BYTES: usize = 4 << 20;
/// How long the output of a pipeline may stand still until late blocks are searched for.
const STILL: Duration = Duration::from_secs(2);
/// How many messages are read before their turn at once, and how many of these lie in memory.
const PAGE: usize = 256;
const READ: usize = 16;
/// The most late blocks that were taken in and that the consumer has not come to.
const LATE_MAX: usize = 1024;

/// A block or a cancel as it was received or read.
pub(crate) type Announced = Delivery<BlockEvent, ()>;

/// What a lane brings.
pub(crate) enum Arrival {
    /// A message in its turn, and whether it was stored before this dispatcher led.
    Turn(Announced, bool),
    /// Cancels before their turn.
    Cancels(Vec<Kept<BlockEvent>>),
    /// Late blocks.
    Late(Vec<Kept<BlockEvent>>),
}

/// One pipeline's messages.
pub(crate) struct Lane {
    pub(crate) name: PipelineId,
    /// Whether somebody collects for it: else nothing is emitted that could be waited for.
    pub(crate) is_defined: bool,
    messages: Deliveries<BlockEvent>,
    parked: Option<(Announced, bool)>,
    /// The highest sequence that came in its turn.
    passed: u64,
    cancels: Ahead,
    late: Ahead,
    /// What the pipeline emits next, and since when.
    front: (u64, Instant),
    /// Late blocks that were taken in, and whether they are done.
    taken: BTreeMap<u64, bool>,
}

type Page = Result<(u64, Vec<Kept<BlockEvent>>), BusError>;

/// Reading ahead of the consumer.
#[derive(Default)]
struct Ahead {
    /// All up to here was looked at.
    looked_to: u64,
    has_looked: bool,
    page: Option<BoxFuture<'static, Page>>,
}

impl Lane {
    /// Makes the consumer, and begins to look for cancels. At most `open_max` messages are unacknowledged
    /// at a time.
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
            passed: 0,
            cancels: Ahead::default(),
            late: Ahead::default(),
            front: (0, Instant::now()),
            taken: BTreeMap::new(),
        };
        lane.look_for_cancels(&bus);
        Ok(lane)
    }

    /// What comes next. Cancel safe.
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

    /// Whether messages are still to be read that were there before, and can be.
    pub(crate) fn is_replaying(&self) -> bool {
        !self.cancels.has_looked || (self.parked.is_none() && self.messages.to_replay() > 0)
    }

    /// Keeps a block that is too far ahead of the output, and reads no further.
    pub(crate) fn park(&mut self, block: Announced, is_replay: bool) {
        self.parked = Some((block, is_replay));
    }

    pub(crate) fn parked(&self) -> Option<&Announced> {
        self.parked.as_ref().map(|(block, _)| block)
    }

    pub(crate) fn unpark(&mut self) -> Option<(Announced, bool)> {
        self.parked.take()
    }

    /// Passes a message in its turn. Returns whether it is a late block that was taken in before.
    pub(crate) async fn pass(&mut self, sequence: u64) -> bool {
        self.passed = self.passed.max(sequence);
        let taken = self.taken.remove(&sequence);
        if taken == Some(true) {
            self.messages.done(sequence).await;
        }
        taken.is_some()
    }

    /// Whether a message that was read before its turn has not come in its turn meanwhile.
    pub(crate) fn is_ahead(&self, sequence: u64) -> bool {
        sequence > self.passed
    }

    /// Notes that a late block is taken in; false if it was before.
    pub(crate) fn takes(&mut self, sequence: u64) -> bool {
        self.is_ahead(sequence) && self.taken.insert(sequence, false).is_none()
    }

    /// Acknowledges a message, if it is one of this lane.
    pub(crate) async fn done(&mut self, sequence: u64) -> bool {
        if let Some(is_done) = self.taken.get_mut(&sequence) {
            // What was not delivered cannot be acknowledged yet.
            *is_done = true;
            return true;
        }
        let is_ours = self.messages.holds(sequence);
        if is_ours {
            self.messages.done(sequence).await;
        }
        is_ours
    }

    /// Looks for cancels that are stored behind those that are known.
    pub(crate) fn look_for_cancels(&mut self, bus: &Bus) {
        let subject = subject::cancel(&self.name);
        self.cancels.look(bus, subject, self.passed, is_cancel);
    }

    /// Looks for late blocks if the output stands still in front of a parked block. Returns whether it is
    /// the first look behind this one.
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

    /// The name of its consumer, once it is let go of.
    pub(crate) fn close(self) -> String {
        consumer(&self.name)
    }
}

impl Ahead {
    /// Begins to look at the next page on a subject, unless it is looking.
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

    /// What was found, once it was. Cancel safe.
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

/// What is wanted of the next messages on a subject, and the sequence up to which was looked.
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

/// The next message in its turn, and whether it was stored before this dispatcher led; while a block is
/// parked, none.
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
