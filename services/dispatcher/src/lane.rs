//! The blocks and cancels of one pipeline, each from a consumer of its own.
//!
//! A block that is too far ahead of the output is *parked*: nothing behind it is read, and all that waits
//! behind it stays in the stream. Cancels are read at once, however many blocks wait.
//!
//! Blocks of a pipeline come in order from our ingesters. A block that another one publishes late, to fill
//! a hole, would lie behind the parked block that waits for it. So while the output stands still a *search*
//! looks through what is stored behind the parked block, a page at a time, for blocks that are near enough.

use futures::{FutureExt, future::BoxFuture};
use push0_bus::{Bus, BusError, Deliveries, Delivery, Kept, Replay, Stream, Window};
use push0_domain::{PipelineId, message::BlockEvent, subject};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// The most cancels of a pipeline that wait for older blocks to be read. Further ones stay in the stream
/// until some of them are finished: the blocks that they end may be released until then.
const CANCELS_OPEN_MAX: u32 = 256;
/// How many messages are asked for at once: with the largest witnesses, some 6 MiB lie in memory.
const BATCH: usize = 64;
/// How long the output of a pipeline may stand still until late blocks are searched for.
const STILL: Duration = Duration::from_secs(2);
/// How many messages a search reads at once, and how many of these lie in memory.
const PAGE: usize = 256;
const READ: usize = 16;
/// The most blocks that are taken in out of turn and not passed by yet.
const EARLY_MAX: usize = 1024;

/// A block as it was received or found.
pub(crate) type Announced = Delivery<BlockEvent, ()>;

/// What a lane brings.
pub(crate) enum Arrival {
    Cancel(Announced),
    /// A block, and whether it was stored before this dispatcher led.
    Block(Announced, bool),
    /// Blocks that were published late.
    Found(Vec<Kept<BlockEvent>>),
}

/// One pipeline's messages.
pub(crate) struct Lane {
    pub(crate) name: PipelineId,
    /// Whether somebody collects for it: else nothing is emitted that could be waited for.
    pub(crate) is_defined: bool,
    blocks: Deliveries<BlockEvent>,
    cancels: Deliveries<BlockEvent>,
    parked: Option<(Announced, bool)>,
    /// The sequence behind the last block that was read.
    read_to: u64,
    /// What the pipeline emits next, and since when.
    front: (u64, Instant),
    search: Search,
    /// Blocks taken in out of turn, and whether they are done: the consumer has not come to them yet.
    early: BTreeMap<u64, bool>,
}

#[derive(Default)]
struct Search {
    /// All up to here was looked through.
    looked_to: u64,
    page: Option<BoxFuture<'static, Result<(u64, Vec<Kept<BlockEvent>>), BusError>>>,
}

impl Lane {
    /// Makes both consumers. At most `open_max` blocks are unacknowledged at a time.
    pub(crate) async fn open(bus: Bus, name: PipelineId, open_max: u32) -> Result<Self, BusError> {
        let replay = |consumer: String, filter| Replay {
            stream: Stream::Blocks,
            consumer,
            filters: vec![filter],
        };
        let blocks = replay(consumer_of_blocks(&name), subject::block(&name));
        let cancels = replay(consumer_of_cancels(&name), subject::cancel(&name));
        let window = |open_max| Window {
            open_max,
            batch: BATCH,
        };
        let (blocks, cancels) = tokio::try_join!(
            bus.replay_within(&blocks, window(open_max)),
            bus.replay_within(&cancels, window(CANCELS_OPEN_MAX)),
        )?;
        Ok(Self {
            name,
            is_defined: true,
            blocks,
            cancels,
            parked: None,
            read_to: 1,
            front: (0, Instant::now()),
            search: Search::default(),
            early: BTreeMap::new(),
        })
    }

    /// What comes next. Cancel safe.
    pub(crate) async fn next(&mut self) -> Result<Arrival, BusError> {
        tokio::select! {
            biased;
            cancel = self.cancels.next() => Ok(Arrival::Cancel(cancel?)),
            found = self.search.next() => Ok(Arrival::Found(found?)),
            block = read(&mut self.blocks, self.parked.is_some()) => {
                let (block, is_replay) = block?;
                Ok(Arrival::Block(block, is_replay))
            }
        }
    }

    /// Whether messages are still to be read that were there before, and can be.
    pub(crate) fn is_replaying(&self) -> bool {
        (self.parked.is_none() && self.blocks.to_replay() > 0) || self.cancels.to_replay() > 0
    }

    /// Keeps a block that is too far ahead of the output, and reads no further.
    pub(crate) fn park(&mut self, block: Announced, is_replay: bool) {
        self.search.looked_to = self.search.looked_to.max(block.sequence);
        self.parked = Some((block, is_replay));
    }

