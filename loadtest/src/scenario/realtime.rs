//! Share of proofs ready by the deadline, with one attempt and with a second copy of slow attempts.
//!
//! All times are a twentieth of the real ones (slots of 12 s, a deadline of 10 s, proofs of mean 7 s and p95
//! 11 s, a copy after 3 s), so the overhead of orchestration weighs twenty times as much as in reality.
//! Blocks arrive as from five chains with staggered slots.
//!
//! The model draws the same proving times as the mock prover and adds no overhead.

use crate::{
    record::Context,
    stand::{self, Arrivals, Stand},
    stats::round,
};
use push0_bus::now;
use push0_domain::{
    Timestamp,
    message::{Outcome, ResultEvent},
    subject::{self, Kind},
    task::StageKey,
};
use push0_harness::{Process, synthetic_block};
use std::{collections::HashMap, time::Duration};

const SLOT: Duration = Duration::from_millis(600);
const CHAINS: u32 = 5;
const DEADLINE: Duration = Duration::from_millis(500);
const MEAN_MS: f64 = 350.0;
const P95_MS: f64 = 550.0;
const HEDGE_MS: f64 = 150.0;
const Z95: f64 = 1.644_853_6;

struct Run {
    hit_rate: f64,
    work_us: u64,
}

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let count = context.profile.pick(400, 2_000);
    let plain = measure(context, count, false).await?;
    let hedged = measure(context, count, true).await?;
    let (model, model_hedged) = model(context.seed, count)?;
    let off = (plain.hit_rate - model)
        .abs()
        .max((hedged.hit_rate - model_hedged).abs());
    context
        .record("realtime")
        .with("hit_rate", round(plain.hit_rate))
        .with("hit_rate_hedged", round(hedged.hit_rate))
        .with("model_hit_rate", round(model))
        .with("model_hit_rate_hedged", round(model_hedged))
        .with("off_model", round(off))
        .with(
            "work_ratio",
            round(hedged.work_us as f64 / plain.work_us.max(1) as f64),
        )
        .with("blocks", count)
        .publish()
}

async fn measure(context: &Context, count: u64, hedge: bool) -> anyhow::Result<Run> {
    let mut toml = stand::single(false);
    if hedge {
        toml.push_str(&format!("hedge_after = \"{HEDGE_MS}ms\"\n"));
    }
    let provers = (1..=2).map(|n| {
        let id = format!("p{n}");
        Process::program("prover-mock")
            .label(&id)
            .env("PUSH0_PROVER__ID", &id)
            .env("PUSH0_PROVER__SLOTS", 16)
            .env("PUSH0_MOCK__LOGNORMAL_MEAN", format!("{MEAN_MS}ms"))
            .env("PUSH0_MOCK__LOGNORMAL_P95", format!("{P95_MS}ms"))
            .env("PUSH0_MOCK__SEED", context.seed)
    });
    let builder = provers.fold(stand::services(), |builder, prover| builder.service(prover));
    let mut stand = Stand::start(builder, &toml).await?;
    let mut signals = stand.bus().listen([subject::all(Kind::Result)]).await?;
    let mut ready: HashMap<u64, Timestamp> = HashMap::new();
    let mut work_us = 0;
    let arrivals = Arrivals::Every(SLOT / CHAINS);
    let hear = async {
        loop {
            let ResultEvent::Attempt(result) = signals.next().await?.body()? else {
                continue;
            };
            work_us += result.prove_us;
            if matches!(result.outcome, Outcome::Completed { .. }) {
                ready
                    .entry(result.header.id.stage.block.number)
                    .or_insert_with(now);
            }
        }
    };
    let records = tokio::select! {
        records = stand.run(count, arrivals) => records?,
        heard = hear => return heard,
    };
    let mut hits = 0;
    for kept in &records {
        let emission = stand::proved(kept)?;
        let at = ready
            .get(&emission.first.number)
            .copied()
            .unwrap_or(kept.stored_at);
        hits += u64::from(at.since(emission.stored_at) <= DEADLINE);
    }
    Ok(Run {
        hit_rate: hits as f64 / count as f64,
        work_us,
    })
}

/// Returns the shares of blocks ready in time with one attempt, and with a copy of slow attempts.
fn model(seed: u64, count: u64) -> anyhow::Result<(f64, f64)> {
    let (mut one, mut two) = (0, 0);
    let deadline = DEADLINE.as_secs_f64() * 1000.0;
    for number in 1..=count {
        let pipeline = "load".parse()?;
        let stage = StageKey {
            block: synthetic_block(&pipeline, number),
            pipeline,
            first: None,
            proof_type: "main".parse()?,
            stage: "prove".parse()?,
        };
        let time = |attempt| proving_ms(seed, &stage.task(0).attempt(attempt).to_string());
        one += u64::from(time(1) <= deadline);
        two += u64::from(time(1).min(HEDGE_MS + time(2)) <= deadline);
    }
    Ok((one as f64 / count as f64, two as f64 / count as f64))
}

/// Returns the proving time that the mock prover draws for an attempt, in milliseconds.
fn proving_ms(seed: u64, attempt: &str) -> f64 {
    let mut hasher = blake3::Hasher::new_derive_key("push0 prover-mock dice v1");
    hasher.update(&seed.to_le_bytes()).update(attempt.as_bytes());
    let mut dice = hasher.finalize_xof();
    let mut unit = || {
        let mut bytes = [0; 8];
        dice.fill(&mut bytes);
        (u64::from_le_bytes(bytes) >> 11) as f64 / (1_u64 << 53) as f64
    };
    // The mock prover draws six numbers for the fate of the attempt before its time.
    for _ in 0..6 {
        let _ = unit();
    }
    let (radius, angle) = (1.0 - unit(), unit());
    let normal = (-2.0 * radius.ln()).sqrt() * (std::f64::consts::TAU * angle).cos();
    let ratio = (P95_MS / MEAN_MS).ln();
    let s = Z95 - (Z95 * Z95 - 2.0 * ratio).max(0.0).sqrt();
    MEAN_MS * (s * normal - s * s / 2.0).exp()
}
