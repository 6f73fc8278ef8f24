//! Fetching of a block range and publishing of the resulting steps. The next window of blocks is fetched
//! while the broker stores the one before.
//!
//! Memory is bounded in bytes, regardless of the node's answers: a few answers of limited size at a time,
//! and two batches. A larger block is fetched alone, by one pipeline at a time, and the next one only
//! after the broker has stored the block, or the block was dropped for lack of room.

use super::{
    Ethereum, Halt,
    block::FetchedBlock,
    connections::CONNECTIONS_MAX,
    nodes::{Failed, Nodes},
    number::Number,
    progress::Fetched,
};
use crate::{
    decide::{
        WINDOW,
        follow::{Effect, Event, Follower},
    },
    publisher::{NewBlock, Step, Unstored, Wait},
    status::{Status, Trouble},
};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use push0_domain::pipeline::Witness;
use push0_runtime::Shutdown;
use std::{pin::pin, time::Duration};
use tokio::time::timeout;

/// Largest answer, in bytes, while several blocks are requested at once.
const SHARE_MAX: usize = 1024 * 1024;
/// Bytes of witnesses collected before they are published.
const BATCH_BYTES: usize = 1024 * 1024;

/// Longest time for which a pipeline that has its turn stores a block. Parts stored by then need not be stored again.
const STORE_MAX: Duration = Duration::from_secs(30);

/// Steps for some blocks, committed together.
struct Batch {
    steps: Vec<Step>,
    /// Bytes of the steps' witnesses.
    bytes: usize,
    /// Reason why no steps follow; `None` if more may follow.
    end: Option<End>,
}

enum End {
    /// The range is complete, or the stop is requested.
    Over,
    /// The node does not have this block of the range.
    Lacks(u64),
    /// The follower needs another effect first.
    Other(Effect),
    /// The answer for a block exceeds the size limit.
    Large {
        number: u64,
        failed: Failed,
    },
    Failed(Failed),
}

/// The number of a requested block, and the answer.
type Answered = (u64, Result<Option<FetchedBlock>, Failed>);

impl Ethereum<'_> {
    /// Fetches blocks and publishes the steps resulting from them.
    pub(super) async fn fetch(
        &mut self,
        first: u64,
        last: u64,
        head: &FetchedBlock,
    ) -> Result<Fetched, Halt> {
        if self.limits.is_alone(first) {
            return self.fetch_alone(first, head).await;
        }
        // Several requests at once make a slow node slower.
        let at_once = if self.nodes.are_strained() {
            1
        } else {
            CONNECTIONS_MAX
        };
        let (nodes, kind) = (self.nodes, self.source.witness);
        let ask = |number| ask(nodes, kind, number, head, SHARE_MAX);
        let mut blocks = pin!(stream::iter(first..=last).map(ask).buffered(at_once));
        let status = self.publisher.status.clone();
        let (follower, stop) = (&mut self.follower, self.stop);
        let (mut any, mut steps) = (false, Vec::new());
        loop {
            any |= !steps.is_empty();
            let filled = fill(&mut blocks, follower, &status, kind, stop);
            let committed = self.publisher.commit(steps);
            let batch = tokio::try_join!(async { Ok(filled.await) }, committed)?.0;
            steps = batch.steps;
            let Some(end) = batch.end else { continue };
            any |= !steps.is_empty();
            // Steps before a failure are committed too, because the follower counts them as published.
            self.publisher.commit(steps).await?;
            if let End::Large { number, .. } = end {
                self.limits.large_from(number);
                return Ok(Fetched {
                    any: true,
                    ..Fetched::default()
                });
            }
            return fetched(any, end);
        }
    }

    /// Fetches and publishes a block that may be large. Other pipelines wait for this one meanwhile, so the pipeline
    /// waits for room before its turn, and gives the turn up if the room is gone when the block is here.
    async fn fetch_alone(&mut self, number: u64, head: &FetchedBlock) -> Result<Fetched, Halt> {
        let (nodes, kind) = (self.nodes, self.source.witness);
        let status = self.publisher.status.clone();
        loop {
            self.publisher.wait_for_room(self.limits.expected).await;
            let _turn = self.turns.next(status.pipeline()).await;
            let before = self.follower.clone();
            let asked = pin!(ask(nodes, kind, number, head, nodes.answer_max));
            let mut block = stream::once(asked);
            let batch = fill(&mut block, &mut self.follower, &status, kind, self.stop).await;
            let any = !batch.steps.is_empty();
            self.limits.expected = batch.bytes as u64;
            let stored = self.publisher.store(batch.steps, Wait::Never);
            match timeout(STORE_MAX, stored).await {
                Ok(Ok(())) => return fetched(any, batch.end.unwrap_or(End::Over)),
                Ok(Err(Unstored::NoRoom)) => self.follower = before,
                Ok(Err(Unstored::Deposed(deposed))) => return Err(deposed.into()),
                Err(_) => {
                    let reason = format!("block {number} was not stored within {STORE_MAX:?}");
                    self.publisher.status.failing(Trouble::Broker, &reason);
                    return Err(Halt::Again);
                }
            }
        }
    }
}

