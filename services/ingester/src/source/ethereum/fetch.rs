//! Fetching of a block range and publishing of the resulting steps. The next window of blocks is fetched
//! while the broker stores the one before.
//!
//! Memory is bounded in bytes, regardless of the node's answers: a few answers of limited size at a time,
//! and two batches. A larger block is fetched alone, by one pipeline at a time, and the next one only
//! after the broker has stored it.

use super::{
    Ethereum, Halt,
    block::FetchedBlock,
    connections::CONNECTIONS_MAX,
    nodes::Failed,
    number::Number,
    progress::{Fetched, Limits},
};
use crate::{
    decide::{
        WINDOW,
        follow::{Effect, Event, Follower},
    },
    publisher::{NewBlock, Step},
    status::Status,
};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use push0_domain::pipeline::Witness;
use push0_runtime::Shutdown;
use std::pin::pin;
use tokio::sync::{Semaphore, SemaphorePermit};

/// Largest answer, in bytes, while several blocks are requested at once.
const SHARE_MAX: usize = 1024 * 1024;
/// Bytes of witnesses collected before they are published.
const BATCH_BYTES: usize = 1024 * 1024;

/// Permit for answers larger than [`SHARE_MAX`]. The process has one permit, held until the broker
/// has stored the fetched blocks. A node that does not answer holds up the permit for the timeout
/// of one request.
static LARGE: Semaphore = Semaphore::const_new(1);

/// Steps for some blocks, committed together.
struct Batch {
    steps: Vec<Step>,
    /// Reason why no steps follow; `None` if more may follow.
    end: Option<End>,
}

enum End {
    /// The range is complete, the node has no more of the range, or the stop is requested.
    Over,
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
        let large = self.limits.alone(first).await;
        let (at_once, answer_max) = match large {
            Some(_) => (1, self.nodes.answer_max),
            // Several requests at once make a slow node slower.
            None if self.nodes.are_strained() => (1, SHARE_MAX),
            None => (CONNECTIONS_MAX, SHARE_MAX),
        };
        let last = match self.limits.alone_up_to {
            Some(alone) if large.is_some() => last.min(alone),
            _ => last,
        };
        let (nodes, kind) = (self.nodes, self.source.witness);
        let full = kind == Witness::Block;
        let ask = |number| async move {
            // The head is already here, and complete unless its transactions are needed.
            let answer = if number == head.link.block.number && !full {
                Ok(Some(head.clone()))
            } else {
                nodes.block(Number::At(number), full, answer_max).await
            };
            (number, answer)
        };
        let mut blocks = pin!(stream::iter(first..=last).map(ask).buffered(at_once));
        let status = self.publisher.status.clone();
        let (follower, stop) = (&mut self.follower, self.stop);
        let (mut any, mut steps) = (false, Vec::new());
        loop {
            any |= !steps.is_empty();
            let filled = fill(&mut blocks, follower, &status, kind, stop);
            let committed = self.publisher.commit(steps);
            let batch = if large.is_some() {
                // A large block must be stored and dropped before the next one is fetched.
                committed.await?;
                filled.await
            } else {
                tokio::try_join!(async { Ok(filled.await) }, committed)?.0
            };
            steps = batch.steps;
            let Some(end) = batch.end else { continue };
            any |= !steps.is_empty();
            // Steps before a failure are committed too, because the follower counts them as published.
            self.publisher.commit(steps).await?;
            return match end {
                End::Over => Ok(Fetched { any, then: None }),
                End::Other(effect) => Ok(Fetched {
                    any,
                    then: Some(effect),
                }),
                End::Large { number, .. } if large.is_none() => {
                    self.limits.alone_up_to = Some(number.saturating_add(WINDOW - 1));
                    Ok(Fetched {
                        any: true,
                        then: None,
                    })
                }
                End::Large { failed, .. } | End::Failed(failed) => Err(Halt::Node(failed)),
            };
        }
    }
}

impl Limits {
    /// Returns the permit for large answers if the blocks from this number on are requested one at a
    /// time. Otherwise returns `None` and lifts the limit.
    async fn alone(&mut self, first: u64) -> Option<SemaphorePermit<'static>> {
        if self.alone_up_to.is_some_and(|last| first <= last) {
            // The semaphore is never closed.
            return LARGE.acquire().await.ok();
        }
        self.alone_up_to = None;
        None
    }
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
            // A node may not have a block below its head yet, or no longer have it.
            Some((_, Ok(None))) | None => return Batch::last(steps, End::Over),
            Some((number, Err(failed))) if failed.error.is_too_large() => {
                return Batch::last(steps, End::Large { number, failed });
            }
            Some((_, Err(failed))) => return Batch::last(steps, End::Failed(failed)),
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
                other => return Batch::last(steps, End::Other(other)),
            }
        }
    }
    Batch { steps, end: None }
}

impl Batch {
    fn last(steps: Vec<Step>, end: End) -> Self {
        Self {
            steps,
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