    pub(crate) fn parked(&self) -> Option<&Announced> {
        self.parked.as_ref().map(|(block, _)| block)
    }

    pub(crate) fn unpark(&mut self) -> Option<(Announced, bool)> {
        self.parked.take()
    }

    /// Passes a block by in its turn. Returns whether it was taken in before.
    pub(crate) async fn pass(&mut self, sequence: u64) -> bool {
        self.read_to = self.read_to.max(sequence + 1);
        match self.early.remove(&sequence) {
            Some(is_done) => {
                if is_done {
                    self.blocks.done(sequence).await;
                }
                true
            }
            None => false,
        }
    }

    /// Notes that a block is taken in out of turn; false if it was before.
    pub(crate) fn takes_early(&mut self, sequence: u64) -> bool {
        sequence >= self.read_to && self.early.insert(sequence, false).is_none()
    }

    /// Acknowledges a block, if it is one of this lane.
    pub(crate) async fn done(&mut self, sequence: u64) -> bool {
        if let Some(is_done) = self.early.get_mut(&sequence) {
            // What was not delivered cannot be acknowledged yet.
            *is_done = true;
            return true;
        }
        let is_ours = self.blocks.holds(sequence);
        if is_ours {
            self.blocks.done(sequence).await;
        }
        is_ours
    }

    /// Acknowledges a cancel, if it is one of this lane.
    pub(crate) async fn cancel_done(&mut self, sequence: u64) -> bool {
        let is_ours = self.cancels.holds(sequence);
        if is_ours {
            self.cancels.done(sequence).await;
        }
        is_ours
    }

    /// The sequence of the first block that was not read yet, by the word of the stream's leader.
    pub(crate) async fn unread(&self, bus: &Bus) -> Result<Option<u64>, BusError> {
        match self.parked() {
            Some(parked) => Ok(Some(parked.sequence)),
            None => {
                let subject = subject::block(&self.name);
                bus.next_sequence(Stream::Blocks, &subject, self.read_to).await
            }
        }
    }

    /// Notes what the pipeline emits next, and begins a search if that stands still in front of a parked
    /// block. Returns whether a search begins that was not needed before.
    pub(crate) fn look(&mut self, bus: &Bus, front: u64, ahead: u64, now: Instant) -> bool {
        if self.front.0 != front {
            self.front = (front, now);
        }
        let stands_still = now.duration_since(self.front.1) >= STILL;
        let Some((parked, _)) = self.parked.as_ref().filter(|_| stands_still) else {
            return false;
        };
        if self.search.page.is_some() || self.early.len() >= EARLY_MAX {
            return false;
        }
        let begins = self.search.looked_to <= parked.sequence;
        let (bus, subject, from) = (bus.clone(), subject::block(&self.name), self.search.looked_to + 1);
        self.search.page = Some(page(bus, subject, from, front.saturating_add(ahead)).boxed());
        begins
    }

    /// The names of its consumers, once it is let go of.
    pub(crate) fn close(self) -> [String; 2] {
        [consumer_of_blocks(&self.name), consumer_of_cancels(&self.name)]
    }
}

impl Search {
    /// What was found, once it was. Cancel safe.
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

/// The blocks up to `last` among the next ones on a subject, and the sequence up to which was looked.
async fn page(
    bus: Bus,
    subject: String,
    from: u64,
    last: u64,
) -> Result<(u64, Vec<Kept<BlockEvent>>), BusError> {
    let (mut looked_to, mut found) = (from - 1, Vec::new());
    for _ in 0..PAGE / READ {
        let read = bus.scan(Stream::Blocks, &subject, looked_to + 1, READ).await?;
        let Some(newest) = read.last() else { break };
        looked_to = newest.sequence;
        found.extend(read.into_iter().filter(|kept| is_near(kept, last)));
    }
    Ok((looked_to, found))
}

/// The next block, and whether it was stored before this dispatcher led; while one is parked, none.
async fn read(blocks: &mut Deliveries<BlockEvent>, is_parked: bool) -> Result<(Announced, bool), BusError> {
    if is_parked {
        return Err(blocks.watch().await);
    }
    let block = blocks.next().await?;
    Ok((block, blocks.is_replay()))
}

fn is_near(kept: &Kept<BlockEvent>, last: u64) -> bool {
    matches!(&kept.body, Ok(BlockEvent::Observed(block)) if block.block.number <= last)
}

fn consumer_of_blocks(pipeline: &PipelineId) -> String {
    format!("dispatcher-blocks-{pipeline}")
}

fn consumer_of_cancels(pipeline: &PipelineId) -> String {
    format!("dispatcher-cancels-{pipeline}")
}
