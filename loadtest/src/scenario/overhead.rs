//! Overhead of orchestration for a block: from block stored to record stored, less the time inside provers.
//! The floor runs on the same broker in alternating windows.
//!
//! With an added round trip, the services and the floor's relays reach the broker through a proxy that
//! delays. The publisher of the blocks is not delayed.

use crate::{
    floor::{self, Floor},
    record::{Context, Profile},
    stand::{self, Arrivals, Stand},
    stats::Windows,
};
use std::time::Duration;

/// Enough slots that no block waits for one.
const SLOTS: u32 = 64;
/// Delay added to each round trip to the broker, in milliseconds.
const ADDED_RTTS_MS: [u64; 3] = [0, 1, 2];

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    for verify in [false, true] {
        for added_rtt_ms in ADDED_RTTS_MS {
            // A delay affects verification in the same way as the rest, so the quick profile combines only
            // one of the two.
            if context.profile == Profile::Full || !verify || added_rtt_ms == 0 {
                over_wire(context, verify, added_rtt_ms).await?;
            }
        }
    }
    Ok(())
}

async fn over_wire(context: &Context, verify: bool, added_rtt_ms: u64) -> anyhow::Result<()> {
    let mut builder = stand::services().service(stand::prover("p1", SLOTS, Duration::ZERO));
    if verify {
        builder = builder.service(stand::verifier("v1", SLOTS));
    }
    if added_rtt_ms > 0 {
        builder = builder.proxied();
    }
    let mut stand = Stand::start(builder, &stand::single(verify)).await?;
    if added_rtt_ms > 0 {
        stand
            .deployment
            .proxy()
            .delay(Duration::from_millis(added_rtt_ms));
    }
    stand.run(50, Arrivals::AtOnce).await?;
    let sizes = floor::sizes(&mut stand, verify).await?;
    let mut floor = Floor::start(&stand, &sizes).await?;
    let rates: &[f64] = context
        .profile
        .pick(&[20.0, 100.0], &[1.0, 20.0, 50.0, 75.0, 100.0, 500.0]);
    for rate in rates {
        let windows = match context.profile {
            Profile::Full if added_rtt_ms == 0 && *rate > 1.0 => 5,
            _ => 3,
        };
        let (ours, bare) = at_rate(context, &mut stand, &mut floor, *rate, windows).await?;
        let record = context
            .record("overhead")
            .with("rate", *rate)
            .with("verify", verify)
            .with("added_rtt_ms", added_rtt_ms);
        bare.put("floor_", ours.put("", record))
            .ratio("ratio_p50", "p50_ms", "floor_p50_ms")
            .ratio("ratio_p99", "p99_ms", "floor_p99_ms")
            .with("blocks", ours.len())
            .publish()?;
    }
    Ok(())
}

/// Runs alternating windows of push0 and of the floor at this rate.
async fn at_rate(
    context: &Context,
    stand: &mut Stand,
    floor: &mut Floor,
    rate: f64,
    windows: u64,
) -> anyhow::Result<(Windows, Windows)> {
    let seconds = context.profile.pick(4.0, if rate > 1.0 { 15.0 } else { 30.0 });
    let count = (rate * seconds) as u64;
    let (mut ours, mut bare) = (Windows::default(), Windows::default());
    for window in 0..windows {
        let arrivals = Arrivals::Rate {
            per_second: rate,
            seed: context.seed.wrapping_add(window),
        };
        // The first seconds at a rate warm up caches and timers, so they are not counted.
        if window == 0 {
            stand.run(count.min(50), arrivals).await?;
            floor.run(count.min(50), arrivals).await?;
        }
        ours.push(stand::overheads(&stand.run(count, arrivals).await?)?);
        let passed = floor.run(count, arrivals).await?;
        bare.push(passed.iter().map(floor::Passed::whole));
    }
    Ok((ours, bare))
}
