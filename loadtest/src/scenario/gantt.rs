//! A picture of a block: attempts of its tasks by process and time, from the messages as they pass.

use crate::{
    record::Context,
    stand::{self, Arrivals, Stand},
};
use push0_bus::Signals;
use push0_domain::{
    message::{ResultEvent, Task, TaskResult},
    subject::{self, Kind},
    task::TaskId,
};
use serde_json::{Value, json};
use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;

const PIPELINE: &str = r#"name = "load"
source = { kind = "external" }
[[proof]]
type = "main"
zkvm = "step"
verify = "final"
[[proof.stage]]
name = "split"
kind = "split"
zkvm = "splitter"
timeout = "10s"
[[proof.stage]]
name = "prove"
kind = "map"
timeout = "10s"
[[proof.stage]]
name = "join"
kind = "join"
zkvm = "aggregator"
timeout = "20s"
"#;

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let prover = |id: &str, zkvm: &str, millis: u64| {
        stand::prover(id, 1, Duration::from_millis(millis))
            .env("PUSH0_PROVER__ZKVM", zkvm)
            .env("PUSH0_MOCK__SPLIT", 10)
    };
    let verifier = stand::verifier("verifier", 1)
        .env("PUSH0_PROVER__ZKVM", "aggregator")
        .env("PUSH0_MOCK__VERIFY_TIME", "30ms");
    let mut builder = stand::services()
        .service(prover("splitter", "splitter", 20))
        .service(prover("aggregator", "aggregator", 400))
        .service(verifier);
    for n in 1..=3 {
        builder = builder.service(prover(&format!("step-{n}"), "step", 100));
    }
    let mut stand = Stand::start(builder, PIPELINE).await?;
    stand.run(2, Arrivals::AtOnce).await?;
    let kinds = [
        Kind::Block,
        Kind::Task,
        Kind::Check,
        Kind::Result,
        Kind::Verdict,
        Kind::Proof,
    ];
    let signals = stand.bus().listen(kinds.map(subject::all)).await?;
    let (records, spans) = tokio::join!(stand.run(1, Arrivals::AtOnce), spans(signals));
    records?;
    context.record("gantt").with("spans", spans?).publish()
}

/// Returns the attempts of one block, until its record passes: `[who, what, released, began, ended]`, in
/// milliseconds since the block passed.
async fn spans(mut signals: Signals) -> anyhow::Result<Value> {
    let mut start = Instant::now();
    let (mut released, mut spans) = (HashMap::<TaskId, f64>::new(), Vec::new());
    loop {
        let signal = signals.next().await?;
        let at = start.elapsed().as_secs_f64() * 1000.0;
        let mut ended = |result: TaskResult| {
            let task = &result.header.id;
            let released = released.insert(task.clone(), at).unwrap_or(at);
            let (who, what, took) = match result.verdict {
                Some(verdict) => (
                    verdict.verifier,
                    format!("verify {}", task.stage.stage),
                    verdict.verify_us,
                ),
                None => (
                    result.prover,
                    format!("{} {}", task.stage.stage, task.index),
                    result.prove_us,
                ),
            };
            spans.push(json!([who, what, released, at - took as f64 / 1000.0, at]));
        };
        match Kind::of(signal.subject()) {
            Some(Kind::Block) => start = Instant::now(),
            Some(Kind::Task) => {
                released.insert(signal.body::<Task>()?.header.id, at);
            }
            Some(Kind::Check) => ended(signal.body()?),
            Some(Kind::Result | Kind::Verdict) => {
                if let ResultEvent::Attempt(result) = signal.body()? {
                    ended(result);
                }
            }
            Some(Kind::Proof) => {
                spans.push(json!(["collector", "emitted", at, at, at]));
                return Ok(json!(spans));
            }
            _ => {}
        }
    }
}
