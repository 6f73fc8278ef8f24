//! A deployment to measure: real processes on their own broker, blocks in, records out.
//!
//! Blocks are published as by an external ingester: first the facts of a block, then the block. The facts of
//! a window are written before the window begins, because they are not on the path of a block and the broker
//! is measured under the traffic of blocks. Arrivals follow a schedule and do not wait for answers. So a
//! slow system does not slow the arrivals down, and a delayed block is charged from the moment at which the
//! broker stored it.

use anyhow::{Context as _, bail};
use futures::{StreamExt, TryStreamExt};
use push0_bus::{Bucket, Bus, Kept, Limits, Message, Outbox, Stream, now};
use push0_domain::{
    Announcement, Payload, PipelineId,
    message::{BlockEvent, BlockFacts, Emission, EmissionOutcome, KnownBlock, ObservedBlock},
    pipeline::Pipeline,
    subject,
};
use push0_harness::{
    Broker, Brokers, Deployment, DeploymentBuilder, NatsCluster, Process, ProcessBuilder, synthetic_block,
    synthetic_hash, synthetic_trace,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use std::{ops::Range, sync::Arc, time::Duration};
use tokio::time::Instant;

/// Number of concurrent requests to the broker.
const IN_FLIGHT: usize = 64;
/// Time limit for a publish.
const PATIENCE: Duration = Duration::from_secs(60);

/// Returns the pipeline of most scenarios: one stage, one proof.
pub(crate) fn single(verify: bool) -> String {
    let verify = if verify { "final" } else { "off" };
    format!(
        "name = \"load\"\nsource = {{ kind = \"external\" }}\n[[proof]]\ntype = \"main\"\nzkvm = \"mock\"\n\
         verify = \"{verify}\"\n[[proof.stage]]\nname = \"prove\"\nkind = \"map\"\ntimeout = \"60s\"\n"
    )
}

/// Returns a pipeline that splits a block, proves the parts and joins their proofs, each on the provers of
/// its own zkVM.
pub(crate) fn parts(split: &str, prove: &str, join: &str) -> String {
    let stage = |name, kind, zkvm| {
        format!(
            "[[proof.stage]]\nname = \"{name}\"\nkind = \"{kind}\"\nzkvm = \"{zkvm}\"\ntimeout = \"60s\"\n"
        )
    };
    let stages = [
        stage("split", "split", split),
        stage("prove", "map", prove),
        stage("join", "join", join),
    ];
    format!(
        "name = \"load\"\nsource = {{ kind = \"external\" }}\n[[proof]]\ntype = \"main\"\nzkvm = \"{prove}\"\n\
         verify = \"off\"\n{}",
        stages.concat()
    )
}

/// Returns a mock prover process.
pub(crate) fn prover(id: &str, slots: u32, time: Duration) -> ProcessBuilder {
    let time = format!("{}us", time.as_micros());
    Process::program("prover-mock")
        .label(id)
        .env("PUSH0_PROVER__ID", id)
        .env("PUSH0_PROVER__SLOTS", slots)
        .env("PUSH0_MOCK__TIME", time)
}

/// Returns a mock verifier process.
pub(crate) fn verifier(id: &str, slots: u32) -> ProcessBuilder {
    prover(id, slots, Duration::ZERO).arg("--verify")
}

/// Returns the deployment for all measurements unless a scenario says otherwise. As shipped, it has
/// two of each control service, an account for each process, JSON logs, and traces sent to an
/// address without answers.
pub(crate) fn services() -> DeploymentBuilder {
    builder().as_shipped()
}

/// Returns the quick deployment, as `push0 up` starts it: one of each service, no accounts, no traces.
pub(crate) fn quick() -> DeploymentBuilder {
    ["ingester", "dispatcher", "collector", "watchdog"]
        .into_iter()
        .fold(builder(), |builder, name| builder.service(Process::program(name)))
}

fn builder() -> DeploymentBuilder {
    Deployment::builder().limits(Limits {
        store_bytes: 4 << 30,
        ..Limits::default()
    })
}

/// A running deployment and one of its pipelines.
pub(crate) struct Stand<B: Broker = Brokers> {
    pub(crate) deployment: Deployment<B>,
    pub(crate) pipeline: Arc<Pipeline>,
    next: u64,
}

/// Arrival times of blocks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arrivals {
    /// As fast as the broker stores the blocks.
    AtOnce,
    /// At a constant interval between two blocks.
    Every(Duration),
    /// At an average rate, each block independent of the others (a Poisson process).
    Rate {
        /// Average number of blocks a second.
        per_second: f64,
        /// Seed of the gaps between blocks.
        seed: u64,
    },
}

