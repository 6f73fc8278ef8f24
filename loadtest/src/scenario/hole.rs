//! Memory of the collectors while results wait behind one block that hangs, and the time until a standby
//! resumes after the kill of the leader.
//!
//! The results are written like those of provers, for blocks that were never published. So the hanging block
//! concerns the collector only.

use crate::{
    record::Context,
    stand::{self, Stand},
    stats::round,
    usage::Usage,
};
use anyhow::Context as _;
use push0_bus::{Bus, Message, Outbox, now};
use push0_domain::{
    Announcement, Payload, Payloads, SealKeys,
    message::{BlockContext, BlockFacts, Outcome, ResultEvent, StageKind, TaskHeader, TaskResult},
    pipeline::Pipeline,
    seal::Seal,
    subject,
    task::StageKey,
};
use push0_harness::{synthetic_block, synthetic_hash, synthetic_trace};
use std::time::Duration;
use tokio::time::Instant;

/// Labels of both collectors.
const COLLECTORS: [&str; 2] = ["collector-1", "collector-2"];
/// Bytes of a small proof.
const OUTPUT_LEN: usize = 256;
/// Number of results in flight to the broker.
const IN_FLIGHT: usize = 512;
const PATIENCE: Duration = Duration::from_secs(60);
/// Time limit for the collectors to read all results, and to emit all blocks.
const DRAIN: Duration = Duration::from_secs(300);
const EVERY: Duration = Duration::from_millis(100);

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let results = context.profile.pick(20_000, 100_000);
    let mut stand = Stand::start(stand::services(), &stand::single(false)).await?;
    let numbers = stand.known(results + 1).await?;
    let (hole, last) = (numbers.start, numbers.end - 1);
    let mut peaks = Peaks::default();

    let behind = hole + 1..numbers.end;
    let written = write(stand.bus(), &stand.pipeline, behind);
    peaks.during(&stand, written).await?;
    let taken = unacknowledged(&stand, results);
    let leader = peaks.during(&stand, taken).await?;

    let standby = COLLECTORS.into_iter().find(|label| *label != leader);
    let standby = standby.context("there are two")?;
    stand.deployment.service(&leader).kill();
    let killed = Instant::now();
    // The hole is filled at once. Its record then waits until the standby has read the earlier results.
    write(stand.bus(), &stand.pipeline, hole..hole + 1).await?;
    let out = stand::wait_emitted(stand.bus(), &stand.pipeline.name, hole, PATIENCE);
    peaks.during(&stand, out).await?;
    let takeover_s = killed.elapsed().as_secs_f64();
    let drained = Instant::now();
    let all = stand::wait_emitted(stand.bus(), &stand.pipeline.name, last, DRAIN);
    peaks.during(&stand, all).await?;
    let drain_s = drained.elapsed().as_secs_f64();
    context
        .record("hole")
        .with("results", results)
        .with("rss_mb_peak", round(peaks.of(&leader).max(peaks.of(standby))))
        .with("rss_mb_leader", round(peaks.of(&leader)))
        .with("rss_mb_standby", round(peaks.of(standby)))
        .with("takeover_s", round(takeover_s))
        .with("drained_per_s", round(results as f64 / drain_s.max(1e-3)))
        .publish()
}

/// Peak memory of each collector, in megabytes.
#[derive(Default)]
struct Peaks(Vec<(String, f64)>);

impl Peaks {
    fn of(&self, label: &str) -> f64 {
        let found = self.0.iter().find(|(name, _)| name == label);
        found.map_or(0.0, |(_, rss)| *rss)
    }

    async fn during<T>(
        &mut self,
        stand: &Stand,
        load: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let mut load = std::pin::pin!(load);
        let mut due = tokio::time::interval(EVERY);
        loop {
            let ended = tokio::select! {
                ended = &mut load => Some(ended),
                _ = due.tick() => None,
            };
            for label in COLLECTORS {
                let pid = stand.deployment.service(label).pid();
                let rss = Usage::of(pid).map_or(0.0, |usage| usage.rss_mb);
                match self.0.iter_mut().find(|(name, _)| name == label) {
                    Some((_, most)) => *most = most.max(rss),
                    None => self.0.push((label.into(), rss)),
                }
            }
            if let Some(ended) = ended {
                return ended;
            }
        }
    }
}

/// Writes the results of these blocks, in ascending order.
async fn write(bus: &Bus, pipeline: &Pipeline, numbers: std::ops::Range<u64>) -> anyhow::Result<()> {
    let mut outbox = Outbox::new(bus.clone(), PATIENCE);
    let seals = bus.seals().await?;
    for number in numbers {
        while outbox.len() >= IN_FLIGHT {
            outbox.next().await.1?;
        }
        outbox.push(result(pipeline, number, seals.keys())?, ());
    }
    while !outbox.is_empty() {
        outbox.next().await.1?;
    }
    Ok(())
}

fn result(pipeline: &Pipeline, number: u64, keys: &SealKeys) -> anyhow::Result<Message> {
    let spec = pipeline.proofs.first().context("a proof")?;
    let stage = spec.first().context("a stage")?;
    let key = StageKey {
        pipeline: pipeline.name.clone(),
        block: synthetic_block(&pipeline.name, number),
        first: None,
        proof_type: spec.proof_type.clone(),
        stage: stage.name.clone(),
    };
    let header = TaskHeader {
        id: key.task(0),
        attempt: 1,
        hedge_of: None,
        zkvm: stage.zkvm.clone(),
        context: BlockContext {
            revision: pipeline.revision,
            parent_hash: synthetic_hash(&pipeline.name, number.wrapping_sub(1)),
            announcement: Announcement(1),
            stored_at: now(),
            first_announcement: None,
            deadline_at: None,
            amends: false,
            facts: BlockFacts::default(),
        },
        kind: StageKind::Map,
        of: 1,
        timeout_ms: 60_000,
        hedge_after_ms: None,
        attempts_max: stage.attempts,
        give_up_at: None,
        check: false,
        program_id: None,
        path: push0_domain::CriticalPath::default(),
        seal: Seal::default(),
    };
    let header = keys.seal(header)?;
    let prover = "hole".parse()?;
    let subject = subject::result(&prover, &header.key(), None);
    let output = Payload::Inline(vec![u8::try_from(number % 251).unwrap_or_default(); OUTPUT_LEN]);
    let event = ResultEvent::Attempt(TaskResult {
        header,
        prover,
        outcome: Outcome::Completed {
            outputs: Payloads::one(output),
        },
        inputs: None,
        prove_us: 1,
        transfer_us: 0,
        waited_us: 0,
        signature: None,
        verdict: None,
    });
    let trace = synthetic_trace(&pipeline.name, number);
    Ok(Message::new(subject, &event, &trace)?)
}

/// Waits until the leading collector has read all results; returns its label.
async fn unacknowledged(stand: &Stand, results: u64) -> anyhow::Result<String> {
    let end = Instant::now() + DRAIN;
    let wanted = format!(
        "results_unacknowledged{{pipeline=\"{}\"}} {results}",
        stand.pipeline.name
    );
    loop {
        for label in COLLECTORS {
            let metrics = stand.deployment.service(label).metrics().await;
            if metrics.contains(&wanted) {
                return Ok(label.into());
            }
        }
        anyhow::ensure!(Instant::now() < end, "the results are not read after {DRAIN:?}");
        tokio::time::sleep(EVERY).await;
    }
}
