//! Memory growth of the shipped deployment: two of each service, accounts, JSON logs, traces to an address without answers.
//!
//! Memory is sampled while blocks arrive at a steady rate and then at a faster one. A straight line is
//! fitted to the resident memory over the number of emitted blocks. The fit uses the second half only,
//! because caches and allocators fill in the first. Memory moves by whole pages and returns to the system in
//! steps, so each slope has a margin that contains the slope with about 95 % confidence. Growth is counted
//! only if the slope exceeds its margin by [`GROWTH_MAX_KB`]: any state kept for every block costs at least
//! ten times that.

use crate::{
    record::Context,
    stand::{self, Arrivals, Stand},
    stats::{Trend, round},
    usage::Usage,
};
use anyhow::bail;
use push0_bus::Stream;
use push0_harness::{Broker, MEMORY_MAX_MB};
use std::{collections::BTreeMap, time::Duration};

/// The most that a service may grow in 1,000 blocks beyond the margin, in kB. At this limit, 25 blocks a
/// second for 8 hours (720,000 blocks) add 10 MB.
const GROWTH_MAX_KB: f64 = 15.0;
const EVERY: Duration = Duration::from_millis(500);
const PATIENCE: Duration = Duration::from_secs(120);

/// Resident memory in kB over thousands of blocks, by process.
type Series = BTreeMap<String, Vec<(f64, f64)>>;

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let mut failed = Vec::new();
    for brokers in [1, 3] {
        failed.extend(memory(context, brokers).await?);
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("{}", failed.join("; "))
}

/// Runs blocks through a deployment on this many brokers. Returns a description of each service that
/// exceeded a limit.
async fn memory(context: &Context, brokers: usize) -> anyhow::Result<Vec<String>> {
    let builder = stand::services()
        .service(stand::prover("prover", 64, Duration::from_millis(20)))
        .service(stand::verifier("verifier", 64));
    let mut stand = Stand::start_cluster(builder, &stand::single(true), brokers).await?;
    // Blocks a second, and duration in seconds.
    let parts = context
        .profile
        .pick([(25.0, 60.0), (100.0, 30.0)], [(25.0, 600.0), (100.0, 360.0)]);
    let pids: Vec<(String, u32)> = stand
        .deployment
        .peaks()
        .iter()
        .map(|(label, _)| ((*label).to_owned(), stand.deployment.service(label).pid()))
        .collect();
    let mut series = Series::new();
    let mut blocks = 0;
    for (per_second, seconds) in parts {
        let numbers = stand.known((per_second * seconds) as u64).await?;
        let listed: Vec<u64> = numbers.clone().collect();
        let arrivals = Arrivals::Rate {
            per_second,
            seed: context.seed,
        };
        let last = numbers.end - 1;
        let load = async {
            stand.publish(&listed, arrivals).await?;
            stand::wait_emitted(stand.bus(), &stand.pipeline.name, last, PATIENCE).await
        };
        tokio::select! {
            done = load => done?,
            ended = sample(&stand, &pids, &mut series) => return Err(ended),
        }
        blocks = last;
    }
    let mut failed = Vec::new();
    for (service, peak) in stand.deployment.peaks() {
        let samples = series.get(service).map(Vec::as_slice).unwrap_or_default();
        let trend = Trend::of(&samples[samples.partition_point(|(at, _)| *at < blocks as f64 / 2000.0)..]);
        context
            .record("shipped")
            .with("brokers", brokers)
            .with("service", service)
            .with("rss_mb_peak", round(peak))
            .with("rss_kb_per_1000_blocks", round(trend.slope))
            .with("margin_kb", round(trend.margin))
            .with("blocks", blocks)
            .publish()?;
        let is_control = service.ends_with("-1") || service.ends_with("-2");
        if is_control && peak > MEMORY_MAX_MB {
            failed.push(format!("{service} used {peak:.1} MB on {brokers} broker(s)"));
        }
        if is_control && trend.slope - trend.margin > GROWTH_MAX_KB {
            failed.push(format!(
                "{service} grows by {:.1} kB in 1,000 blocks on {brokers} broker(s)",
                trend.slope
            ));
        }
    }
    Ok(failed)
}

/// Samples until dropped; returns only with an error.
async fn sample<B: Broker>(stand: &Stand<B>, pids: &[(String, u32)], series: &mut Series) -> anyhow::Error {
    let mut due = tokio::time::interval(EVERY);
    loop {
        due.tick().await;
        let emitted = match stand.bus().level(Stream::Proofs).await {
            Ok(level) => level.messages as f64 / 1000.0,
            Err(error) => return error.into(),
        };
        for (label, pid) in pids {
            if let Some(usage) = Usage::of(*pid) {
                let samples = series.entry(label.clone()).or_default();
                samples.push((emitted, usage.rss_mb * 1024.0));
            }
        }
    }
}
