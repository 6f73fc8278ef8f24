//! Blocks of an Ethereum node, by JSON-RPC over HTTP.
//!
//! This client replaces alloy's provider: answers must be bounded in size while they are read,
//! connections must be bounded in number, errors must not carry the URL (its path is often an API key),
//! and only two methods are needed of a provider. The header type is alloy's: every header is rebuilt and hashed,
//! and a node that announces another hash is not believed, unless the source says so.

mod answer;
mod begin;
mod block;
mod client;
mod connections;
mod depth;
mod explained;
mod fetch;
mod nodes;
mod number;
mod patiences;
mod progress;
mod reset;
mod rpc;
mod turn;

use super::ended::{Ended, OUT_OF_REACH_MAX};
use crate::{
    decide::{
        begin::Begin,
        follow::{Effect, Event, Follower, Stuck},
        still::Still,
    },
    publisher::{Deposed, Publisher, Wishes, resume::Opened},
    status::{Status, Trouble},
};
use block::FetchedBlock;
use explained::Explained;
use nodes::{Failed, Nodes};
use progress::{Fetched, Limits};
use push0_bus::Backoff;
use push0_domain::pipeline::{EthereumSource, Start};
use push0_runtime::Shutdown;
use std::time::Duration;
use tokio::time::Instant;
use turn::Turns;

/// Shortest and longest pause between retries; a node that recovers is noticed within the longest pause.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// Interval between looks for an operator's wish to go back.
const RESET_POLL: Duration = Duration::from_secs(1);

/// The access to the nodes that supply a pipeline's blocks.
pub(super) struct Node {
    source: EthereumSource,
    /// The clients, or the problem with a URL.
    nodes: Result<Nodes, String>,
}

/// Reasons why a look at the node ended early.
enum Halt {
    Deposed(Deposed),
    /// The node did not return its newest block.
    Head(Failed),
    Node(Failed),
    Stuck(Stuck),
    /// The node does not yet have a block that the pipeline needs.
    Wait(Trouble, String),
    /// The work begins again from the stored state.
    Again,
}

impl From<Deposed> for Halt {
    fn from(deposed: Deposed) -> Self {
        Self::Deposed(deposed)
    }
}

struct Ethereum<'a> {
    source: &'a EthereumSource,
    nodes: &'a Nodes,
    follower: Follower,
    publisher: Publisher,
    limits: Limits,
    turns: Turns,
    stop: &'a Shutdown,
    begin: Begin,
    opened_at: Instant,
    /// When a wish to go back was last looked for.
    asked_at: Option<Instant>,
    stuck: Explained,
    still: Still,
    /// The number of the newest block at the last look.
    head: Option<u64>,
    /// The block that the node did not have at the last look, although its newest block was not below.
    lacks: Option<u64>,
}

impl Node {
    pub(super) fn new(source: &EthereumSource, status: &Status) -> Self {
        Self {
            source: source.clone(),
            nodes: Nodes::new(source, &status.connections_opened()),
        }
    }

    /// Returns the number of published blocks to remember.
    pub(super) fn depth(&self) -> usize {
        usize::try_from(self.source.depth).unwrap_or(usize::MAX)
    }

