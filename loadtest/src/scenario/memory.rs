//! Peak resident memory of the services and the broker: idle, under a steady load, saturated, with a long
//! queue and no prover, and with one stage of many tasks and no prover.

use crate::{
    record::{Context, Record},
    stand::{self, Arrivals, Stand},
    stats::round,
    usage::Usage,
};
use push0_harness::{Process, wait_for};
use std::time::Duration;

/// Services with two instances each, of which the larger one counts.
const CONTROL: [&str; 4] = ["ingester", "dispatcher", "collector", "watchdog"];
const BACKLOG: u64 = 100_000;
/// Number of tasks in one stage.
const WIDTH: u32 = 100_000;
/// Duration of the idle phase, and of sampling after all blocks are published.
const SETTLED: Duration = Duration::from_secs(3);
/// Time limit for the split.
const PATIENCE: Duration = Duration::from_secs(60);
const EVERY: Duration = Duration::from_millis(200);

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let builder = stand::services().service(stand::prover("prover", 64, Duration::ZERO));
    let mut stand = Stand::start(builder, &stand::single(false)).await?;
    let pids = pids(&stand);
    let rest = async {
        tokio::time::sleep(SETTLED).await;
        Ok(())
    };
    let idle = watch(&pids, rest).await?;
    report(context, "idle", &idle)?;

    let arrivals = Arrivals::Rate {
        per_second: 100.0,
        seed: context.seed,
    };
    let (steady, flood) = context.profile.pick((1_000, 10_000), (6_000, 50_000));
    let most = watch(&pids, stand.run(steady, arrivals)).await?;
    report(context, "100/s", &most)?;
    let most = watch(&pids, stand.run(flood, Arrivals::AtOnce)).await?;
    report(context, "saturation", &most)?;

    // The services start afresh, so that memory kept by their allocators since the flood does not count
    // for the queue.
    for service in CONTROL {
        for n in 1..=2 {
            let label = format!("{service}-{n}");
            stand.deployment.service_mut(&label).restart();
        }
    }
    stand.deployment.ready().await;
    stand.deployment.service("prover").kill();
    let pids = self::pids(&stand);
    let numbers: Vec<u64> = stand.known(BACKLOG).await?.collect();
    let queue = async {
        stand.publish(&numbers, Arrivals::AtOnce).await?;
        tokio::time::sleep(SETTLED).await;
        Ok(())
    };
    let most = watch(&pids, queue).await?;
    report(context, "backlog 100,000", &most)?;
    drop(stand);
    wide_stage(context, &idle).await
}

/// Splits a block into many parts without a prover for the parts.
async fn wide_stage(context: &Context, idle: &[(&str, f64)]) -> anyhow::Result<()> {
    let splitter = stand::prover("prover", 1, Duration::ZERO).env("PUSH0_MOCK__SPLIT", WIDTH);
    let builder = stand::services().service(splitter);
    let mut stand = Stand::start(builder, &stand::parts("mock", "absent", "mock")).await?;
    let numbers: Vec<u64> = stand.known(1).await?.collect();
    let pids = pids(&stand);
    let split = async {
        stand.publish(&numbers, Arrivals::AtOnce).await?;
        let leader = stand.deployment.leader("dispatcher").await;
        let dispatcher = stand.deployment.service(&leader);
        wait_for("the stage", PATIENCE, async || {
            let metrics = dispatcher.metrics().await;
            let waits = metrics.contains("stages_waiting{zkvm=\"absent\"} 1");
            if waits { Ok(()) } else { Err(metrics) }
        })
        .await;
        tokio::time::sleep(SETTLED).await;
        Ok(())
    };
    let most = watch(&pids, split).await?;
    for (service, rss_mb) in &most {
        let rests = idle.iter().find(|(name, _)| name == service);
        line(context, "stage of 100,000", service, *rss_mb)
            .with("over_idle_mb", rests.map(|(_, idle)| round(rss_mb - idle)))
            .publish()?;
    }
    Ok(())
}

fn pids(stand: &Stand) -> Vec<(&'static str, u32)> {
    let pids = |program| stand.deployment.instances(program).map(Process::pid);
    let services = CONTROL
        .iter()
        .flat_map(|program| pids(program).map(|pid| (*program, pid)));
    let prover = ("prover", stand.deployment.service("prover").pid());
    let broker = ("broker", stand.deployment.nats.first().pid());
    services.chain([prover, broker]).collect()
}

/// Returns the peak resident memory of each process during `load`, in megabytes.
async fn watch<T>(
    pids: &[(&'static str, u32)],
    load: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<Vec<(&'static str, f64)>> {
    let mut most: Vec<(&str, f64)> = Vec::new();
    let mut load = std::pin::pin!(load);
    let mut due = tokio::time::interval(EVERY);
    loop {
        let ended = tokio::select! {
            ended = &mut load => Some(ended),
            _ = due.tick() => None,
        };
        for (name, pid) in pids {
            let Some(usage) = Usage::of(*pid) else { continue };
            match most.iter_mut().find(|(known, _)| known == name) {
                Some((_, rss)) => *rss = rss.max(usage.rss_mb),
                None => most.push((name, usage.rss_mb)),
            }
        }
        if let Some(ended) = ended {
            ended?;
            return Ok(most);
        }
    }
}

fn report(context: &Context, load: &str, most: &[(&str, f64)]) -> anyhow::Result<()> {
    most.iter()
        .try_for_each(|(service, rss_mb)| line(context, load, service, *rss_mb).publish())
}

fn line(context: &Context, load: &str, service: &str, rss_mb: f64) -> Record {
    context
        .record("memory")
        .with("service", service)
        .with("load", load)
        .with("rss_mb", round(rss_mb))
}
