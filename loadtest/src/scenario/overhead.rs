//! What orchestration adds to a block: from block stored to record stored, less the time inside
//! provers, beside the floor on the same broker in alternating windows.

use crate::{
    floor::{self, Floor},
    record::Context,
    stand::{self, Arrivals, Stand},
    stats::{Times, median, spread},
};
use std::time::Duration;

/// Enough places that no block waits for one.
const SLOTS: u32 = 64;

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    for verify in [false, true] {
        let mut builder = stand::services().service(stand::prover("p1", SLOTS, Duration::ZERO));
        if verify {
            builder = builder.service(stand::verifier("v1", SLOTS));
        }
        let mut stand = Stand::start(builder, &stand::single(verify)).await?;
        stand.run(50, Arrivals::AtOnce).await?;
        let sizes = floor::sizes(&mut stand, verify).await?;
        let mut floor = Floor::start(&stand, &sizes).await?;
        let rates: &[f64] = context
            .profile
            .pick(&[20.0, 100.0], &[1.0, 20.0, 50.0, 75.0, 100.0, 500.0]);
        for rate in rates {
            at_rate(context, &mut stand, &mut floor, *rate, verify).await?;
        }
    }
    Ok(())
}

async fn at_rate(
    context: &Context,
    stand: &mut Stand,
    floor: &mut Floor,
    rate: f64,
    verify: bool,
) -> anyhow::Result<()> {
    let seconds = context.profile.pick(5.0, if rate < 5.0 { 40.0 } else { 15.0 });
    let count = (rate * seconds) as u64;
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for window in 0..context.profile.pick(3, 5) {
        let arrivals = Arrivals::Rate {
            per_second: rate,
            seed: context.seed.wrapping_add(window),
        };
        // The first seconds of a rate bring caches and timers to it; they are run and not counted.
        if window == 0 {
            stand.run(count.min(50), arrivals).await?;
            floor.run(count.min(50), arrivals).await?;
        }
        let records = stand.run(count, arrivals).await?;
        ours.push(Times::from_iter(stand::overheads(&records)?));
        let times = floor.run(count, arrivals).await?;
        bare.push(Times::from_iter(
            times.iter().map(|(first, last)| last.saturating_sub(*first)),
        ));
    }
    let each = |windows: &[Times], quantile| windows.iter().map(|w| w.ms(quantile)).collect::<Vec<_>>();
    let (p50, floor_p50) = (each(&ours, 0.5), each(&bare, 0.5));
    let blocks: u64 = ours.iter().map(Times::len).sum();
    context
        .record("overhead")
        .with("rate", rate)
        .with("verify", verify)
        .with("added_rtt_ms", 0.0)
        .with("p50_ms", median(&p50))
        .with("p99_ms", median(&each(&ours, 0.99)))
        .with("floor_p50_ms", median(&floor_p50))
        .with("floor_p99_ms", median(&each(&bare, 0.99)))
        .with("p50_spread_ms", spread(&p50).to_vec())
        .with("floor_p50_spread_ms", spread(&floor_p50).to_vec())
        .with("blocks", blocks)
        .publish()
}
