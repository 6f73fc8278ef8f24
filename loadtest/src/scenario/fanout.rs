//! Cost of a task in a wide block, against a narrow one. The same number of empty tasks runs as one block and
//! as blocks of ten, on eight provers of one slot. A ratio above 1 is the price of width.

use crate::{
    record::Context,
    stand::{self, Arrivals, Stand},
    stats::{median, round},
};
use std::time::Duration;

const NARROW: u64 = 10;
/// The width of the performance target, and a width at which any cost of width would show.
const WIDE: [u64; 2] = [4_000, 100_000];
const PROVERS: u32 = 8;

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let runs = context.profile.pick(3, 10);
    let [wide, widest] = WIDE;
    let narrow_us = per_task(NARROW, wide / NARROW, runs).await?;
    compare(context, wide, runs, narrow_us).await?;
    if context.profile.pick(false, true) {
        compare(context, widest, 1, narrow_us).await?;
    }
    Ok(())
}

async fn compare(context: &Context, width: u64, runs: u32, narrow_us: f64) -> anyhow::Result<()> {
    let wide_us = per_task(width, 1, runs).await?;
    context
        .record("fanout")
        .with("cost_ratio", round(wide_us / narrow_us))
        .with("wide", width)
        .with("wide_task_us", round(wide_us))
        .with("narrow", NARROW)
        .with("narrow_task_us", round(narrow_us))
        .publish()
}

/// Returns the median time of a task in microseconds over several runs. Each block has two tasks more than
/// its width: split and join.
async fn per_task(width: u64, blocks: u64, runs: u32) -> anyhow::Result<f64> {
    let prover = |n| stand::prover(&format!("p{n}"), 1, Duration::ZERO).env("PUSH0_MOCK__SPLIT", width);
    let builder = (1..=PROVERS).fold(stand::services(), |builder, n| builder.service(prover(n)));
    let mut stand = Stand::start(builder, &stand::parts("mock", "mock", "mock")).await?;
    stand.run(2, Arrivals::AtOnce).await?;
    let mut each = Vec::new();
    for _ in 0..runs {
        let records = stand.run(blocks, Arrivals::AtOnce).await?;
        let mut first = u64::MAX;
        for kept in &records {
            first = first.min(stand::proved(kept)?.stored_at.0);
        }
        let last = stand::stored_times(&records).last().copied().unwrap_or_default();
        each.push((last.saturating_sub(first)) as f64 / ((width + 2) * blocks) as f64);
    }
    Ok(median(&each))
}
