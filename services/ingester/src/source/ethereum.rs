//! Blocks of an Ethereum node, by JSON-RPC over HTTP.
//!
//! This client replaces alloy's provider: answers must be bounded in size while they are read,
//! connections must be bounded in number, errors must not carry the URL (its path is often an API key),
//! and only `eth_getBlockByNumber` is needed of a provider. The header type is alloy's: every header is
//! rebuilt and hashed, and a node that announces another hash is not believed.

mod answer;
mod block;
mod client;
mod connections;
mod fetch;
mod number;
mod progress;
mod rpc;

use super::ended::{Ended, OUT_OF_REACH_MAX};
use crate::{
    decide::follow::{Effect, Event, Follower, Stuck},
    publisher::{Deposed, Publisher, resume::Opened},
    status::{Status, Trouble},
};
use answer::ANSWER_MAX;
use block::FetchedBlock;
use number::Number;
use progress::{Fetched, Limits};
use push0_bus::Backoff;
use push0_domain::pipeline::{EthereumSource, Start};
use push0_runtime::Shutdown;
use rpc::{Rpc, RpcError};
use std::time::Duration;
use tokio::time::Instant;

/// Shortest and longest pause between retries; a node that recovers is noticed within the longest pause.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// A node that supplies a pipeline's blocks.
pub(super) struct Node {
    source: EthereumSource,
    /// The client, or the problem with the URL.
    rpc: Result<Rpc, String>,
}

/// Reasons why a look at the node ended early.
enum Halt {
    Deposed(Deposed),
    /// The node did not return its newest block.
    Head(RpcError),
    Rpc(RpcError),
    Stuck(Stuck),
}

impl From<Deposed> for Halt {
    fn from(deposed: Deposed) -> Self {
        Self::Deposed(deposed)
    }
}

struct Ethereum<'a> {
    source: &'a EthereumSource,
    rpc: &'a Rpc,
    follower: Follower,
    publisher: Publisher,
    limits: Limits,
    stop: &'a Shutdown,
    /// Time of the last answer to `head`, the request for the newest block.
    answered_at: Instant,
}

impl Node {
    pub(super) fn new(source: &EthereumSource, status: &Status) -> Self {
        Self {
            source: source.clone(),
            rpc: Rpc::new(&source.rpc_url, status.connections_opened()),
        }
    }

    /// Waits until the node returns its newest block.
    pub(super) async fn reach(&self, status: &mut Status) {
        let rpc = match &self.rpc {
            Ok(rpc) => rpc,
            Err(reason) => {
                status.blocked(Trouble::Node, reason);
                return std::future::pending().await;
            }
        };
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        while let Err(error) = rpc.block(Number::Latest, false, ANSWER_MAX).await {
            status.failing(Trouble::Node, &format!("{}: {error}", rpc.shown()));
            backoff.pause().await;
        }
    }

    pub(super) async fn run(&self, opened: Opened, stop: &Shutdown) -> Result<(), Ended> {
        let Opened {
            mut publisher,
            mut history,
        } = opened;
        if let Start::Number(first) = self.source.start {
            // Has no effect once the pipeline has begun.
            history.start_at(first);
        }
        let rpc = match &self.rpc {
            Ok(rpc) => rpc,
            Err(reason) => {
                publisher.status.blocked(Trouble::Node, reason);
                stop.requested().await;
                return Ok(());
            }
        };
        let ethereum = Ethereum {
            source: &self.source,
            rpc,
            follower: Follower::new(history, self.source.confirmations),
            publisher,
            limits: Limits::default(),
            stop,
            answered_at: Instant::now(),
        };
        ethereum.run().await
    }
}

impl Ethereum<'_> {
    async fn run(mut self) -> Result<(), Ended> {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        while !self.stop.is_requested() {
            let pause = match self.look().await {
                Ok(did_something) => {
                    backoff.reset();
                    self.publisher.status.fine();
                    if did_something {
                        Duration::ZERO
                    } else {
                        self.source.poll
                    }
                }
                Err(Halt::Deposed(Deposed)) => return Err(Ended::Deposed),
                Err(Halt::Head(error)) => {
                    self.fails(Trouble::Node, &error);
                    if self.answered_at.elapsed() >= OUT_OF_REACH_MAX {
                        return Err(Ended::OutOfReach);
                    }
                    backoff.next_delay()
                }
                Err(Halt::Rpc(error)) => {
                    self.fails(Trouble::Node, &error);
                    backoff.next_delay()
                }
                Err(Halt::Stuck(stuck)) => {
                    self.fails(Trouble::Chain, &stuck);
                    PAUSES.1
                }
            };
            tokio::select! {
                () = self.stop.requested() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        Ok(())
    }

    fn fails(&mut self, trouble: Trouble, reason: &dyn std::fmt::Display) {
        let reason = format!("{}: {reason}", self.rpc.shown());
        self.publisher.status.failing(trouble, &reason);
    }

    /// Reads the node's head once and carries out the consequences. Returns whether anything was done;
    /// then there may be more to do.
    async fn look(&mut self) -> Result<bool, Halt> {
        let Some(head) = self.head().await? else {
            return Ok(false);
        };
        self.publisher.status.head(head.link.block.number);
        let mut did_something = false;
        let mut next = self.follower.step(Event::Head(head.link.block)).pop();
        while let Some(effect) = next.take() {
            match effect {
                Effect::Fetch { first, last } => {
                    let rpc = self.rpc;
                    let Fetched { any, then } = tokio::select! {
                        fetched = self.fetch(first, last, &head) => fetched?,
                        error = falls_silent(rpc) => return Err(Halt::Head(error)),
                    };
                    did_something |= any;
                    next = then;
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

    /// Requests the node's newest block. Returns `None` if the stop is requested or the node
    /// has no block.
    async fn head(&mut self) -> Result<Option<FetchedBlock>, Halt> {
        let answer = tokio::select! {
            () = self.stop.requested() => return Ok(None),
            answer = self.rpc.block(Number::Latest, false, ANSWER_MAX) => answer,
        };
        let head = answer.map_err(Halt::Head)?;
        self.answered_at = Instant::now();
        Ok(head)
    }
}

/// Polls the node's head while blocks are fetched, and returns the first error. Otherwise a node that was
/// cut off would cost the timeouts of two requests in sequence.
async fn falls_silent(rpc: &Rpc) -> RpcError {
    loop {
        tokio::time::sleep(OUT_OF_REACH_MAX).await;
        if let Err(error) = rpc.block(Number::Latest, false, ANSWER_MAX).await {
            return error;
        }
    }
}
