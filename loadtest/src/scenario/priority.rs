//! Whether a task ever starts while a more urgent one waits.
//!
//! 50 blocks of 40 tasks of 100 ms come in a random order, for 16 provers of one slot. A start is an
//! inversion if a task of an older block has then been ready for longer than one task takes and has
//! not started: that long a prover may have had its next task already.

use crate::{
    record::Context,
    stand::{self, Arrivals, Stand},
    stats::round,
};
use anyhow::Context as _;
use push0_bus::{Signals, now};
use push0_domain::{
    Payload,
    message::{Outcome, ResultEvent, StageReady, TaskResult},
    subject::{self, Kind},
};
use push0_harness::ProcessBuilder;
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use std::{collections::HashMap, time::Duration};

const PROVERS: u32 = 16;
const BLOCKS: u64 = 50;
const TASKS: u64 = 40;
const TIME: Duration = Duration::from_millis(100);
const PIPELINE: &str = r#"name = "load"
source = { kind = "external" }
[[proof]]
type = "main"
zkvm = "mock"
verify = "off"
[[proof.stage]]
name = "split"
kind = "split"
zkvm = "splitter"
timeout = "60s"
[[proof.stage]]
name = "prove"
kind = "map"
timeout = "60s"
[[proof.stage]]
name = "join"
kind = "join"
zkvm = "joiner"
timeout = "60s"
"#;

/// A task that was started.
#[derive(Clone, Copy, Debug)]
struct Started {
    block: u64,
    ready_us: u64,
    began_us: u64,
}

fn quick(zkvm: &str) -> ProcessBuilder {
    stand::prover(zkvm, 16, Duration::ZERO)
        .env("PUSH0_PROVER__ZKVM", zkvm)
        .env("PUSH0_MOCK__SPLIT", TASKS)
}

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let provers =
        (1..=PROVERS).map(|n| stand::prover(&format!("p{n}"), 1, TIME).env("PUSH0_MOCK__STAMP", true));
    let helpers = ["splitter", "joiner"].map(quick);
    let builder = provers
        .chain(helpers)
        .fold(stand::services(), |b, prover| b.service(prover));
    let mut stand = Stand::start(builder, PIPELINE).await?;
    let stages = stand.bus().listen([subject::all(Kind::Stage)]).await?;
    let results = stand.bus().listen([subject::all(Kind::Result)]).await?;
    let numbers = stand.known(BLOCKS).await?;
    let mut shuffled: Vec<u64> = numbers.clone().collect();
    shuffled.shuffle(&mut StdRng::seed_from_u64(context.seed));
    let from = now();
    stand.publish(&shuffled, Arrivals::AtOnce).await?;
    let (started, longest_us) = started(stages, results).await?;
    stand.emitted(numbers, Duration::from_secs(60)).await?;
    context
        .record("priority")
        .with("inversions", inversions_of(&started, longest_us))
        .with("provers", PROVERS)
        .with("tasks", BLOCKS * TASKS)
        .with("blocks", BLOCKS)
        .with("task_ms", round(longest_us as f64 / 1000.0))
        .with("seconds", round(now().since(from).as_secs_f64()))
        .publish()
}

/// All tasks as they were ready and started, and the time that the longest took.
async fn started(mut stages: Signals, mut results: Signals) -> anyhow::Result<(Vec<Started>, u64)> {
    let mut ready: HashMap<u64, u64> = HashMap::new();
    let (mut ended, mut longest_us) = (Vec::new(), 0);
    while (ended.len() as u64) < BLOCKS * TASKS {
        tokio::select! {
            biased;
            stage = stages.next() => {
                let stage: StageReady = stage?.body()?;
                ready.entry(stage.stage.block.number).or_insert_with(|| now().0);
            }
            result = results.next() => {
                let ResultEvent::Attempt(result) = result?.body()? else { continue };
                if result.header.of as u64 == TASKS {
                    longest_us = longest_us.max(result.prove_us);
                    ended.push((result.header.id.stage.block.number, began_us(&result)?));
                }
            }
        }
    }
    let started = ended.into_iter().map(|(block, began_us)| {
        let ready_us = *ready
            .get(&block)
            .context("a task of a stage that was not heard of")?;
        Ok(Started {
            block,
            ready_us,
            began_us,
        })
    });
    Ok((started.collect::<anyhow::Result<_>>()?, longest_us))
}

fn began_us(result: &TaskResult) -> anyhow::Result<u64> {
    let Outcome::Completed { outputs } = &result.outcome else {
        anyhow::bail!("an attempt failed: {:?}", result.outcome);
    };
    let Some(Payload::Inline(output)) = outputs.get(0) else {
        anyhow::bail!("a task without a short output: {outputs:?}");
    };
    let output: serde_json::Value = serde_json::from_slice(&output)?;
    output["began_us"].as_u64().context("an output without a stamp")
}

/// How many started while a more urgent one had been ready for longer than `within_us`.
fn inversions_of(started: &[Started], within_us: u64) -> usize {
    let waits = |this: &Started, other: &Started| {
        other.block < this.block
            && other.began_us > this.began_us
            && other.ready_us + within_us < this.began_us
    };
    let is_inversion = |this: &&Started| started.iter().any(|other| waits(this, other));
    started.iter().filter(is_inversion).count()
}

/// How many pairs stand in the wrong order.
pub(crate) fn inversions(order: &[u64]) -> u64 {
    let after = |at: usize| order[at + 1..].iter().filter(|later| **later < order[at]).count() as u64;
    (0..order.len()).map(after).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_in_the_wrong_order_are_counted() {
        assert_eq!(inversions(&[1, 2, 3]), 0);
        assert_eq!(inversions(&[3, 2, 1]), 3);
        assert_eq!(inversions(&[2, 1, 3]), 1);
    }

    #[test]
    fn a_start_beside_a_more_urgent_task_that_is_ready_for_long_is_an_inversion() {
        let task = |block, ready_us, began_us| Started {
            block,
            ready_us,
            began_us,
        };
        let (urgent, late) = (task(1, 0, 500), task(2, 0, 300));
        assert_eq!(inversions_of(&[urgent, late], 100), 1);
        assert_eq!(
            inversions_of(&[urgent, late], 300),
            0,
            "ready for no longer than a task"
        );
        assert_eq!(inversions_of(&[task(1, 0, 200), late], 100), 0, "started before");
        assert_eq!(inversions_of(&[task(3, 0, 500), late], 100), 0, "less urgent");
    }
}
