//! Whether a task ever starts while a more urgent task waits.
//!
//! 50 blocks of 40 tasks of 100 ms arrive in a random order, for 16 provers of one slot. With such short
//! tasks, a prover holds its next task ahead, so a prover may start one less urgent task after a more urgent
//! task became ready. Every further such start, while the more urgent task waits, is an inversion.

use crate::{
    record::Context,
    stand::{self, Arrivals, Stand},
    stats::round,
};
use anyhow::Context as _;
use push0_bus::{Signals, now};
use push0_domain::{
    Payload, ProverId,
    message::{Outcome, ResultEvent, StageReady, TaskResult},
    subject::{self, Kind},
};
use push0_harness::ProcessBuilder;
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use std::{collections::BTreeMap, time::Duration};

const PROVERS: u32 = 16;
const BLOCKS: u64 = 50;
const TASKS: u64 = 40;
const TIME: Duration = Duration::from_millis(100);

/// Time for a stage to reach the dispatcher after this program heard of the stage, in microseconds.
const ON_ITS_WAY_US: u64 = 10_000;

/// The start of a task on a prover.
#[derive(Clone, Debug)]
struct Started {
    block: u64,
    prover: ProverId,
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
    let mut stand = Stand::start(builder, &stand::parts("splitter", "mock", "joiner")).await?;
    let stages = stand.bus().listen([subject::all(Kind::Stage)]).await?;
    let results = stand.bus().listen([subject::all(Kind::Result)]).await?;
    let numbers = stand.known(BLOCKS).await?;
    let mut shuffled: Vec<u64> = numbers.clone().collect();
    shuffled.shuffle(&mut StdRng::seed_from_u64(context.seed));
    let from = now();
    stand.publish(&shuffled, Arrivals::AtOnce).await?;
    let (ready, started) = started(stages, results).await?;
    stand.emitted(numbers, Duration::from_secs(60)).await?;
    context
        .record("priority")
        .with("inversions", inversions_of(&ready, &started))
        .with("provers", PROVERS)
        .with("tasks", BLOCKS * TASKS)
        .with("blocks", BLOCKS)
        .with("seconds", round(now().since(from).as_secs_f64()))
        .publish()
}

/// Returns the time in microseconds at which each block's tasks were ready, and all task starts.
async fn started(
    mut stages: Signals,
    mut results: Signals,
) -> anyhow::Result<(BTreeMap<u64, u64>, Vec<Started>)> {
    let (mut ready, mut started) = (BTreeMap::new(), Vec::new());
    while (started.len() as u64) < BLOCKS * TASKS {
        tokio::select! {
            biased;
            stage = stages.next() => {
                let stage: StageReady = stage?.body()?;
                ready.entry(stage.stage.block.number).or_insert_with(|| now().0 + ON_ITS_WAY_US);
            }
            result = results.next() => {
                let ResultEvent::Attempt(result) = result?.body()? else { continue };
                if u64::from(result.header.of) == TASKS {
                    started.push(Started {
                        block: result.header.id.stage.block.number,
                        began_us: began_us(&result)?,
                        prover: result.prover,
                    });
                }
            }
        }
    }
    Ok((ready, started))
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

/// Counts, for each block and prover, the less urgent tasks that the prover started between the moment
/// when the block's tasks were ready and the start of the last of them. The first such task of each
/// prover is allowed.
fn inversions_of(ready: &BTreeMap<u64, u64>, started: &[Started]) -> usize {
    let mut inversions = 0;
    for (block, ready_us) in ready {
        let own = started.iter().filter(|task| task.block == *block);
        let last_us = own.map(|task| task.began_us).max().unwrap_or(0);
        let mut passed: BTreeMap<&ProverId, usize> = BTreeMap::new();
        for task in started.iter().filter(|task| task.block > *block) {
            if (*ready_us..last_us).contains(&task.began_us) {
                *passed.entry(&task.prover).or_default() += 1;
            }
        }
        inversions += passed
            .values()
            .map(|count| count.saturating_sub(1))
            .sum::<usize>();
    }
    inversions
}

/// Counts pairs in the wrong order.
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
    fn a_second_less_urgent_start_while_a_block_waits_is_an_inversion() {
        let task = |block, prover: &str, began_us| Started {
            block,
            prover: prover.parse().expect("a name"),
            began_us,
        };
        let ready = BTreeMap::from([(1, 100), (2, 0)]);
        let waits = task(1, "a", 500);
        let count = |others: &[Started]| {
            let all: Vec<Started> = others.iter().chain([&waits]).cloned().collect();
            inversions_of(&ready, &all)
        };
        assert_eq!(
            count(&[task(2, "a", 300), task(2, "b", 300)]),
            0,
            "one for each prover"
        );
        assert_eq!(count(&[task(2, "a", 300), task(2, "a", 400)]), 1);
        assert_eq!(
            count(&[task(2, "a", 50), task(2, "a", 400)]),
            0,
            "before it was ready"
        );
        assert_eq!(
            count(&[task(2, "a", 300), task(2, "a", 600)]),
            0,
            "after it had started"
        );
    }
}
