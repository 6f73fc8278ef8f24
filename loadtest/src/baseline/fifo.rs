//! A JetStream work queue: blocks go in, workers take one for each free slot, results come out.

use super::worker::{INPUT, LEASE, PATIENCE, Worker};
use crate::stand::{Arrivals, Done};
use anyhow::Context as _;
use async_nats::jetstream::{
    self,
    consumer::{AckPolicy, PullConsumer, pull},
    stream::{Config, RetentionPolicy},
};
use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use push0_bus::now;
use push0_harness::NatsServer;
use std::{ops::Range, time::Duration};
use tokio::{task::JoinSet, time::Instant};

const JOBS: &str = "BASELINE_JOBS";
const DONE: &str = "BASELINE_DONE";
const WORKERS: &str = "workers";
const IN_FLIGHT_MAX: usize = 1024;

pub(super) struct Fifo {
    server: NatsServer,
    context: jetstream::Context,
}

impl Fifo {
    pub(super) async fn start() -> anyhow::Result<Self> {
        let server = NatsServer::start().await;
        let context = jetstream::new(async_nats::connect(server.url()).await?);
        let jobs = context
            .create_stream(Config {
                name: JOBS.into(),
                subjects: vec!["baseline.job".into()],
                retention: RetentionPolicy::WorkQueue,
                ..Config::default()
            })
            .await?;
        jobs.create_consumer(pull::Config {
            durable_name: Some(WORKERS.into()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: LEASE,
            max_ack_pending: 100_000,
            ..pull::Config::default()
        })
        .await?;
        // The limit of one message per subject makes a block that was done twice count once.
        let done = Config {
            name: DONE.into(),
            subjects: vec!["baseline.done.*".into()],
            max_messages_per_subject: 1,
            ..Config::default()
        };
        context.create_stream(done).await?;
        Ok(Self { server, context })
    }

    pub(super) fn url(&self) -> String {
        self.server.url()
    }

    pub(super) async fn publish(&self, numbers: &[u64], arrivals: Arrivals) -> anyhow::Result<()> {
        let start = Instant::now();
        let mut flying = FuturesUnordered::new();
        for (number, at) in numbers.iter().zip(arrivals.schedule(numbers.len() as u64)) {
            tokio::time::sleep_until(start + at).await;
            if flying.len() >= IN_FLIGHT_MAX {
                flying.next().await.transpose()?;
            }
            let mut body = vec![0x5a; INPUT];
            body[..8].copy_from_slice(&number.to_le_bytes());
            let ack = self.context.publish("baseline.job", body.into()).await?;
            flying.push(ack.into_future());
            while let Some(Some(stored)) = flying.next().now_or_never() {
                stored?;
            }
        }
        while let Some(stored) = flying.next().await {
            stored?;
        }
        Ok(())
    }

    pub(super) async fn done(&self, numbers: Range<u64>) -> anyhow::Result<Vec<Done>> {
        let stream = self.context.get_stream(DONE).await?;
        let end = Instant::now() + PATIENCE;
        let wanted = numbers.end - 1;
        let mut there = 0;
        while there < wanted {
            anyhow::ensure!(Instant::now() < end, "{there} of {wanted} blocks are done");
            tokio::time::sleep(Duration::from_millis(20)).await;
            there = stream.get_info().await?.state.messages;
        }
        let reader = stream.create_consumer(pull::OrderedConfig::default()).await?;
        let mut messages = reader.messages().await?.take(usize::try_from(wanted)?);
        let mut done = Vec::new();
        while let Some(message) = messages.next().await {
            let message = message?;
            let info = message.info().map_err(|e| anyhow::anyhow!("{e}"))?;
            let stored_ns = u64::try_from(info.published.unix_timestamp_nanos())?;
            let found = decode(&message.payload, stored_ns / 1000).context("a result of ours")?;
            if numbers.contains(&found.number) {
                done.push(found);
            }
        }
        Ok(done)
    }
}

fn decode(body: &[u8], done_us: u64) -> Option<Done> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    Some(Done {
        number: body["number"].as_u64()?,
        attempt: u32::try_from(body["attempt"].as_u64()?).ok()?,
        stored_us: body["stored_us"].as_u64()?,
        released_us: body["stored_us"].as_u64()?,
        began_us: body["began_us"].as_u64()?,
        busy_us: body["busy_us"].as_u64()?,
        done_us,
    })
}

pub(super) async fn work(url: &str, worker: Worker) -> anyhow::Result<()> {
    let context = jetstream::new(async_nats::connect(url).await?);
    let stream = context.get_stream(JOBS).await?;
    let consumer: PullConsumer = stream
        .get_consumer(WORKERS)
        .await
        .map_err(|e| anyhow::anyhow!("{e}"))?;
    let mut slots = JoinSet::new();
    for _ in 0..worker.slots {
        slots.spawn(slot(context.clone(), consumer.clone(), worker.clone()));
    }
    slots
        .join_next()
        .await
        .context("a worker without slots")?
        .context("a slot")?
}

async fn slot(context: jetstream::Context, consumer: PullConsumer, worker: Worker) -> anyhow::Result<()> {
    loop {
        let batch = consumer.batch().max_messages(1).expires(Duration::from_secs(30));
        let mut batch = batch.messages().await?;
        while let Some(message) = batch.next().await {
            let message = message.map_err(|e| anyhow::anyhow!("{e}"))?;
            let (began, timer) = (now(), Instant::now());
            push0_prover_mock::sleep(worker.time).await;
            let info = message.info().map_err(|e| anyhow::anyhow!("{e}"))?;
            let number = message
                .payload
                .first_chunk()
                .map_or(0, |head| u64::from_le_bytes(*head));
            let body = serde_json::json!({
                "number": number,
                "attempt": info.delivered,
                "stored_us": u64::try_from(info.published.unix_timestamp_nanos())? / 1000,
                "began_us": began.0,
                "busy_us": u64::try_from(timer.elapsed().as_micros())?,
            });
            let subject = format!("baseline.done.{number}");
            context.publish(subject, body.to_string().into()).await?.await?;
            message.ack().await.map_err(|e| anyhow::anyhow!("{e}"))?;
        }
    }
}
