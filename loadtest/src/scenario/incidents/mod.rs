//! Incidents that cost time and must cost no block: each trial is one fault under a steady load, on the shipped
//! deployment. The lag is the time from the end of the fault until every block that was published before it is
//! in the output.

mod completed;
mod trial;

use crate::{
    record::Context,
    rounding::round,
    stand::{self, Arrivals, Stand},
};
use anyhow::Context as _;
use completed::Completed;
use push0_bus::{Bus, Stream};
use push0_domain::{
    PipelineId,
    message::{Emission, EmissionOutcome},
    subject,
};
use push0_harness::{Anvil, DeploymentBuilder};
use std::{collections::BTreeMap, ops::Range, path::Path, time::Duration};
use tempfile::TempDir;
use tokio::time::{Instant, sleep, sleep_until};
use trial::{PROVERS, Trial};

/// Blocks a second.
const RATE: u32 = 5;
const GAP: Duration = Duration::from_millis(1000 / RATE as u64);
/// Time limit for the output to catch up.
const PATIENCE: Duration = Duration::from_secs(120);
/// When the fault begins.
const BEGINS: Duration = Duration::from_secs(3);
/// For how long blocks still arrive after the fault.
const AFTER: Duration = Duration::from_secs(2);

/// The budget is small: a fault that is charged to a task shows as a dead block.
const PIPELINE: &str = "name = \"load\"\nsource = { kind = \"external\" }\n[[proof]]\ntype = \"main\"\nzkvm = \"exec\"\n\
                        verify = \"final\"\n[[proof.stage]]\nname = \"prove\"\nkind = \"map\"\ntimeout = \"20s\"\nattempts = 2\n\
                        retry = { first = \"100ms\", longest = \"2s\" }\n";

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let lasts = Duration::from_secs(context.profile.pick(8, 40));
    let mut harmed = 0;
    for trial in Trial::ALL {
        harmed += measure(context, trial, lasts)
            .await
            .with_context(|| format!("trial {}", trial.name()))?;
    }
    anyhow::ensure!(
        harmed == 0,
        "{harmed} blocks died or were recorded twice in incidents that are not theirs"
    );
    Ok(())
}

/// Runs a trial, and returns the number of blocks that it harmed.
async fn measure(context: &Context, trial: Trial, lasts: Duration) -> anyhow::Result<u64> {
    eprintln!("{}", trial.name());
    let folder = TempDir::new()?;
    let builder = trial.deployment(folder.path());
    let (stand, ran) = match trial {
        Trial::Node => behind_a_node(builder, lasts).await?,
        _ => under_arrivals(builder, trial, folder.path(), lasts).await?,
    };
    let Outcome { dead, recorded_twice } = outcome(stand.bus(), &stand.pipeline.name).await?;
    // Reports during an outage of the load test's own connection are known from the provers' counts alone.
    let counted = counted(&stand).await?.saturating_sub(ran.blocks);
    context
        .record("incidents")
        .with("trial", trial.name())
        .with("fault_s", lasts.as_secs())
        .with("blocks", ran.blocks)
        .with("dead", dead)
        .with("proved_twice", ran.proved_again.max(counted))
        .with("recorded_twice", recorded_twice)
        .with("lag_s", round(ran.lag.as_secs_f64()))
        .publish()?;
    Ok(dead + recorded_twice)
}

/// A trial that ended with a record of each block.
#[derive(Clone, Copy, Debug)]
struct Ran {
    blocks: u64,
    lag: Duration,
    /// Proofs of tasks that had one, as far as they were heard of.
    proved_again: u64,
}

/// Publishes blocks at a steady rate while the fault comes and goes.
async fn under_arrivals(
    builder: DeploymentBuilder,
    trial: Trial,
    folder: &Path,
    lasts: Duration,
) -> anyhow::Result<(Stand, Ran)> {
    let mut stand = Stand::start(builder, PIPELINE).await?;
    let seconds = (BEGINS + lasts + AFTER).as_secs();
    let numbers = stand.known(u64::from(RATE) * seconds).await?;
    let listed: Vec<u64> = numbers.clone().collect();
    let (bus, pipeline) = (stand.bus().clone(), stand.pipeline.clone());
    let mut completed = Completed::listen(&bus).await?;
    let began = Instant::now();
    let work = async {
        let publishing = stand::publish(&bus, &pipeline, &listed, Arrivals::Every(GAP));
        let fault = async {
            sleep_until(began + BEGINS).await;
            let healed = trial.inject(&mut stand.deployment, folder, lasts).await?;
            let before = published_by(healed.duration_since(began), &numbers);
            stand::wait_emitted(&bus, &pipeline.name, before, PATIENCE).await?;
            anyhow::Ok(healed.elapsed())
        };
        let (published, lag) = tokio::join!(publishing, fault);
        published?;
        stand::wait_emitted(&bus, &pipeline.name, numbers.end - 1, PATIENCE).await?;
        lag
    };
    let lag = tokio::select! {
        lag = work => lag?,
        error = completed.follow() => return Err(error),
    };
    let ran = Ran {
        blocks: listed.len() as u64,
        lag,
        proved_again: completed.again(),
    };
    Ok((stand, ran))
}

