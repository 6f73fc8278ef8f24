//! Blocks of an Ethereum node, by JSON-RPC over HTTP.
//!
//! The client is our own rather than alloy's provider: answers must be bounded in size while they are
//! read, errors must not carry the URL (its path is often an API key), and of all that a provider does
//! only `eth_getBlockByNumber` is needed. From alloy comes the header type, with which every header
//! is rebuilt and hashed: a node that announces another hash is not believed.

mod block;
mod client;
mod rpc;

use crate::{
    decide::follow::{Effect, Event, Follower, Stuck},
    publisher::{Deposed, NewBlock, Opened, Publisher, Step},
    status::Trouble,
};
use block::FetchedBlock;
use bytes::Bytes;
use futures::{StreamExt, stream};
use push0_bus::Backoff;
use push0_domain::pipeline::{EthereumSource, Start, Witness};
use push0_runtime::Shutdown;
use rpc::{Number, Rpc, RpcError};
use std::time::Duration;

/// How many blocks are asked for at once while catching up.
const REQUESTS_MAX: usize = 4;
/// How many bytes of witnesses are collected before they are published.
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// The longest pause between tries: a node that comes back is noticed within it.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// Why a look at the node ended early.
enum Halt {
    Deposed(Deposed),
    Rpc(RpcError),
    Stuck(Stuck),
}

impl From<Deposed> for Halt {
    fn from(deposed: Deposed) -> Self {
        Self::Deposed(deposed)
    }
}

impl From<RpcError> for Halt {
    fn from(error: RpcError) -> Self {
        Self::Rpc(error)
    }
}

struct Ethereum<'a> {
    source: &'a EthereumSource,
    rpc: Rpc,
    follower: Follower,
    publisher: Publisher,
    stop: &'a Shutdown,
}

pub(super) async fn run(source: &EthereumSource, opened: Opened, stop: &Shutdown) -> Result<(), Deposed> {
    let Opened {
        mut publisher,
        mut history,
    } = opened;
    if let Start::Number(first) = source.start {
        // Of no effect once the pipeline has begun.
        history.start_at(first);
    }
    let rpc = match Rpc::new(&source.rpc_url) {
        Ok(rpc) => rpc,
        Err(reason) => {
            publisher.status.blocked(Trouble::Node, &reason);
            stop.requested().await;
            return Ok(());
        }
    };
    let mut ethereum = Ethereum {
        source,
        rpc,
        follower: Follower::new(history, source.confirmations),
        publisher,
        stop,
    };
    let mut backoff = Backoff::new(Duration::from_millis(250), PAUSE_MAX);
    while !stop.is_requested() {
        let pause = match ethereum.look().await {
            Ok(did_something) => {
                backoff.reset();
                ethereum.publisher.status.fine();
                if did_something {
                    Duration::ZERO
                } else {
                    source.poll
                }
            }
            Err(Halt::Deposed(deposed)) => return Err(deposed),
            Err(Halt::Rpc(error)) => {
                let reason = format!("{}: {error}", ethereum.rpc.shown());
                ethereum.publisher.status.failing(Trouble::Node, &reason);
                backoff.next_delay()
            }
            Err(Halt::Stuck(stuck)) => {
                let reason = format!("{}: {stuck}", ethereum.rpc.shown());
                ethereum.publisher.status.failing(Trouble::Chain, &reason);
                PAUSE_MAX
            }
        };
        tokio::select! {
            () = stop.requested() => {}
            () = tokio::time::sleep(pause) => {}
        }
    }
    Ok(())
}

impl Ethereum<'_> {
    /// Looks at the node once and does what follows. Says whether that was anything: then there may
    /// be more.
    async fn look(&mut self) -> Result<bool, Halt> {
        let Some(head) = self.ask(Number::Latest, false).await? else {
            return Ok(false);
        };
        self.publisher.status.head(head.link.block.number);
        let mut did_something = false;
        let mut next = self.follower.step(Event::Head(head.link.block)).pop();
        while let Some(effect) = next.take() {
            match effect {
                Effect::Fetch { first, last } => {
                    let (acted, more) = self.fetch(first, last, &head).await?;
                    did_something |= acted;
                    next = more;
                }
                Effect::Stuck(stuck) => return Err(Halt::Stuck(stuck)),
                Effect::Act(_) => {}
            }
            if self.stop.is_requested() {
                break;
            }
        }
        Ok(did_something)
    }

    /// Fetches blocks and publishes what the follower makes of them. Returns whether that was
    /// anything, and what the follower wants instead of the rest.
    async fn fetch(
        &mut self,
        first: u64,
        last: u64,
        head: &FetchedBlock,
    ) -> Result<(bool, Option<Effect>), Halt> {
        let full = self.source.witness == Witness::Block;
        let rpc = &self.rpc;
        let fetch = |number| async move {
            // The head is here already, unless its transactions are wanted.
            if number == head.link.block.number && !full {
                return Ok(Some(head.clone()));
            }
            rpc.block(Number::At(number), full).await
        };
        let mut blocks = stream::iter(first..=last).map(fetch).buffered(REQUESTS_MAX);
        let (mut acted, mut steps, mut bytes) = (false, Vec::new(), 0);
        let mut ended = Ok(None);
        loop {
            let answer = tokio::select! {
                () = self.stop.requested() => break,
                answer = blocks.next() => answer,
            };
            let block = match answer {
                Some(Ok(Some(block))) => block,
                // A node may not have yet, or no longer, what its head promised.
                Some(Ok(None)) | None => break,
                Some(Err(error)) => {
                    ended = Err(Halt::Rpc(error));
                    break;
                }
            };
            let witness = witness(self.source.witness, &block);
            for effect in self.follower.step(Event::Block(block.link)) {
                match effect {
                    Effect::Act(action) => {
                        bytes += witness.len();
                        steps.push(Step::of(action, |link| {
                            NewBlock::observed(&self.publisher.status, link, block.facts, witness.clone())
                        }));
                    }
                    other => ended = Ok(Some(other)),
                }
            }
            if !matches!(ended, Ok(None)) {
                break;
            }
            if bytes >= BATCH_BYTES {
                acted = true;
                bytes = 0;
                self.publisher.commit(std::mem::take(&mut steps)).await?;
            }
        }
        acted |= !steps.is_empty();
        // Also what came before a failure: the follower counts it as published.
        self.publisher.commit(steps).await?;
        ended.map(|next| (acted, next))
    }

    async fn ask(&self, number: Number, full: bool) -> Result<Option<FetchedBlock>, Halt> {
        tokio::select! {
            () = self.stop.requested() => Ok(None),
            block = self.rpc.block(number, full) => Ok(block?),
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
