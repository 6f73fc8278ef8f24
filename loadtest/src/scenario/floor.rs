//! The floor by itself: latency and throughput of a bare JetStream pipeline of the same shape
//! on this machine.

use crate::{
    floor::{self, Floor, Passed},
    record::Context,
    stand::{self, Arrivals, Stand},
    stats::{Windows, median, spread, steady_rate},
};
use std::time::Duration;

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    for verify in [false, true] {
        let mut builder = stand::services().service(stand::prover("p1", 4, Duration::ZERO));
        if verify {
            builder = builder.service(stand::verifier("v1", 4));
        }
        let mut stand = Stand::start(builder, &stand::single(verify)).await?;
        let sizes = floor::sizes(&mut stand, verify).await?;
        let mut floor = Floor::start(&stand, &sizes).await?;
        let rates: &[f64] = context
            .profile
            .pick(&[20.0, 100.0], &[1.0, 20.0, 50.0, 75.0, 100.0, 500.0]);
        for rate in rates {
            at_rate(context, &mut floor, sizes.len() - 1, *rate).await?;
        }
        saturated(context, &mut floor, sizes.len() - 1).await?;
    }
    Ok(())
}

async fn at_rate(context: &Context, floor: &mut Floor, hops: usize, rate: f64) -> anyhow::Result<()> {
    let count = (rate * context.profile.pick(2.0, 15.0)).max(20.0) as u64;
    let (mut whole, mut hop) = (Windows::default(), Windows::default());
    for window in 0..3 {
        let arrivals = Arrivals::Rate {
            per_second: rate,
            seed: context.seed.wrapping_add(window),
        };
        let passed = floor.run(count, arrivals).await?;
        whole.push(passed.iter().map(Passed::whole));
        hop.push(passed.iter().map(Passed::hop));
    }
    let record = context.record("floor").with("hops", hops).with("rate", rate);
    hop.put("hop_", whole.put("", record))
        .with("messages", whole.len())
        .publish()
}

async fn saturated(context: &Context, floor: &mut Floor, hops: usize) -> anyhow::Result<()> {
    let mut rates = Vec::new();
    for _ in 0..3 {
        let passed = floor
            .run(context.profile.pick(5_000, 20_000), Arrivals::AtOnce)
            .await?;
        let mut last: Vec<u64> = passed.iter().map(|passed| passed.last).collect();
        last.sort_unstable();
        rates.push(steady_rate(&last));
    }
    context
        .record("floor")
        .with("hops", hops)
        .with("load", "saturation")
        .with("blocks_per_s", median(&rates).round())
        .with("spread", spread(&rates).to_vec())
        .publish()
}
