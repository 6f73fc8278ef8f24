//! What the services take: resident memory at rest, after a load, and with a long queue.

use crate::{
    record::Context,
    stand::{self, Arrivals, Stand},
    stats::round,
};
use std::time::Duration;

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let builder = stand::services().service(stand::prover("prover", 16, Duration::from_millis(10)));
    let mut stand = Stand::start(builder, &stand::single(false)).await?;
    report(context, &stand, "at rest")?;
    let arrivals = Arrivals::Rate {
        per_second: 100.0,
        seed: context.seed,
    };
    stand.run(context.profile.pick(1_000, 6_000), arrivals).await?;
    report(context, &stand, "after 100 blocks/s")?;
    let queued = 10_000;
    stand.deployment.service("prover").kill();
    let numbers = stand.known(queued).await?;
    stand
        .publish(&numbers.collect::<Vec<_>>(), Arrivals::AtOnce)
        .await?;
    // A tick or two, so that the dispatcher has taken in what the broker holds.
    tokio::time::sleep(Duration::from_secs(2)).await;
    report(context, &stand, "10,000 blocks queued")
}

fn report(context: &Context, stand: &Stand, load: &str) -> anyhow::Result<()> {
    for service in ["dispatcher", "collector", "watchdog", "prover"] {
        let pid = stand.deployment.service(service).pid();
        let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else {
            continue;
        };
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
        let Some(kib) = kib else { continue };
        context
            .record("memory")
            .with("service", service)
            .with("load", load)
            .with("rss_mb", round(kib / 1024.0))
            .publish()?;
    }
    Ok(())
}
