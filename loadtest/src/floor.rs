//! The floor: the cheapest pipeline of the same shape in bare JetStream.
//!
//! The floor has as many hops as push0 and messages of the sizes measured on push0's own. Each hop is a
//! process that takes a message from a file-backed work queue, stores the next message, and acknowledges once
//! the broker has confirmed the store. The floor makes no decisions, keeps no state, guarantees no order and
//! survives no failure. The difference between push0 and the floor is the price of these properties.

use anyhow::Context as _;
use async_nats::{
    Client, ConnectOptions,
    jetstream::{
        self, Message,
        consumer::{AckPolicy, pull},
        context::PublishAckFuture,
        stream::{Config, RetentionPolicy, StorageType},
    },
};
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use push0_bus::now;
use push0_domain::subject::{self, Kind};
use push0_harness::Process;
use std::{
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::time::Instant;

use crate::stand::{Arrivals, Stand};

/// Most publishes in flight, as in push0's services.
const IN_FLIGHT_MAX: usize = 1024;
/// Number of messages in a pull request, as in push0's services.
const BATCH: usize = 512;
/// Length of the head of a body: the message's number and three instants in nanoseconds. The instants are
/// the store of the first message, the store of the first hop's message, and the receipt of that message by
/// the second hop.
const HEAD: usize = 32;

/// Arguments of a relay process.
#[derive(Clone, Debug)]
pub(crate) struct Relay {
    /// The broker's URL.
    pub(crate) url: String,
    /// File with the user's seed, if the broker has users.
    pub(crate) nkey: Option<PathBuf>,
    /// The hop's number: the relay reads from this stream and stores into the next one.
    pub(crate) hop: usize,
    /// Length in bytes of the messages that the relay stores.
    pub(crate) bytes: usize,
}

/// Milestones of a message, in microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passed {
    /// The broker stored the first message.
    pub(crate) first: u64,
    /// The broker stored the message of the first hop.
    pub(crate) second: u64,
    /// The second hop received the message of the first hop.
    pub(crate) received: u64,
    /// The broker stored the last message.
    pub(crate) last: u64,
}

impl Passed {
    /// Returns the time from the first store to the last.
    pub(crate) fn whole(&self) -> u64 {
        self.last.saturating_sub(self.first)
    }

    /// Returns the time of one bare hop, from stored to received.
    pub(crate) fn hop(&self) -> u64 {
        self.received.saturating_sub(self.second)
    }
}

/// A running floor and its relays.
pub(crate) struct Floor {
    context: jetstream::Context,
    hops: usize,
    bytes: usize,
    next: u64,
    _relays: Vec<Process>,
}

fn stream_of(hop: usize) -> String {
    format!("FLOOR_{hop}")
}

fn subject_of(hop: usize) -> String {
    format!("floor.{hop}")
}

async fn connect(url: &str, nkey: Option<&Path>) -> anyhow::Result<Client> {
    let options = match nkey {
        Some(file) => ConnectOptions::with_nkey(std::fs::read_to_string(file)?.trim().to_owned()),
        None => ConnectOptions::new(),
    };
    Ok(options.connect(url).await?)
}

async fn context(url: &str, nkey: Option<&Path>) -> anyhow::Result<jetstream::Context> {
    let client = connect(url, nkey).await?;
    Ok(jetstream::context::ContextBuilder::new()
        .max_ack_inflight(4 * IN_FLIGHT_MAX)
        .backpressure_on_inflight(true)
        .build(client))
}

impl Floor {
    /// Starts a floor beside a stand. The first of `sizes` is the size of the block's message, and each other
    /// one is the size that a hop stores. The relays reach the broker in the same way as the services.
    pub(crate) async fn start(stand: &Stand, sizes: &[usize]) -> anyhow::Result<Self> {
        let url = stand.deployment.url();
        let nkey = stand.deployment.seed("test");
        let context = context(&stand.deployment.nats.first().url(), nkey.as_deref()).await?;
        let hops = sizes.len() - 1;
        for hop in 0..=hops {
            let last = hop == hops;
            let config = Config {
                name: stream_of(hop),
                subjects: vec![subject_of(hop)],
                storage: StorageType::File,
                retention: if last {
                    RetentionPolicy::Limits
                } else {
                    RetentionPolicy::WorkQueue
                },
                allow_direct: true,
                ..Config::default()
            };
            context.create_stream(config).await?;
        }
        let relay = |hop: usize| {
            let relay = Process::program("push0-loadtest")
                .label(&format!("relay-{hop}"))
                .arg("relay")
                .arg(format!("--url={url}"))
                .arg(format!("--hop={hop}"))
                .arg(format!("--bytes={}", sizes[hop + 1]));
            let relay = match &nkey {
                Some(file) => relay.arg(format!("--nkey={}", file.display())),
                None => relay,
            };
            relay.start()
        };
        let relays = (0..hops).map(relay).collect();
        let mut floor = Self {
            context,
            hops,
            bytes: sizes[0],
            next: 0,
            _relays: relays,
        };
        floor
            .run(20, Arrivals::AtOnce)
            .await
            .context("the floor does not work")?;
        Ok(floor)
    }