/// Takes blocks from a node that mines at a steady rate, stands still, and then has the missed blocks at once.
async fn behind_a_node(builder: DeploymentBuilder, lasts: Duration) -> anyhow::Result<(Stand, Ran)> {
    let anvil = Anvil::start(None).await;
    anvil.mine(1).await;
    let source = format!(
        "kind = \"ethereum\", rpc_url = \"{}\", start = 1, poll = \"100ms\"",
        anvil.url()
    );
    let toml = PIPELINE.replace("kind = \"external\"", &source);
    let stand = Stand::start(builder, &toml).await?;
    let mut completed = Completed::listen(stand.bus()).await?;
    let work = async {
        mine(&anvil, BEGINS).await;
        anvil.pause();
        sleep(lasts).await;
        anvil.resume();
        let healed = Instant::now();
        anvil.mine(u64::from(RATE) * lasts.as_secs()).await;
        let before = anvil.head().await;
        stand::wait_emitted(stand.bus(), &stand.pipeline.name, before, PATIENCE).await?;
        let lag = healed.elapsed();
        mine(&anvil, AFTER).await;
        let last = anvil.head().await;
        stand::wait_emitted(stand.bus(), &stand.pipeline.name, last, PATIENCE).await?;
        anyhow::Ok((last, lag))
    };
    let (blocks, lag) = tokio::select! {
        ran = work => ran?,
        error = completed.follow() => return Err(error),
    };
    let ran = Ran {
        blocks,
        lag,
        proved_again: completed.again(),
    };
    Ok((stand, ran))
}

/// Mines blocks at the steady rate for this long.
async fn mine(anvil: &Anvil, lasts: Duration) {
    let end = Instant::now() + lasts;
    while Instant::now() < end {
        anvil.mine(1).await;
        sleep(GAP).await;
    }
}

/// Returns the last of these blocks that was published within this time.
fn published_by(elapsed: Duration, numbers: &Range<u64>) -> u64 {
    let gaps = elapsed.as_nanos() / GAP.as_nanos();
    let gaps = u64::try_from(gaps).unwrap_or(u64::MAX);
    numbers.start.saturating_add(gaps).min(numbers.end - 1)
}

/// Returns the number of attempts that the provers have completed since their start.
async fn counted(stand: &Stand) -> anyhow::Result<u64> {
    let mut count = 0;
    for name in PROVERS {
        count += completed::of_prover(stand.deployment.service(name)).await?;
    }
    Ok(count)
}

/// The records of a trial's blocks.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    /// Blocks whose record is no proof.
    dead: u64,
    /// Records of blocks that had one already.
    recorded_twice: u64,
}

async fn outcome(bus: &Bus, pipeline: &PipelineId) -> anyhow::Result<Outcome> {
    let subjects = subject::proofs_of_pipeline(pipeline);
    let records = bus
        .scan::<Emission>(Stream::Proofs, &subjects, 1, usize::MAX)
        .await?;
    let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
    let mut dead = 0;
    for kept in records {
        let record = kept.body.with_context(|| kept.subject.clone())?;
        *seen.entry(record.last.number).or_default() += 1;
        dead += u64::from(!matches!(record.outcome, EmissionOutcome::Proved(_)));
    }
    let recorded_twice = seen.values().map(|times| times - 1).sum();
    Ok(Outcome { dead, recorded_twice })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_waits_for_every_block_published_before_the_end_of_the_fault_and_for_no_other() {
        let by = |millis| published_by(Duration::from_millis(millis), &(1..60));
        assert_eq!((by(0), by(199), by(200), by(11_000)), (1, 1, 2, 56));
        // The fault outlasted the arrivals.
        assert_eq!(by(60_000), 59);
    }
}
