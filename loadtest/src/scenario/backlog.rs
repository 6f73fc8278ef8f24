//! Memory of the services while blocks wait without a prover, and the time that a standby needs when the
//! leader is killed. The backlog lies in its stream, so neither may depend on the length of the backlog.

use crate::{
    record::Context,
    stand::{self, Arrivals, Stand},
    stats::round,
    usage::Usage,
};
use anyhow::bail;
use push0_bus::Limits;
use push0_harness::wait_for;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

/// The two instances of each service with a role to take over: service and labels.
const PAIRS: [(&str, [&str; 2]); 2] = [
    ("dispatcher", ["dispatcher-1", "dispatcher-2"]),
    ("watchdog", ["watchdog-1", "watchdog-2"]),
];
const PROVER: &str = "prover";
/// Number of the blocks that are proved in the end.
const PROVED: u64 = 1_000;
/// Longest takeover before the scenario fails. The performance target is far below.
const PATIENCE: Duration = Duration::from_secs(120);
/// Interval between two samples of memory. After the blocks are published, sampling goes on for [`SETTLED`].
const EVERY: Duration = Duration::from_millis(100);
const SETTLED: Duration = Duration::from_secs(5);

/// Peak resident memory of each process so far, in megabytes, by label.
type Peaks = BTreeMap<&'static str, f64>;

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let waiting = context.profile.pick(100_000, 1_000_000);
    let builder = stand::services().limits(Limits {
        store_bytes: 12 << 30,
        ..Limits::default()
    });
    let mut stand = Stand::start(builder, &stand::single(false)).await?;
    let mut peaks = Peaks::new();
    // Facts are needed only for blocks that are proved.
    let known = stand.known(PROVED).await?;
    let numbers: Vec<u64> = (known.start..known.start + waiting).collect();
    let load = async {
        stand.publish(&numbers, Arrivals::AtOnce).await?;
        tokio::time::sleep(SETTLED).await;
        Ok(())
    };
    watched(&stand, &mut peaks, load).await?;

    let mut takeovers = BTreeMap::new();
    for (service, labels) in PAIRS {
        let (leads, standby) = leader(&stand, service, labels).await?;
        stand.deployment.service(leads).kill();
        let killed_at = Instant::now();
        if service == "dispatcher" {
            let prover = stand::prover(PROVER, 1, Duration::ZERO);
            stand.deployment.start_service(prover);
        }
        let (bus, name) = (stand.bus(), &stand.pipeline.name);
        let serves = async {
            match service {
                // The first block is the most urgent of all.
                "dispatcher" => stand::wait_emitted(bus, name, known.start, PATIENCE).await,
                _ => {
                    led(&stand, service, standby).await;
                    Ok(())
                }
            }
        };
        watched(&stand, &mut peaks, serves).await?;
        takeovers.insert(service, killed_at.elapsed().as_secs_f64());
    }
    let rest = stand.emitted(known, PATIENCE);
    watched(&stand, &mut peaks, async { rest.await.map(drop) }).await?;
    for (service, labels) in PAIRS {
        let of_service = labels.iter().filter_map(|label| peaks.get(label));
        let peak = of_service.copied().fold(0.0, f64::max);
        context
            .record("backlog")
            .with("service", service)
            .with("waiting", waiting)
            .with("rss_mb_peak", round(peak))
            .with("takeover_s", takeovers.get(service).map(|s| round(*s)))
            .publish()?;
    }
    Ok(())
}

/// Returns the label of the leader, then that of the standby.
async fn leader(
    stand: &Stand,
    service: &str,
    labels: [&'static str; 2],
) -> anyhow::Result<(&'static str, &'static str)> {
    let [one, other] = labels;
    for (leads, standby) in [(one, other), (other, one)] {
        if leads_now(stand, service, leads).await {
            return Ok((leads, standby));
        }
    }
    bail!("none of {labels:?} leads")
}

async fn led(stand: &Stand, service: &str, label: &str) {
    wait_for(&format!("{label} that leads"), PATIENCE, async || {
        leads_now(stand, service, label).await
    })
    .await;
}

async fn leads_now(stand: &Stand, service: &str, label: &str) -> bool {
    let metrics = stand.deployment.service(label).metrics().await;
    metrics.contains(&format!("push0_{service}_leading 1"))
}

/// Samples the memory of all services until the load is over.
async fn watched(
    stand: &Stand,
    peaks: &mut Peaks,
    load: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let mut load = std::pin::pin!(load);
    let mut due = tokio::time::interval(EVERY);
    loop {
        let ended = tokio::select! {
            ended = &mut load => Some(ended),
            _ = due.tick() => None,
        };
        for label in PAIRS.iter().flat_map(|(_, labels)| labels) {
            if let Some(usage) = Usage::of(stand.deployment.service(label).pid()) {
                let peak = peaks.entry(label).or_default();
                *peak = peak.max(usage.rss_mb);
            }
        }
        if let Some(ended) = ended {
            return ended;
        }
    }
}
