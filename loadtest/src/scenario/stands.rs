//! The cost of accounts, standbys and brokers: the quick deployment beside larger ones, in turn in one run.

use crate::{
    record::Context,
    stand::{self, Arrivals, Stand},
    stats::{Windows, median, spread, steady_rate},
};
use push0_harness::{DeploymentBuilder, NatsCluster};
use std::time::Duration;

/// Compared deployments, as prefixes of their fields.
const NAMES: [&str; 4] = ["quick", "accounts", "shipped", "three_brokers"];

/// Measures overhead and throughput of the quick deployment, of the same one with accounts and signatures, of the shipped
/// one, and of the shipped one on three brokers, in turn.
pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let of = async |builder: DeploymentBuilder, brokers| {
        let builder = builder.service(stand::prover("p1", 256, Duration::ZERO));
        Stand::start_cluster(builder, &stand::single(false), brokers).await
    };
    let mut stands = [
        of(stand::quick(), 1).await?,
        of(stand::quick().with_accounts(), 1).await?,
        of(stand::services(), 1).await?,
        of(stand::services(), 3).await?,
    ];
    for stand in &mut stands {
        stand.run(500, Arrivals::AtOnce).await?;
    }
    for rate in [20.0, 100.0] {
        overhead(context, &mut stands, rate).await?;
    }
    throughput(context, &mut stands).await
}

async fn overhead(context: &Context, stands: &mut [Stand<NatsCluster>; 4], rate: f64) -> anyhow::Result<()> {
    let count = (rate * context.profile.pick(4.0, 15.0)) as u64;
    let mut measured: [Windows; 4] = Default::default();
    for window in 0..context.profile.pick(3, 5) {
        let arrivals = Arrivals::Rate {
            per_second: rate,
            seed: context.seed.wrapping_add(window),
        };
        for (stand, windows) in stands.iter_mut().zip(&mut measured) {
            // The first blocks at a rate warm up caches and timers, so they are not counted.
            stand.run(count.min(20), arrivals).await?;
            windows.push(stand::overheads(&stand.run(count, arrivals).await?)?);
        }
    }
    let record = context.record("stands-overhead").with("rate", rate);
    let each = NAMES.iter().zip(&measured);
    each.fold(record, |record, (name, windows)| {
        windows.put(&format!("{name}_"), record)
    })
    .ratio("accounts_ratio_p50", "accounts_p50_ms", "quick_p50_ms")
    .ratio("accounts_ratio_p99", "accounts_p99_ms", "quick_p99_ms")
    .ratio("ratio_p50", "shipped_p50_ms", "quick_p50_ms")
    .ratio("ratio_p99", "shipped_p99_ms", "quick_p99_ms")
    .ratio("three_brokers_ratio_p50", "three_brokers_p50_ms", "quick_p50_ms")
    .ratio("three_brokers_ratio_p99", "three_brokers_p99_ms", "quick_p99_ms")
    .with("blocks", measured[0].len())
    .publish()
}

async fn throughput(context: &Context, stands: &mut [Stand<NatsCluster>; 4]) -> anyhow::Result<()> {
    let count = context.profile.pick(5_000, 20_000);
    let mut measured: [Vec<f64>; 4] = Default::default();
    for _ in 0..context.profile.pick(3, 5) {
        for (stand, rates) in stands.iter_mut().zip(&mut measured) {
            let records = stand.run(count, Arrivals::AtOnce).await?;
            rates.push(steady_rate(&stand::stored_times(&records)));
        }
    }
    let record = context.record("stands-throughput");
    let each = NAMES.iter().zip(&measured);
    each.fold(record, |record, (name, rates)| {
        record
            .with(&format!("{name}_blocks_per_s"), median(rates).round())
            .with(&format!("{name}_spread"), spread(rates).to_vec())
    })
    .ratio("accounts_ratio", "accounts_blocks_per_s", "quick_blocks_per_s")
    .ratio("ratio", "shipped_blocks_per_s", "quick_blocks_per_s")
    .ratio(
        "three_brokers_ratio",
        "three_brokers_blocks_per_s",
        "quick_blocks_per_s",
    )
    .with("blocks", count)
    .publish()
}