impl Arrivals {
    /// Returns the arrival of each of `count` blocks, as time since the start of the window.
    pub(crate) fn schedule(self, count: u64) -> Vec<Duration> {
        match self {
            Self::AtOnce => vec![Duration::ZERO; usize::try_from(count).unwrap_or_default()],
            Self::Every(gap) => (0..count)
                .map(|at| gap * u32::try_from(at).unwrap_or(u32::MAX))
                .collect(),
            Self::Rate { per_second, seed } => {
                let mut chance = StdRng::seed_from_u64(seed);
                let mut at = 0.0;
                let gap = |_| {
                    let unit: f64 = chance.random_range(f64::EPSILON..1.0);
                    at -= unit.ln() / per_second;
                    Duration::from_secs_f64(at)
                };
                (0..count).map(gap).collect()
            }
        }
    }
}

impl Stand {
    /// Starts a deployment with this single pipeline.
    pub(crate) async fn start(builder: DeploymentBuilder, toml: &str) -> anyhow::Result<Self> {
        let deployment = builder.pipeline(toml).start().await;
        Self::of(deployment, &Pipeline::from_toml("load.toml", toml)?.name).await
    }
}

impl Stand<NatsCluster> {
    /// Starts a deployment like [`Stand::start`], on this many brokers.
    pub(crate) async fn start_cluster(
        builder: DeploymentBuilder,
        toml: &str,
        brokers: usize,
    ) -> anyhow::Result<Self> {
        let deployment = builder.pipeline(toml).start_cluster(brokers).await;
        Self::of(deployment, &Pipeline::from_toml("load.toml", toml)?.name).await
    }
}

impl<B: Broker> Stand<B> {
    /// Returns the stand for one pipeline of a running deployment.
    pub(crate) async fn of(deployment: Deployment<B>, name: &PipelineId) -> anyhow::Result<Self> {
        let current = deployment.pipelines().current_of(name).await?;
        Ok(Self {
            pipeline: current.context("the pipeline was applied")?,
            deployment,
            next: 1,
        })
    }

    /// Returns the load test's own connection.
    pub(crate) fn bus(&self) -> &Bus {
        self.deployment.bus()
    }

    /// Writes the facts of the next `count` blocks, and returns the numbers of the blocks.
    pub(crate) async fn known(&mut self, count: u64) -> anyhow::Result<Range<u64>> {
        let numbers = self.next..self.next + count;
        self.next += count;
        know(self.bus(), &self.pipeline, numbers.clone()).await?;
        Ok(numbers)
    }

    /// Publishes blocks with known facts as scheduled.
    pub(crate) async fn publish(&self, numbers: &[u64], arrivals: Arrivals) -> anyhow::Result<()> {
        publish(self.bus(), &self.pipeline, numbers, arrivals).await
    }

    /// Publishes `count` blocks and waits until all of them are emitted.
    pub(crate) async fn run(
        &mut self,
        count: u64,
        arrivals: Arrivals,
    ) -> anyhow::Result<Vec<Kept<Emission>>> {
        let numbers = self.known(count).await?;
        let listed: Vec<u64> = numbers.clone().collect();
        self.publish(&listed, arrivals).await?;
        self.emitted(numbers, PATIENCE).await
    }

