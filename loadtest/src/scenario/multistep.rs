//! The demonstration's pipeline: a block is split into ten steps of one second for three provers, whose
//! proofs are joined in four seconds. The ideal is 4 rounds of 1 s and 4 s: 8 s a block.

use crate::{
    record::Context,
    stand::{self, Arrivals, Stand},
    stats::{median, round, spread},
};
use push0_harness::ProcessBuilder;
use std::time::Duration;

fn prover(id: &str, zkvm: &str, time: Duration) -> ProcessBuilder {
    stand::prover(id, 1, time)
        .env("PUSH0_PROVER__ZKVM", zkvm)
        .env("PUSH0_MOCK__SPLIT", 10)
}

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let second = Duration::from_secs(1);
    let mut builder = stand::services()
        .service(prover("splitter-1", "splitter", Duration::ZERO))
        .service(prover("aggregator-1", "aggregator", 4 * second));
    for n in 1..=3 {
        builder = builder.service(prover(&format!("step-{n}"), "step", second));
    }
    let mut stand = Stand::start(builder, &stand::parts("splitter", "step", "aggregator")).await?;
    let (mut took, mut overhead) = (Vec::new(), Vec::new());
    for _ in 0..context.profile.pick(3, 10) {
        let records = stand.run(1, Arrivals::AtOnce).await?;
        for kept in &records {
            let from = stand::proved(kept)?.stored_at;
            let passed: Duration = kept.stored_at.since(from);
            took.push(round(passed.as_secs_f64()));
            overhead.push(round(passed.as_secs_f64() * 1000.0 - 8000.0));
        }
    }
    context
        .record("multistep")
        .with("block_s_p50", median(&took))
        .with("ideal_s", 8.0)
        .with("over_ideal_ms", median(&overhead))
        .with("spread_s", spread(&took).to_vec())
        .publish()
}
