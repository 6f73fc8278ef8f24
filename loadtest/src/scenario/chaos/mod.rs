//! Random kills, freezes and restarts of all processes while blocks arrive, with outages of a dependency and of all
//! verifiers, and second processes of a prover's name. Afterwards all faults are healed, the streams are drained, and
//! the output is compared with the submitted blocks.
//!
//! A seed fixes the schedule of faults and blocks; the effect of each fault depends on the machine. There are
//! two pipelines: one of split, prove and join with a verified end, and one with an external program per
//! task. The budget of attempts is wide, because a prover is killed every few seconds and a task given up for
//! that reason would be no error of the orchestrator.

mod faults;
mod processes;
mod report;

use crate::{
    compare::Comparison,
    monitor::Monitor,
    record::Context,
    stand::{self, Arrivals},
};
use anyhow::bail;
use faults::{DEPENDENCY, Schedule, TWINS, VERIFIERS_AWAY};
use processes::SPLIT;
use push0_bus::{Bus, Stream};
use push0_domain::pipeline::Pipeline;
use push0_harness::{Deployment, DeploymentBuilder};
use std::{
    path::Path,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Blocks a second of each pipeline: about the capacity of two cores while services restart.
const RATE: f64 = 5.0;
/// Time limit for draining after all faults are healed.
const DRAIN: Duration = Duration::from_secs(90);

const MAIN: &str = r#"name = "chaos"
source = { kind = "external" }
[[proof]]
type = "main"
zkvm = "mock"
[[proof.stage]]
name = "split"
kind = "split"
timeout = "10s"
attempts = 3
[[proof.stage]]
name = "prove"
kind = "map"
timeout = "10s"
attempts = 3
[[proof.stage]]
name = "join"
kind = "join"
timeout = "10s"
attempts = 3
"#;

const EXEC: &str = r#"name = "programs"
source = { kind = "external" }
[[proof]]
type = "main"
zkvm = "exec"
verify = "off"
[[proof.stage]]
name = "prove"
kind = "map"
timeout = "10s"
attempts = 3
"#;

fn deployment(outage: &Path) -> DeploymentBuilder {
    let mut builder = Deployment::builder().as_shipped().pipeline(MAIN).pipeline(EXEC);
    for n in 1..=3 {
        let name = format!("{}{n}", processes::MOCK);
        builder = builder.service(processes::mock(&name, &name));
    }
    for verifier in processes::VERIFIERS {
        builder = builder.service(processes::verifier(verifier));
    }
    for n in 1..=2 {
        builder = builder.service(processes::exec(&format!("exec-{n}"), outage));
    }
    builder
}

/// Returns everything that a fault may hit, besides the brokers.
fn breakable() -> Vec<String> {
    let mut names = processes::victims();
    // A second process of a name twice: most draws find a broker or the prover in trouble.
    names.extend([DEPENDENCY, VERIFIERS_AWAY, TWINS, TWINS].map(ToOwned::to_owned));
    names
}

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let folder = TempDir::new()?;
    let outage = folder.path().join("outage");
    let mut deployment = deployment(&outage).start_cluster(context.brokers).await;
    let bus = deployment.bus().clone();
    let main = Pipeline::from_toml("chaos.toml", MAIN)?.name;
    let programs = Pipeline::from_toml("programs.toml", EXEC)?.name;
    let count = (RATE * context.seconds as f64) as u64;
    let numbers: Vec<u64> = (1..=count).collect();
    let mut pipelines = Vec::new();
    for name in [&main, &programs] {
        let Some(pipeline) = deployment.pipelines().current_of(name).await? else {
            bail!("{name} was not applied");
        };
        stand::know(&bus, &pipeline, 1..count + 1).await?;
        pipelines.push(pipeline);
    }
    let length = Duration::from_secs(context.seconds);
    let schedule = Schedule::draw(context.seed, length, &breakable(), context.brokers);
    let monitor = Monitor::listen(&bus).await?;
    let arrivals = |n| Arrivals::Rate {
        per_second: RATE,
        seed: context.seed.wrapping_add(n),
    };
    let work = async {
        tokio::join!(
            stand::publish(&bus, &pipelines[0], &numbers, arrivals(1)),
            stand::publish(&bus, &pipelines[1], &numbers, arrivals(2)),
            schedule.carry_out(&mut deployment, &monitor, &outage),
        )
    };
    let (first, second, injected) = tokio::select! {
        done = work => done,
        error = monitor.follow() => return Err(error),
    };
    first?;
    second?;
    let twins = injected?;
    let healed = Instant::now();
    let mut drained = Vec::new();
    for pipeline in &pipelines {
        drained.push(stand::wait_emitted(&bus, &pipeline.name, count, DRAIN).await);
    }
    let drain = healed.elapsed();
    let mut verdicts = Vec::new();
    for pipeline in &pipelines {
        verdicts.push(Comparison::of(&bus, &pipeline.name, 1..=count).await?);
    }
    let sum = |of: fn(&Comparison) -> u64| verdicts.iter().map(of).sum::<u64>();
    let lost = sum(|v| v.lost.len() as u64);
    let (duplicates, inversions) = (sum(|v| v.duplicates), sum(|v| v.inversions));
    // No block is at fault, so each dead one was condemned for the fault of something else.
    let dead = sum(|v| v.dead.len() as u64);
    let reassigned = monitor.reassigned();
    context
        .record("chaos")
        .with("brokers", context.brokers)
        .with("blocks", 2 * count)
        .with("tasks", count * (SPLIT + 2) + count)
        .with("faults", schedule.faults.len())
        .with("lost", lost)
        .with("duplicates", duplicates)
        .with("inversions", inversions)
        .with("dead", dead)
        .with("twins", twins.started)
        .with("twins_not_refused", twins.not_refused.len())
        .with("reassign_ms_p50", reassigned.ms(0.5))
        .with("reassign_ms_p99", reassigned.ms(0.99))
        .with("reassigned", reassigned.len())
        .with("drain_s", crate::rounding::round(drain.as_secs_f64()))
        .with("left", left(&bus).await?)
        .with("seconds", context.seconds)
        .publish()?;
    let not_refused = twins.not_refused.len() as u64;
    if lost + duplicates + inversions + dead + not_refused == 0 {
        return Ok(());
    }
    let answers = report::ask(&deployment, pipelines.iter().zip(&verdicts)).await;
    report::keep(context, deployment, &schedule.faults)?;
    // The end of a log is what a failed build shows.
    answers.iter().for_each(|answer| eprintln!("{answer}"));
    for error in drained.into_iter().filter_map(Result::err) {
        eprintln!("{error:#}");
    }
    for (pipeline, verdict) in pipelines.iter().zip(&verdicts) {
        eprintln!("{}: {verdict:?}", pipeline.name);
    }
    twins.not_refused.iter().for_each(|why| eprintln!("{why}"));
    bail!(
        "{lost} blocks lost, {dead} dead, {duplicates} emitted twice, {inversions} out of order, {not_refused} of {} \
         second processes of a name not refused: run again with --seed {}",
        twins.started,
        context.seed
    )
}

/// Returns the number of messages left in the work streams after all blocks are emitted. The streams should
/// be empty within a moment.
async fn left(bus: &Bus) -> anyhow::Result<u64> {
    let streams = [
        Stream::Blocks,
        Stream::Stages,
        Stream::Tasks,
        Stream::Checks,
        Stream::Results,
    ];
    let mut left = 0;
    for _ in 0..100 {
        left = 0;
        for stream in streams {
            left += bus.level(stream).await?.messages;
        }
        if left == 0 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(left)
}