    /// Returns the records of these blocks, as soon as all of them exist.
    pub(crate) async fn emitted(
        &self,
        numbers: Range<u64>,
        patience: Duration,
    ) -> anyhow::Result<Vec<Kept<Emission>>> {
        wait_emitted(self.bus(), &self.pipeline.name, numbers.end - 1, patience).await?;
        let found = futures::stream::iter(numbers.map(|number| subject::proof(&self.pipeline.name, number)))
            .map(|subject| async move { self.bus().last::<Emission>(Stream::Proofs, &subject).await })
            .buffered(IN_FLIGHT)
            .try_collect::<Vec<_>>()
            .await?;
        found
            .into_iter()
            .map(|kept| kept.context("a block without a record"))
            .collect()
    }
}

/// Waits until a process ends because a living process has its name.
pub(crate) async fn refused(twin: &Process, within: Duration) -> anyhow::Result<()> {
    let end = Instant::now() + within;
    while twin.is_running() {
        if Instant::now() > end {
            bail!("{} runs although a living process has its name", twin.label());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let log = twin.log();
    if !log.contains("is taken by") {
        bail!("{} did not end because of its name: {log}", twin.label());
    }
    Ok(())
}

/// Waits until block `number` and all blocks before it are emitted.
pub(crate) async fn wait_emitted(
    bus: &Bus,
    pipeline: &PipelineId,
    number: u64,
    patience: Duration,
) -> anyhow::Result<()> {
    let end = Instant::now() + patience;
    loop {
        // The exact subject is cheap for the broker, while a wildcard would make it scan all records. A
        // broker that was just restarted may not answer at once.
        let subject = subject::proof(pipeline, number);
        let record = bus.last::<Emission>(Stream::Proofs, &subject).await;
        if record.unwrap_or_default().is_some() {
            return Ok(());
        }
        if Instant::now() > end {
            bail!("block {number} is not emitted after {patience:?}");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Writes the facts of these blocks.
pub(crate) async fn know(bus: &Bus, pipeline: &Pipeline, numbers: Range<u64>) -> anyhow::Result<()> {
    let facts = bus.facts::<KnownBlock>(Bucket::Blocks).await?;
    let facts = &facts;
    let announced_after = Announcement(bus.newest(Stream::Blocks).await?);
    futures::stream::iter(numbers.map(|number| observed(pipeline, number)))
        .map(|block| async move {
            let known = KnownBlock {
                block: block.block,
                parent_hash: block.parent_hash,
                revision: block.revision,
                observed_at: block.observed_at,
                announced_after,
                input: None,
                facts: block.facts,
            };
            let key = subject::facts::known_block(&block.pipeline, &block.block);
            facts.put(&key, &known).await
        })
        .buffer_unordered(IN_FLIGHT)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok(())
}

/// Publishes blocks with known facts as scheduled, and returns when the broker has stored all of them.
pub(crate) async fn publish(
    bus: &Bus,
    pipeline: &Pipeline,
    numbers: &[u64],
    arrivals: Arrivals,
) -> anyhow::Result<()> {
    let start = Instant::now();
    let mut outbox = Outbox::new(bus.clone(), PATIENCE);
    let schedule = arrivals.schedule(numbers.len() as u64);
    for (number, at) in numbers.iter().zip(schedule) {
        let due = tokio::time::sleep_until(start + at);
        let mut due = std::pin::pin!(due);
        loop {
            let room = outbox.len() < 1024;
            tokio::select! {
                biased;
                ((), stored) = outbox.next(), if !outbox.is_empty() => { stored?; }
                () = &mut due, if room => break,
            }
        }
        outbox.push(block_message(pipeline, *number)?, ());
    }
    while !outbox.is_empty() {
        outbox.next().await.1?;
    }
    Ok(())
}

/// Returns the message of a block.
pub(crate) fn block_message(pipeline: &Pipeline, number: u64) -> anyhow::Result<Message> {
    let trace = synthetic_trace(&pipeline.name, number);
    let event = BlockEvent::Observed(observed(pipeline, number));
    Ok(Message::new(subject::block(&pipeline.name), &event, &trace)?)
}

fn observed(pipeline: &Pipeline, number: u64) -> ObservedBlock {
    let observed_at = now();
    ObservedBlock {
        pipeline: pipeline.name.clone(),
        revision: pipeline.revision,
        block: synthetic_block(&pipeline.name, number),
        parent_hash: synthetic_hash(&pipeline.name, number.wrapping_sub(1)),
        input: Payload::Inline(number.to_string().into_bytes()),
        observed_at,
        deadline_at: pipeline.deadline_at(observed_at),
        facts: BlockFacts::default(),
    }
}

/// Returns the orchestration overhead of each block in microseconds: from block stored to record stored, less
/// the time inside provers and verifiers.
pub(crate) fn overheads(records: &[Kept<Emission>]) -> anyhow::Result<Vec<u64>> {
    let each = records.iter().map(|kept| {
        let emission = proved(kept)?;
        let passed = kept.stored_at.0.saturating_sub(emission.stored_at.0);
        Ok(passed.saturating_sub(emission.busy_us()))
    });
    each.collect()
}

/// Returns the record of a proved block, or an error for any other outcome.
pub(crate) fn proved(kept: &Kept<Emission>) -> anyhow::Result<&Emission> {
    match &kept.body {
        Ok(emission) if matches!(emission.outcome, EmissionOutcome::Proved(_)) => Ok(emission),
        Ok(emission) => bail!("block {} was not proved: {:?}", emission.first, emission.outcome),
        Err(error) => bail!("{}: {error}", kept.subject),
    }
}

/// Returns the times at which the records were stored, ascending, in microseconds.
pub(crate) fn stored_times(records: &[Kept<Emission>]) -> Vec<u64> {
    let mut times: Vec<u64> = records.iter().map(|kept| kept.stored_at.0).collect();
    times.sort_unstable();
    times
}

/// Returns the time from the first block stored to the last record stored, in seconds.
pub(crate) fn drained_s(records: &[Kept<Emission>]) -> anyhow::Result<f64> {
    let mut first = u64::MAX;
    for kept in records {
        first = first.min(proved(kept)?.stored_at.0);
    }
    let last = stored_times(records).last().copied().unwrap_or_default();
    Ok(last.saturating_sub(first) as f64 / 1e6)
}

/// Milestones of a block, in microseconds since the Unix epoch.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) number: u64,
    /// The attempt that did the work.
    pub(crate) attempt: u32,
    pub(crate) stored_us: u64,
    /// Time at which the task was stored. For a queue without tasks, the time at which the block was stored.
    pub(crate) released_us: u64,
    pub(crate) began_us: u64,
    pub(crate) busy_us: u64,
    pub(crate) done_us: u64,
}

impl Done {
    /// Returns the milestones of a block with one proof, whose prover ran with `PUSH0_MOCK__STAMP`.
    pub(crate) fn of(kept: &Kept<Emission>) -> anyhow::Result<Self> {
        let emission = proved(kept)?;
        let proof = match &emission.outcome {
            EmissionOutcome::Proved(proofs) => proofs.first(),
            _ => None,
        };
        let proof = proof.context("proved by nothing")?;
        let Payload::Inline(body) = &proof.payload else {
            bail!("a stamped proof is short");
        };
        let body: serde_json::Value = serde_json::from_slice(body)?;
        Ok(Self {
            number: emission.first.number,
            attempt: proof.attempt,
            stored_us: emission.stored_at.0,
            released_us: body["released_us"].as_u64().context("a proof without a stamp")?,
            began_us: body["began_us"].as_u64().context("a proof without a stamp")?,
            busy_us: emission.busy_us(),
            done_us: kept.stored_at.0,
        })
    }

    /// Returns the time from stored to done, less the work, in microseconds.
    pub(crate) fn overhead(&self) -> u64 {
        self.done_us
            .saturating_sub(self.stored_us)
            .saturating_sub(self.busy_us)
    }
}
