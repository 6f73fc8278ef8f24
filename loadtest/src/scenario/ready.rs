//! Time until a prover starts a ready task, beside one bare hop, and the other parts of a block's time.
//!
//! A task is *ready* when the broker has stored the released task, and *started* when the prover's code is
//! called. The proof carries both times, so no observer is needed. The bare hop is the same step in the
//! floor: from stored to received.

use crate::{
    floor::{self, Floor, Passed},
    record::Context,
    stand::{self, Arrivals, Done, Stand},
    stats::Windows,
};
use std::time::Duration;

/// Parts of a block's time, for push0 or for the floor.
#[derive(Default)]
struct Parts {
    /// From block stored to task stored.
    dispatch: Windows,
    /// From task stored to the start of proving.
    start: Windows,
    /// From the end of proving to record stored.
    finish: Windows,
}

impl Parts {
    fn push(&mut self, each: &[[u64; 3]]) {
        let parts = [&mut self.dispatch, &mut self.start, &mut self.finish];
        for (at, part) in parts.into_iter().enumerate() {
            part.push(each.iter().map(|times| times[at]));
        }
    }
}

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let prover = stand::prover("p1", 64, Duration::ZERO).env("PUSH0_MOCK__STAMP", true);
    let mut stand = Stand::start(stand::services().service(prover), &stand::single(false)).await?;
    stand.run(200, Arrivals::AtOnce).await?;
    let sizes = floor::sizes(&mut stand, false).await?;
    let mut floor = Floor::start(&stand, &sizes).await?;
    let rates: &[f64] = context.profile.pick(&[20.0, 100.0], &[20.0, 100.0, 500.0]);
    for rate in rates {
        at_rate(context, &mut stand, &mut floor, *rate).await?;
    }
    Ok(())
}

async fn at_rate(context: &Context, stand: &mut Stand, floor: &mut Floor, rate: f64) -> anyhow::Result<()> {
    let count = (rate * context.profile.pick(4.0, 15.0)) as u64;
    let (mut ours, mut bare) = (Parts::default(), Parts::default());
    for window in 0..context.profile.pick(3, 5) {
        let arrivals = Arrivals::Rate {
            per_second: rate,
            seed: context.seed.wrapping_add(window),
        };
        let records = stand.run(count, arrivals).await?;
        let done: Vec<Done> = records.iter().map(Done::of).collect::<Result<_, _>>()?;
        let parts = |done: &Done| {
            [
                done.released_us.saturating_sub(done.stored_us),
                done.began_us.saturating_sub(done.released_us),
                done.done_us.saturating_sub(done.began_us + done.busy_us),
            ]
        };
        ours.push(&done.iter().map(parts).collect::<Vec<_>>());
        let passed = floor.run(count, arrivals).await?;
        let parts = |p: &Passed| {
            [
                p.second.saturating_sub(p.first),
                p.hop(),
                p.last.saturating_sub(p.received),
            ]
        };
        bare.push(&passed.iter().map(parts).collect::<Vec<_>>());
    }
    let record = context.record("ready").with("rate", rate);
    let record = bare.start.put("hop_", ours.start.put("", record));
    record
        .ratio("ratio_p50", "p50_ms", "hop_p50_ms")
        .with("dispatch_p50_ms", ours.dispatch.ms(0.5))
        .with("floor_dispatch_p50_ms", bare.dispatch.ms(0.5))
        .with("finish_p50_ms", ours.finish.ms(0.5))
        .with("floor_finish_p50_ms", bare.finish.ms(0.5))
        .with("blocks", ours.start.len())
        .publish()
}
