//! A join of 10,000 results: the time from the last result until the next stage is open. Alternate runs kill
//! both collectors in the middle of the join, and restart one of them when all results are stored.

use crate::{
    record::{Context, Record},
    stand::{self, Stand},
    stats::{median, round},
};
use anyhow::bail;
use push0_bus::{Stream, now};
use push0_domain::{
    Timestamp,
    subject::{self, Kind},
};
use std::time::Duration;
use tokio::time::Instant;

/// Number of joined results.
const WIDE: u64 = 10_000;
/// Time limit for proving all parts.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) async fn run(context: &Context, record: Record) -> anyhow::Result<Record> {
    let prover = stand::prover("p1", 64, Duration::ZERO).env("PUSH0_MOCK__SPLIT", WIDE);
    let mut stand = Stand::start(
        stand::services().service(prover),
        &stand::parts("mock", "mock", "mock"),
    )
    .await?;
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for _ in 0..context.profile.pick(1, 5) {
        without.push(join(&mut stand, false).await?);
        with.push(join(&mut stand, true).await?);
    }
    Ok(record
        .with("join", WIDE)
        .with("join_ms", round(median(&without)))
        .with("join_after_death_ms", round(median(&with)))
        .with("join_over_ms", round(median(&with) - median(&without))))
}

/// Returns the milliseconds until the join is released, from the last result, or from the collector's
/// restart if `dies`.
async fn join(stand: &mut Stand, dies: bool) -> anyhow::Result<f64> {
    let bus = stand.bus().clone();
    let mut results = bus.listen([subject::all(Kind::Result)]).await?;
    let mut stages = bus.listen([subject::all(Kind::Stage)]).await?;
    let numbers = stand.known(1).await?;
    stand::publish(&bus, &stand.pipeline, &[numbers.start], stand::Arrivals::AtOnce).await?;
    // The results are that of the split, and those of its tasks.
    let mut heard = 0;
    while heard < WIDE + 1 {
        tokio::time::timeout(PATIENCE, results.next()).await??;
        heard += 1;
        if dies && heard == WIDE / 2 {
            for collector in stand.deployment.instances("collector") {
                collector.kill();
            }
        }
    }
    let mut from = now();
    if dies {
        // All results are stored, and the provers are idle.
        let end = Instant::now() + PATIENCE;
        while bus.level(Stream::Tasks).await?.messages > 0 {
            if Instant::now() > end {
                bail!("tasks are left after {PATIENCE:?}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        from = now();
        stand.deployment.service_mut("collector-1").restart();
    }
    let opened_at = loop {
        let signal = tokio::time::timeout(PATIENCE, stages.next()).await??;
        if signal.subject().contains(".join.") {
            break now();
        }
    };
    stand.emitted(numbers, PATIENCE).await?;
    if dies {
        stand.deployment.service_mut("collector-2").restart();
    }
    Ok(between(from, opened_at))
}

fn between(from: Timestamp, to: Timestamp) -> f64 {
    to.since(from).as_secs_f64() * 1000.0
}
