//! Fetching a range of blocks and publishing what the follower makes of them, the next window of blocks
//! while the broker stores the one before it.
//!
//! What is in memory is bounded in bytes, whatever the node answers: a few answers of a limited size at a
//! time, and two batches. A block that is larger is fetched alone, by one pipeline at a time, and the next
//! one when the broker has it.

use super::{
    Ethereum, Halt,
    block::FetchedBlock,
    client::{ANSWER_MAX, ClientError},
    connections::CONNECTIONS_MAX,
    rpc::{Number, RpcError},
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

/// The largest answer while several are asked for at once.
const SHARE_MAX: usize = 1024 * 1024;
/// How many bytes of witnesses are collected before they are published.
const BATCH_BYTES: usize = 1024 * 1024;

/// The answers of more than [`SHARE_MAX`] that this process holds: one, with its block until the broker
/// has it. A node that lets it wait holds it for the timeout of one request.
static LARGE: Semaphore = Semaphore::const_new(1);

/// How much is asked for at once.
#[derive(Default)]
pub(super) struct Limits {
    /// Blocks up to this one are asked for one at a time.
    alone_up_to: Option<u64>,
}

/// What came of a range.
pub(super) struct Fetched {
    /// Whether anything was done: then there may be more.
    pub(super) any: bool,
    /// What the follower wants instead of the rest.
    pub(super) then: Option<Effect>,
}

/// The steps of some blocks.
struct Batch {
    steps: Vec<Step>,
    /// Why there are no more; none if there may be.
    end: Option<End>,
}

enum End {
    /// The range is over, or the node does not have more of it, or the stop is requested.
    Over,
    /// The follower wants something else.
    Other(Effect),
    /// A block's answer is larger than its share.
    Large {
        number: u64,
    },
    Failed(RpcError),
}

/// An answer to the question for a block.
type Answered = (u64, Result<Option<FetchedBlock>, RpcError>);

impl Ethereum<'_> {
    /// Fetches blocks and publishes what the follower makes of them.
    pub(super) async fn fetch(
        &mut self,
        first: u64,
        last: u64,
        head: &FetchedBlock,
    ) -> Result<Fetched, Halt> {
        let large = self.limits.alone(first).await;
        let (at_once, answer_max) = match large {
            Some(_) => (1, ANSWER_MAX),
            None => (CONNECTIONS_MAX, SHARE_MAX),
        };
        let last = match self.limits.alone_up_to {
            Some(alone) if large.is_some() => last.min(alone),
            _ => last,
        };
        let (rpc, kind) = (self.rpc, self.source.witness);
        let full = kind == Witness::Block;
        let ask = |number| async move {
            // The head is here already, unless its transactions are wanted.
            let answer = if number == head.link.block.number && !full {
                Ok(Some(head.clone()))
            } else {
                rpc.block(Number::At(number), full, answer_max).await
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
                // The next one comes when this one is gone.
                committed.await?;
                filled.await
            } else {
                tokio::try_join!(async { Ok(filled.await) }, committed)?.0
            };
            steps = batch.steps;
            let Some(end) = batch.end else { continue };
            any |= !steps.is_empty();
            // Also what came before a failure: the follower counts it as published.
            self.publisher.commit(steps).await?;
            return match end {
                End::Over => Ok(Fetched { any, then: None }),
                End::Other(effect) => Ok(Fetched {
                    any,
                    then: Some(effect),
                }),
                End::Large { number } if large.is_none() => {
                    self.limits.alone_up_to = Some(number.saturating_add(WINDOW - 1));
                    Ok(Fetched {
                        any: true,
                        then: None,
                    })
                }
                End::Large { .. } => Err(Halt::Rpc(ClientError::TooLarge(ANSWER_MAX).into())),
                End::Failed(error) => Err(Halt::Rpc(error)),
            };
        }
    }
}

impl Limits {
    /// The permit for large answers, if the blocks from this one on are asked for one at a time.
    async fn alone(&mut self, first: u64) -> Option<SemaphorePermit<'static>> {
        if self.alone_up_to.is_some_and(|last| first <= last) {
            // The semaphore is never closed.
            return LARGE.acquire().await.ok();
        }
        self.alone_up_to = None;
        None
    }
}

/// Takes answers until there is a window of blocks, or enough bytes of them, or an end.
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
            // A node may not have yet, or no longer, what its head promised.
            Some((_, Ok(None))) | None => return Batch::last(steps, End::Over),
            Some((number, Err(RpcError::Client(ClientError::TooLarge(_))))) => {
                return Batch::last(steps, End::Large { number });
            }
            Some((_, Err(error))) => return Batch::last(steps, End::Failed(error)),
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
