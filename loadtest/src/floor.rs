//! The floor: the cheapest pipeline of the same shape that JetStream itself can be.
//!
//! As many hops, messages of the sizes measured on push0's own, each hop a process that takes a
//! message from a file-backed work queue, stores the next one and acknowledges when the broker has
//! said that it is stored. It decides nothing, keeps nothing, emits in no order and survives
//! nothing: what push0 costs above it is the price of what push0 does.

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

/// The most publishes on their way, in push0's services as here.
const IN_FLIGHT_MAX: usize = 1024;
/// How many messages are asked for at once, as push0's services do.
const BATCH: usize = 512;
/// A body begins with the message's number and three instants in nanoseconds: when the broker stored
/// its first form, when it stored what the first hop made of it, and when the second hop had that.
const HEAD: usize = 32;

/// What a relay process is told.
#[derive(Clone, Debug)]
pub(crate) struct Relay {
    /// The broker.
    pub(crate) url: String,
    /// The file with the seed of the user, if the broker has users.
    pub(crate) nkey: Option<PathBuf>,
    /// From which stream; it stores into the next one.
    pub(crate) hop: usize,
    /// How long the messages are that it stores.
    pub(crate) bytes: usize,
}

/// What became of one message, in microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Passed {
    /// When the broker stored it.
    pub(crate) first: u64,
    /// When the broker stored what the first hop made of it.
    pub(crate) second: u64,
    /// When the second hop had that.
    pub(crate) received: u64,
    /// When the broker stored its last form.
    pub(crate) last: u64,
}

impl Passed {
    /// From stored to stored.
    pub(crate) fn whole(&self) -> u64 {
        self.last.saturating_sub(self.first)
    }

    /// One bare hop: from stored to received.
    pub(crate) fn hop(&self) -> u64 {
        self.received.saturating_sub(self.second)
    }
}

/// A floor that stands.
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
    /// Starts a floor beside a stand: the first of `sizes` is the block's message, each other one
    /// what a hop stores. Its relays reach the broker as the services do.
    pub(crate) async fn start(stand: &Stand, sizes: &[usize]) -> anyhow::Result<Self> {
        let url = stand.deployment.url();
        let nkey = stand.deployment.seed("test");
        let context = context(&stand.deployment.nats.url(), nkey.as_deref()).await?;
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

    /// Sends `count` messages as scheduled and waits for all.
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

/// The sizes of push0's own messages on the path of a block, headers included: heard from a block.
pub(crate) async fn sizes(stand: &mut Stand, verify: bool) -> anyhow::Result<Vec<usize>> {
    let kinds: &[Kind] = if verify {
        &[Kind::Block, Kind::Task, Kind::Check, Kind::Verdict, Kind::Proof]
    } else {
        &[Kind::Block, Kind::Task, Kind::Result, Kind::Proof]
    };
    let nkey = stand.deployment.seed("test");
    let client = connect(&stand.deployment.nats.url(), nkey.as_deref()).await?;
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

/// The whole of a relay process.
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
