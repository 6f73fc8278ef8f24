//! Growth of memory, latency, open files or streams under a long, steady load.
//!
//! Each quantity is sampled at even intervals and a straight line is fitted to the samples. The result is the
//! slope of the line and the margin that contains the slope with about 95 % confidence. The first tenth of
//! the samples is left out, because allocators and caches fill then.

use crate::{
    record::Context,
    stand::{self, Arrivals, Stand},
    stats::{Times, Trend, round},
    usage::Usage,
};
use push0_bus::{Bus, Kept, Stream, now};
use push0_domain::message::Emission;
use std::{collections::BTreeMap, time::Duration};

const RATE: f64 = 50.0;
/// Streams that are empty or of a fixed size when all work is done. PROOFS and the facts about blocks grow by
/// design, until their maximum age.
const STREAMS: [Stream; 8] = [
    Stream::Blocks,
    Stream::Stages,
    Stream::Tasks,
    Stream::Checks,
    Stream::Results,
    Stream::Leases,
    Stream::Control,
    Stream::Dead,
];
const SAMPLES: u32 = 60;
const HOUR_S: f64 = 3_600.0;

/// Samples by name: seconds since the start, and the value.
type Series = BTreeMap<String, Vec<(f64, f64)>>;

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let length = Duration::from_secs(context.profile.pick(45, 1_800));
    let builder = stand::services().service(stand::prover("prover", 64, Duration::from_millis(20)));
    let mut stand = Stand::start(builder, &stand::single(false)).await?;
    let peaks = stand.deployment.peaks();
    let services = peaks.iter().map(|(label, _)| stand.deployment.service(label));
    let mut pids: Vec<(String, u32)> = services.map(|s| (s.label().to_owned(), s.pid())).collect();
    pids.push(("broker".into(), stand.deployment.nats.first().pid()));
    let numbers = stand.known((RATE * length.as_secs_f64()) as u64).await?;
    let listed: Vec<u64> = numbers.clone().collect();
    let bus = stand.bus().clone();
    let (mut series, began) = (Series::new(), now().0);
    let arrivals = Arrivals::Rate {
        per_second: RATE,
        seed: context.seed,
    };
    tokio::select! {
        published = stand.publish(&listed, arrivals) => published?,
        ended = sample(&bus, &pids, length / SAMPLES, &mut series) => return ended,
    }
    let records = stand.emitted(numbers, Duration::from_secs(60)).await?;
    latency(&records, began, length / SAMPLES, &mut series)?;
    for (what, samples) in &series {
        let settled = &samples[samples.len() / 10..];
        let (Some(first), Some(last)) = (settled.first(), settled.last()) else {
            continue;
        };
        let trend = Trend::of(settled);
        context
            .record("soak")
            .with("what", what.as_str())
            .with("slope_per_hour", round(trend.slope * HOUR_S))
            .with("margin_per_hour", round(trend.margin * HOUR_S))
            .with("distinguishable_from_0", trend.is_distinguishable())
            .with("first", round(first.1))
            .with("last", round(last.1))
            .with("rate", RATE)
            .with("seconds", length.as_secs())
            .publish()?;
    }
    Ok(())
}

/// Samples until dropped; returns only with an error.
async fn sample(
    bus: &Bus,
    pids: &[(String, u32)],
    every: Duration,
    series: &mut Series,
) -> anyhow::Result<()> {
    let began = now();
    let mut due = tokio::time::interval(every);
    loop {
        due.tick().await;
        let at = now().since(began).as_secs_f64();
        let mut add = |what: String, value: f64| series.entry(what).or_default().push((at, value));
        for (name, pid) in pids {
            if let Some(usage) = Usage::of(*pid) {
                add(format!("{name} rss_mb"), usage.rss_mb);
                add(format!("{name} files"), usage.files as f64);
            }
        }
        for stream in STREAMS {
            let level = bus.level(stream).await?;
            add(format!("{} kb", stream.name()), level.bytes as f64 / 1000.0);
        }
    }
}

/// Adds the overhead of the blocks of each interval to the series.
fn latency(
    records: &[Kept<Emission>],
    began_us: u64,
    every: Duration,
    series: &mut Series,
) -> anyhow::Result<()> {
    let mut by_interval: BTreeMap<u64, Times> = BTreeMap::new();
    for (kept, overhead) in records.iter().zip(stand::overheads(records)?) {
        let passed = stand::proved(kept)?.stored_at.0.saturating_sub(began_us);
        let interval = passed / u64::try_from(every.as_micros())?.max(1);
        by_interval.entry(interval).or_default().add(overhead);
    }
    for (interval, times) in by_interval {
        let at = interval as f64 * every.as_secs_f64();
        for (name, quantile) in [("p50_ms", 0.5), ("p99_ms", 0.99)] {
            let samples = series.entry(format!("overhead {name}")).or_default();
            samples.push((at, times.ms(quantile)));
        }
    }
    Ok(())
}