async fn ask(nodes: &Nodes, kind: Witness, number: u64, head: &FetchedBlock, answer_max: usize) -> Answered {
    let full = kind == Witness::Block;
    // The head is already here, and complete unless its transactions are needed.
    let answer = if number == head.link.block.number && !full {
        Ok(Some(head.clone()))
    } else {
        nodes.block(Number::At(number), full, answer_max).await
    };
    (number, answer)
}

fn fetched(any: bool, end: End) -> Result<Fetched, Halt> {
    let (then, lacks) = match end {
        End::Over => (None, None),
        End::Lacks(number) => (None, Some(number)),
        End::Other(effect) => (Some(effect), None),
        End::Large { failed, .. } | End::Failed(failed) => return Err(Halt::Node(failed)),
    };
    Ok(Fetched { any, then, lacks })
}

/// Takes answers until a window of blocks, enough bytes of witnesses, or an end is reached.
async fn fill(
    blocks: &mut (impl Stream<Item = Answered> + Unpin),
    follower: &mut Follower,
    status: &Status,
    kind: Witness,
    stop: &Shutdown,
) -> Batch {
    let (mut steps, mut bytes) = (Vec::new(), 0);
    while bytes < BATCH_BYTES && (steps.len() as u64) < WINDOW {
        let answer = tokio::select! {
            () = stop.requested() => None,
            answer = blocks.next() => answer,
        };
        let block = match answer {
            Some((_, Ok(Some(block)))) => block,
            None => return Batch::last(steps, bytes, End::Over),
            Some((number, Ok(None))) => return Batch::last(steps, bytes, End::Lacks(number)),
            Some((number, Err(failed))) if failed.error.is_too_large() => {
                return Batch::last(steps, bytes, End::Large { number, failed });
            }
            Some((_, Err(failed))) => return Batch::last(steps, bytes, End::Failed(failed)),
        };
        let witness = witness(kind, &block);
        for effect in follower.step(Event::Block(block.link)) {
            match effect {
                Effect::Act(action) => {
                    bytes += witness.len();
                    steps.push(Step::of(action, |link| {
                        NewBlock::observed(status, link, block.facts, witness.clone())
                    }));
                }
                other => return Batch::last(steps, bytes, End::Other(other)),
            }
        }
    }
    Batch {
        steps,
        bytes,
        end: None,
    }
}

impl Batch {
    fn last(steps: Vec<Step>, bytes: usize, end: End) -> Self {
        Self {
            steps,
            bytes,
            end: Some(end),
        }
    }
}

fn witness(kind: Witness, block: &FetchedBlock) -> Bytes {
    match kind {
        Witness::Number => block.link.block.number.to_string().into(),
        Witness::Header => block.header_rlp.clone(),
        Witness::Block => block.json.clone(),
    }
}