    /// Waits until a node returns its newest block.
    pub(super) async fn reach(&self, status: &mut Status) {
        let nodes = match &self.nodes {
            Ok(nodes) => nodes,
            Err(reason) => {
                status.blocked(Trouble::Node, reason);
                return std::future::pending().await;
            }
        };
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        while let Err(failed) = nodes.head().await {
            status.failing(Trouble::Node, &failed.to_string());
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
        if let Some(next) = history.next() {
            tracing::info!(pipeline = %publisher.status.pipeline(), next, "ingesting from this block on");
        }
        let nodes = match &self.nodes {
            Ok(nodes) => nodes,
            Err(reason) => {
                publisher.status.blocked(Trouble::Node, reason);
                stop.requested().await;
                return Ok(());
            }
        };
        nodes.begin();
        let ethereum = Ethereum {
            source: &self.source,
            nodes,
            follower: Follower::new(history, self.source.confirmations),
            publisher,
            limits: Limits::default(),
            turns: Turns::new(),
            stop,
            begin: Begin::default(),
            opened_at: Instant::now(),
            asked_at: None,
            stuck: Explained::default(),
            still: Still::default(),
            head: None,
            lacks: None,
        };
        ethereum.run().await
    }
}

impl Ethereum<'_> {
    async fn run(mut self) -> Result<(), Ended> {
        let mut backoff = Backoff::new(PAUSES.0, PAUSES.1);
        while !self.stop.is_requested() {
            let next = self.follower.history().next();
            let looked = match self.reset().await {
                Ok(()) => self.look().await,
                Err(halt) => Err(halt),
            };
            let goes_on = self.follower.history().next() != next;
            let is_of_use = self.is_of_use(&looked);
            let pause = match looked {
                Ok(did_something) => {
                    backoff.reset();
                    if self.follower.is_settled() {
                        self.stuck = Explained::default();
                    }
                    // Something that seems wrong is not fine before another look.
                    if self.lacks.is_none() && self.stuck.asked == 0 {
                        self.publisher.status.fine();
                    }
                    if did_something && !self.follower.is_in_doubt() {
                        Duration::ZERO
                    } else {
                        self.source.poll
                    }
                }
                Err(Halt::Deposed(Deposed)) => return Err(Ended::Deposed),
                Err(Halt::Again) => return Err(Ended::Again),
                Err(Halt::Head(failed)) => {
                    self.fails(Trouble::Node, &failed);
                    if self.nodes.are_silent(OUT_OF_REACH_MAX) {
                        return Err(Ended::OutOfReach);
                    }
                    backoff.next_delay()
                }
                Err(Halt::Node(failed)) => {
                    self.fails(Trouble::Node, &failed);
                    backoff.next_delay()
                }
                Err(Halt::Wait(trouble, reason)) => {
                    self.publisher.status.failing(trouble, &reason);
                    self.source.poll
                }
                Err(Halt::Stuck(stuck)) => self.is_stuck(stuck, &mut backoff).await,
            };
            if goes_on || is_of_use == Some(true) {
                self.nodes.worked();
            } else if is_of_use == Some(false) && self.nodes.are_futile() {
                return Err(Ended::OfNoUse(self.nodes.shown().to_owned()));
            }
            tokio::select! {
                () = self.stop.requested() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
        Ok(())
    }

    /// Returns whether the node is as far as the published blocks, goes on, and gave what was asked for; `None` if this look
    /// does not tell.
    fn is_of_use(&self, looked: &Result<bool, Halt>) -> Option<bool> {
        let next = self.follower.history().next().unwrap_or_default();
        let is_behind = self.head.is_some_and(|head| head.saturating_add(1) < next);
        let is_stale = self.still.lasts(self.opened_at.elapsed()) > self.source.stale_after;
        match looked {
            Ok(false) => Some(!is_behind && !is_stale && self.lacks.is_none()),
            // Where to begin is decided by other times.
            Err(Halt::Node(_)) if next > 0 => Some(false),
            Err(Halt::Stuck(Stuck::Behind { .. })) => Some(false),
            _ => None,
        }
    }

    fn fails(&mut self, trouble: Trouble, failed: &Failed) {
        self.publisher.status.failing(trouble, &failed.to_string());
    }

    /// Reads the node's head once and carries out the consequences. Returns whether anything was done;
    /// then there may be more to do.
    async fn look(&mut self) -> Result<bool, Halt> {
        let Some(head) = self.head().await? else {
            return Ok(false);
        };
        self.publisher.status.head(head.link.block.number);
        self.head = Some(head.link.block.number);
        if self.still.looked(head.link.block, self.opened_at.elapsed()) {
            self.nodes.leave(&"its newest block stands still");
        }
        self.may_begin(&head).await?;
        let wishes = self.publisher.wishes();
        let mut did_something = false;
        let mut next = self.follower.step(Event::Head(head.link.block)).pop();
        while let Some(effect) = next.take() {
            match effect {
                Effect::Fetch { first, last } => {
                    let nodes = self.nodes;
                    let Fetched { any, then, lacks } = tokio::select! {
                        fetched = self.fetch(first, last, &head) => fetched?,
                        failed = falls_silent(nodes) => return Err(Halt::Head(failed)),
                        () = wished(&wishes) => return Err(Halt::Again),
                    };
                    did_something |= any;
                    next = then;
                    self.lacks(lacks)?;
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

    /// Notes the block that a node does not have. Behind a load balancer a node may lag, so one look is not enough for a
    /// failure.
    fn lacks(&mut self, lacks: Option<u64>) -> Result<(), Halt> {
        let before = std::mem::replace(&mut self.lacks, lacks);
        match lacks {
            Some(number) if before == lacks => {
                // The next node has two looks as well.
                self.lacks = None;
                Err(Halt::Node(self.nodes.lacks(number)))
            }
            _ => Ok(()),
        }
    }

    /// Requests the node's newest block. Returns `None` if the stop is requested.
    async fn head(&mut self) -> Result<Option<FetchedBlock>, Halt> {
        tokio::select! {
            () = self.stop.requested() => Ok(None),
            answer = self.nodes.head() => answer.map(Some).map_err(Halt::Head),
        }
    }
}

/// Returns once an operator wishes to go back. Blocks may wait for room meanwhile, or for their turn.
async fn wished(wishes: &Wishes) {
    loop {
        tokio::time::sleep(RESET_POLL).await;
        // Without an answer of the broker, the wish waits.
        if let Ok(true) = wishes.are_open().await {
            return;
        }
    }
}

/// Polls the node's head while blocks are fetched, and returns an error once the node is out of reach. Otherwise a
/// node that was cut off would cost the timeouts of two requests in sequence.
async fn falls_silent(nodes: &Nodes) -> Failed {
    tokio::time::sleep(OUT_OF_REACH_MAX).await;
    loop {
        match nodes.head().await {
            Ok(_) => tokio::time::sleep(OUT_OF_REACH_MAX).await,
            Err(failed) if nodes.are_silent(OUT_OF_REACH_MAX) => return failed,
            Err(_) => tokio::time::sleep(PAUSES.0).await,
        }
    }
}