    /// Sends `count` messages as scheduled and waits for all of them.
    pub(crate) async fn run(&mut self, count: u64, arrivals: Arrivals) -> anyhow::Result<Vec<Passed>> {
        let numbers = self.next..self.next + count;
        self.next += count;
        let start = Instant::now();
        let mut flying: FuturesUnordered<_> = FuturesUnordered::new();
        for (number, at) in numbers.clone().zip(arrivals.schedule(count)) {
            tokio::time::sleep_until(start + at).await;
            if flying.len() >= IN_FLIGHT_MAX {
                flying.next().await.transpose()?;
            }
            let ack = self
                .context
                .publish(subject_of(0), message([number, 0, 0, 0], self.bytes))
                .await?;
            flying.push(ack.into_future());
            while let Some(Some(stored)) = flying.next().now_or_never() {
                stored?;
            }
        }
        while let Some(stored) = flying.next().await {
            stored?;
        }
        let last = self.context.get_stream(stream_of(self.hops)).await?;
        let end = Instant::now() + Duration::from_secs(60);
        while last.get_info().await?.state.messages < count {
            anyhow::ensure!(Instant::now() < end, "the floor lost messages");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let times = self.times(&last, count).await?;
        last.purge().await?;
        Ok(times)
    }

    async fn times(&self, last: &jetstream::stream::Stream, count: u64) -> anyhow::Result<Vec<Passed>> {
        let reader = last
            .create_consumer(pull::OrderedConfig::default())
            .await?
            .messages()
            .await?;
        let times = reader.take(usize::try_from(count)?).map(|message| {
            let message = message?;
            let [_, first, second, received] = head(&message.payload);
            Ok(Passed {
                first: first / 1000,
                second: second / 1000,
                received: received / 1000,
                last: stored_ns(&message)? / 1000,
            })
        });
        times
            .collect::<Vec<anyhow::Result<_>>>()
            .await
            .into_iter()
            .collect()
    }
}

/// Returns the sizes of push0's own messages on the path of a block, headers included, as observed
/// on one block.
pub(crate) async fn sizes(stand: &mut Stand, verify: bool) -> anyhow::Result<Vec<usize>> {
    let kinds: &[Kind] = if verify {
        &[Kind::Block, Kind::Task, Kind::Check, Kind::Verdict, Kind::Proof]
    } else {
        &[Kind::Block, Kind::Task, Kind::Result, Kind::Proof]
    };
    let nkey = stand.deployment.seed("test");
    let client = connect(&stand.deployment.nats.first().url(), nkey.as_deref()).await?;
    let mut heard = Vec::new();
    for kind in kinds {
        heard.push(client.subscribe(subject::all(*kind)).await?);
    }
    client.flush().await?;
    stand.run(1, Arrivals::AtOnce).await?;
    let mut sizes = Vec::new();
    for (subscriber, kind) in heard.iter_mut().zip(kinds) {
        let message = tokio::time::timeout(Duration::from_secs(5), subscriber.next()).await;
        let message = message
            .ok()
            .flatten()
            .with_context(|| format!("no {kind:?} passed"))?;
        sizes.push(message.length);
    }
    Ok(sizes)
}

/// Runs a relay process; returns only with an error.
pub(crate) async fn relay(relay: &Relay) -> anyhow::Result<()> {
    let context = context(&relay.url, relay.nkey.as_deref()).await?;
    let stream = context.get_stream(stream_of(relay.hop)).await?;
    let config = pull::Config {
        durable_name: Some("relay".into()),
        ack_policy: AckPolicy::Explicit,
        max_ack_pending: 200_000,
        ..pull::Config::default()
    };
    let consumer = stream.create_consumer(config).await?;
    let incoming = consumer
        .stream()
        .max_messages_per_batch(BATCH)
        .expires(Duration::from_secs(20));
    let mut incoming = incoming.heartbeat(Duration::from_secs(5)).messages().await?;
    let mut flying: FuturesUnordered<BoxFuture<'static, anyhow::Result<()>>> = FuturesUnordered::new();
    loop {
        let room = flying.len() < IN_FLIGHT_MAX;
        tokio::select! {
            biased;
            Some(done) = flying.next() => done?,
            message = incoming.next(), if room => {
                let message = message.context("the consumer ended")??;
                let mut head = head(&message.payload);
                match relay.hop {
                    0 => head[1] = stored_ns(&message)?,
                    1 => head[2..].copy_from_slice(&[stored_ns(&message)?, now().0 * 1000]),
                    _ => {}
                }
                let body = self::message(head, relay.bytes);
                let ack = context.publish(subject_of(relay.hop + 1), body).await?;
                flying.push(done(message, ack).boxed());
            }
        }
    }
}

async fn done(message: Message, ack: PublishAckFuture) -> anyhow::Result<()> {
    ack.await?;
    message.ack().await.map_err(|e| anyhow::anyhow!("{e}"))
}

fn message(head: [u64; 4], bytes: usize) -> Bytes {
    let mut body = vec![0x5a; bytes.max(HEAD)];
    for (place, value) in body.chunks_exact_mut(8).zip(head) {
        place.copy_from_slice(&value.to_le_bytes());
    }
    body.into()
}

fn head(body: &[u8]) -> [u64; 4] {
    let mut words = body
        .chunks_exact(8)
        .map(|word| word.try_into().unwrap_or_default());
    std::array::from_fn(|_| u64::from_le_bytes(words.next().unwrap_or_default()))
}

fn stored_ns(message: &Message) -> anyhow::Result<u64> {
    let info = message.info().map_err(|e| anyhow::anyhow!("{e}"))?;
    Ok(u64::try_from(info.published.unix_timestamp_nanos())?)
}
