//! How busy many provers are kept: X(n) · t / n for the throughput X of n saturated places of time t.
//!
//! A place is one of eight slots of a process: thirty-two processes would measure how two cores
//! switch between them. `t` is what the provers measured (a timer is up to a millisecond late, which
//! at 10 ms is not the orchestrator's); `efficiency_nominal` takes what they were told instead.

use crate::{
    record::Context,
    stand::{self, Arrivals, Stand},
    stats::{median, round, spread, steady_rate},
};
use push0_domain::message::EmissionOutcome;
use std::time::Duration;

const SLOTS: u32 = 8;

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let counts: &[u32] = context.profile.pick(&[32], &[1, 8, 32, 64]);
    for provers in counts {
        for millis in [1000, 100, 10] {
            measure(context, *provers, Duration::from_millis(millis)).await?;
        }
    }
    Ok(())
}

async fn measure(context: &Context, provers: u32, time: Duration) -> anyhow::Result<()> {
    let slots = provers.min(SLOTS);
    let processes = provers / slots;
    let all = (1..=processes).map(|n| stand::prover(&format!("p{n}"), slots, time));
    let builder = all.fold(stand::services(), |builder, prover| builder.service(prover));
    let mut stand = Stand::start(builder, &stand::single(false)).await?;
    stand.run(u64::from(provers) * 3, Arrivals::AtOnce).await?;
    let per_second = f64::from(provers) / time.as_secs_f64();
    let seconds = context.profile.pick(4.0, 10.0);
    // Whole rounds, at least eight, so that the middle of the run is saturated.
    let count = ((per_second * seconds) as u64).max(u64::from(provers) * 8);
    let (mut measured, mut nominal) = (Vec::new(), Vec::new());
    for _ in 0..context
        .profile
        .pick(if time.as_millis() >= 1000 { 1 } else { 3 }, 3)
    {
        let records = stand.run(count, Arrivals::AtOnce).await?;
        let rate = if time.as_millis() >= 1000 {
            whole(&records)?
        } else {
            steady_rate(&stand::stored_times(&records))
        };
        let mut busy = 0;
        for kept in &records {
            if let EmissionOutcome::Proved(proofs) = &stand::proved(kept)?.outcome {
                busy += proofs.iter().map(|proof| proof.prove_us).sum::<u64>();
            }
        }
        let mean = busy as f64 / records.len() as f64 / 1e6;
        measured.push(round(rate * mean / f64::from(provers)));
        nominal.push(round(rate * time.as_secs_f64() / f64::from(provers)));
    }
    context
        .record("scaling")
        .with("provers", provers)
        .with("prove_ms", u64::try_from(time.as_millis())?)
        .with("efficiency", median(&measured))
        .with("efficiency_nominal", median(&nominal))
        .with("efficiency_spread", spread(&measured).to_vec())
        .with("processes", processes)
        .with("blocks", count)
        .publish()
}

/// Long attempts end in rounds, all at once: the rate over the whole run counts no part of one.
fn whole(records: &[push0_bus::Kept<push0_domain::message::Emission>]) -> anyhow::Result<f64> {
    let mut first = u64::MAX;
    for kept in records {
        first = first.min(stand::proved(kept)?.stored_at.0);
    }
    let last = stand::stored_times(records).last().copied().unwrap_or_default();
    Ok(records.len() as f64 * 1e6 / last.saturating_sub(first).max(1) as f64)
}
