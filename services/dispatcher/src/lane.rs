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

use crate::session::{LateSearch, Received};
use futures::{FutureExt, future::BoxFuture};
use push0_bus::{Bus, BusError, Deliveries, Delivery, Kept, Replay, Stream, Window};
use push0_domain::{PipelineId, message::BlockEvent, subject};

/// Messages per request, a large number so that a takeover waits for few answers, and bytes per request. Up
/// to one and a half times these bytes lie in memory while the lane is parked.
const BATCH: usize = 1024;
const BATCH_BYTES: usize = 4 << 20;
/// Messages per search before their turn, and how many of these lie in memory at a time.
const PAGE: usize = 256;
const READ: usize = 16;

/// An event from a lane.
pub(crate) enum Arrival {
    /// A message in its turn.
    Turn(Received<BlockEvent>),
    /// Cancellations read before their turn.
    Cancels(Vec<Kept<BlockEvent>>),
    /// Late blocks, read before their turn.
    Late(Vec<Kept<BlockEvent>>),
}

/// The messages of one pipeline.
pub(crate) struct Lane {
    pub(crate) name: PipelineId,
    messages: Deliveries<BlockEvent>,
    cancels: Ahead,
    late: Ahead,
}

type Page = Result<(u64, Vec<Kept<BlockEvent>>), BusError>;

/// A search of the stream ahead of the consumer.
#[derive(Default)]
struct Ahead {
    /// The sequence up to which the stream was searched.
    looked_to: u64,
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
            cancels: Ahead::default(),
            late: Ahead::default(),
        };
        lane.look_for_cancels(&bus, 0);
        Ok(lane)
    }

    /// Returns the next event. In turn, nothing is read while the lane is parked. Cancel safe.
    pub(crate) async fn next(&mut self, is_parked: bool) -> Result<Arrival, BusError> {
        tokio::select! {
            biased;
            cancels = self.cancels.next() => Ok(Arrival::Cancels(cancels?)),
            late = self.late.next() => Ok(Arrival::Late(late?)),
            message = read(&mut self.messages, is_parked) => Ok(Arrival::Turn(message?)),
        }
    }

    /// Returns how many messages are left from before this dispatcher led.
    pub(crate) fn to_replay(&self) -> u64 {
        self.messages.to_replay()
    }

    /// Acknowledges a message. Returns whether it belongs to this lane.
    pub(crate) async fn done(&mut self, sequence: u64) -> bool {
        let is_ours = self.messages.holds(sequence);
        if is_ours {
            self.messages.done(sequence).await;
        }
        is_ours
    }

    /// Searches for cancellations stored behind the known ones and behind this sequence.
    pub(crate) fn look_for_cancels(&mut self, bus: &Bus, behind: u64) {
        let subject = subject::cancel(&self.name);
        self.cancels.look(bus, subject, behind, is_cancel);
    }

    /// Searches for late blocks. Returns whether this is the first search behind the parked block.
    pub(crate) fn look_for_late_blocks(&mut self, bus: &Bus, search: &LateSearch) -> bool {
        let is_first = self.late.looked_to <= search.parked;
        let last = search.front.saturating_add(search.ahead);
        let is_near = move |event: &BlockEvent| matches!(event, BlockEvent::Observed(block) if block.block.number <= last);
        self.late
            .look(bus, subject::block(&self.name), search.parked, is_near)
            && is_first
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

/// Returns the next message in its turn. While a block is parked, returns only when the consumer fails.
async fn read(
    messages: &mut Deliveries<BlockEvent>,
    is_parked: bool,
) -> Result<Received<BlockEvent>, BusError> {
    if is_parked {
        return Err(messages.watch().await);
    }
    let message = messages.next().await?;
    Ok(delivered(message, messages.is_replay()))
}

fn is_cancel(event: &BlockEvent) -> bool {
    matches!(event, BlockEvent::Cancelled(_))
}

fn consumer(pipeline: &PipelineId) -> String {
    format!("dispatcher-blocks-{pipeline}")
}

/// Converts a message delivered in its turn.
pub(crate) fn delivered<T>(delivery: Delivery<T, ()>, is_replay: bool) -> Received<T> {
    Received {
        body: delivery.body,
        trace: delivery.trace,
        subject: delivery.subject,
        sequence: delivery.sequence,
        stored_at: delivery.stored_at,
        is_replay,
    }
}

/// Converts a message read straight from the stream, which a predecessor may have read and released as well.
pub(crate) fn kept<T>(kept: Kept<T>) -> Option<Received<T>> {
    Some(Received {
        body: kept.body.ok()?,
        trace: kept.trace,
        subject: kept.subject,
        sequence: kept.sequence,
        stored_at: kept.stored_at,
        is_replay: true,
    })
}
