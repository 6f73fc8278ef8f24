//! Utilisation of many provers: X(n) · t / n for the throughput X of n saturated provers of time t.
//!
//! Up to 64 provers are processes with one slot each. More provers are slots of a few processes, and the
//! record says so. X counts from the first block stored to the last record stored, so the time to fill the
//! provers at the start and to drain them at the end is charged too. `t` is the time measured by the provers.
//! `efficiency_nominal` uses the configured time instead, and so charges late timers as well.

use crate::{
    record::{Context, Profile},
    stand::{self, Arrivals, Stand},
    stats::{median, round, spread},
    usage::Meter,
};
use std::time::Duration;

/// Most processes with a single slot. With more, the machine would mostly switch between processes.
const PROCESSES_MAX: u32 = 64;
/// Slots of each process when there are more provers than that.
const SLOTS: u32 = 128;
/// Most blocks of a run.
const BLOCKS_MAX: u64 = 40_000;

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let counts: &[u32] = context.profile.pick(&[32], &[1, 2, 4, 8, 16, 32, 64, 256, 1024]);
    let times: &[u64] = context.profile.pick(&[10, 100, 1000], &[10, 100, 1000, 7000]);
    let counts = context.provers.map_or_else(|| counts.to_vec(), |one| vec![one]);
    let times = context.prove_ms.map_or_else(|| times.to_vec(), |one| vec![one]);
    for provers in counts {
        anyhow::ensure!(
            provers > 0 && (provers <= PROCESSES_MAX || provers.is_multiple_of(SLOTS)),
            "{provers} provers: expected 1 to {PROCESSES_MAX}, or a multiple of {SLOTS}"
        );
        for millis in &times {
            measure(context, provers, Duration::from_millis(*millis), "auto").await?;
        }
    }
    if context.provers.is_some() || context.prove_ms.is_some() {
        return Ok(());
    }
    // By default, a prover gets a task ahead of a long attempt only shortly before the end of that attempt.
    // This run measures the cost of the default against `always`.
    measure(context, 32, Duration::from_secs(1), "always").await
}

async fn measure(context: &Context, provers: u32, time: Duration, ahead: &str) -> anyhow::Result<()> {
    let slots = if provers > PROCESSES_MAX { SLOTS } else { 1 };
    let processes = provers / slots;
    let labels: Vec<String> = (1..=processes).map(|n| format!("p{n}")).collect();
    let builder = labels.iter().fold(stand::services(), |builder, label| {
        builder.service(stand::prover(label, slots, time).env("PUSH0_PROVER__AHEAD", ahead))
    });
    let mut stand = Stand::start(builder, &stand::single(false)).await?;
    let warm_up = if time < Duration::from_secs(1) { 3 } else { 1 };
    stand.run(u64::from(provers) * warm_up, Arrivals::AtOnce).await?;
    // Whole rounds, at least eight, so that start and end weigh little.
    let rounds = context.profile.pick(4.0, 15.0) / time.as_secs_f64();
    let count = (u64::from(provers) * (rounds as u64).max(8)).min(BLOCKS_MAX);
    let repetitions = match context.profile {
        Profile::Quick if time >= Duration::from_secs(1) => 1,
        Profile::Full if time > Duration::from_secs(1) => 1,
        _ => 3,
    };
    let (mut measured, mut nominal) = (Vec::new(), Vec::new());
    let meter = Meter::start(&stand, &labels).await;
    for _ in 0..repetitions {
        let ran = Ran::of(&stand.run(count, Arrivals::AtOnce).await?)?;
        measured.push(round(ran.efficiency(ran.prove_s, provers)));
        nominal.push(round(ran.efficiency(time.as_secs_f64(), provers)));
    }
    let record = context
        .record("scaling")
        .with("provers", provers)
        .with("prove_ms", u64::try_from(time.as_millis())?)
        .with("ahead", ahead);
    let ran = measured.len() as u64 * count;
    meter
        .put(&stand, ran, record)
        .await
        .with("efficiency", median(&measured))
        .with("efficiency_nominal", median(&nominal))
        .with("efficiency_spread", spread(&measured).to_vec())
        .with("processes", processes)
        .with("slots", slots)
        .with("blocks", count)
        .publish()
}

/// Figures of a saturated run.
struct Ran {
    per_second: f64,
    /// Mean time of an attempt, in seconds.
    prove_s: f64,
}

impl Ran {
    fn of(records: &[push0_bus::Kept<push0_domain::message::Emission>]) -> anyhow::Result<Self> {
        let mut busy_us = 0;
        for kept in records {
            busy_us += stand::proved(kept)?.busy_us();
        }
        let blocks = records.len() as f64;
        Ok(Self {
            per_second: blocks / stand::drained_s(records)?,
            prove_s: busy_us as f64 / blocks / 1e6,
        })
    }

    fn efficiency(&self, prove_s: f64, provers: u32) -> f64 {
        self.per_second * prove_s / f64::from(provers)
    }
}
