//! One of three brokers in trouble: the longest time without a stored record, and any loss of blocks.
//!
//! Blocks arrive at a steady rate, and each fault hits the broker that leads one particular stream
//! or JetStream itself. The result is the longest time between two records, which fails the run above 10 s, as
//! does a `push0 status` that fails meanwhile. Kills of one broker after another have neither limit: they must
//! lose or double no block, and every stream must take messages afterwards.

mod fault;
mod health;

use crate::{
    record::{Context, Record},
    stand::{self, Arrivals},
    stats::round,
};
use anyhow::{Context as _, bail, ensure};
pub(crate) use fault::Fault;
use fault::Led;
use health::Positions;
use push0_bus::{Bus, Limits, Stream};
use push0_domain::{message::Emission, pipeline::Pipeline, subject};
use push0_harness::{Deployment, DeploymentBuilder, NatsCluster, Process};
use std::{ops::Range, path::Path, time::Duration};
use tokio::time::Instant;

/// Time between two blocks.
const EVERY: Duration = Duration::from_millis(100);
/// Time without trouble before a fault.
const BEFORE: Duration = Duration::from_secs(3);
/// Time for which blocks still arrive after the fault.
const AFTER: Duration = Duration::from_secs(10);
/// Time limit for all records to be stored afterwards.
const DRAIN: Duration = Duration::from_secs(90);
/// Delay of `push0 status` after the beginning of the fault.
const ASKED_AFTER: Duration = Duration::from_secs(2);
/// Time limit for `push0 status`.
const STATUS_MAX: Duration = Duration::from_secs(30);
/// Longest time without a record because of one broker, in seconds.
const PAUSE_MAX_S: f64 = 10.0;

/// Consequences of one fault.
#[derive(Clone, Copy, Debug, Default)]
struct Outcome {
    pause_s: f64,
    lost: u64,
    doubled: u64,
    wedged: u64,
    status_s: f64,
    status_failed: u64,
}

impl Outcome {
    /// Combines two outcomes: the worst time of each kind, the sum of each count, and the larger number
    /// of wedged streams.
    fn and(self, other: Self) -> Self {
        Self {
            pause_s: self.pause_s.max(other.pause_s),
            lost: self.lost + other.lost,
            doubled: self.doubled + other.doubled,
            wedged: self.wedged.max(other.wedged),
            status_s: self.status_s.max(other.status_s),
            status_failed: self.status_failed + other.status_failed,
        }
    }

    /// Returns the violations among these consequences. While brokers are killed one after another, a pause may
    /// be long and `push0 status` may find no broker.
    fn wrong(self, fault: Fault) -> Vec<String> {
        let mut wrong: Vec<String> = [
            (self.lost, "blocks lost"),
            (self.doubled, "blocks emitted twice"),
            (self.wedged, "streams that take no message, or unwell brokers"),
        ]
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
        if fault.is_of_one_broker() && self.pause_s > PAUSE_MAX_S {
            wrong.push(format!(
                "no record for {:.1} s, at most {PAUSE_MAX_S} s",
                self.pause_s
            ));
        }
        if fault.is_of_one_broker() && self.status_failed > 0 {
            wrong.push(format!("`push0 status` failed {} times", self.status_failed));
        }
        wrong
    }

    fn record(self, context: &Context, fault: Fault, leads: &str, times: u32) -> Record {
        context
            .record("brokers")
            .with("fault", fault.name())
            .with("leads", leads)
            .with("times", times)
            .with("pause_s_max", round(self.pause_s))
            .with("lost", self.lost)
            .with("doubled", self.doubled)
            .with("wedged", self.wedged)
            .with("status_s_max", round(self.status_s))
            .with("status_failed", self.status_failed)
    }
}

fn deployment() -> DeploymentBuilder {
    let limits = Limits {
        store_bytes: 4 << 30,
        ..Limits::default()
    };
    let builder = Deployment::builder().as_shipped().limits(limits);
    let builder = builder
        .env("PUSH0_TELEMETRY__LOG", "info")
        .pipeline(&stand::single(true));
    (1..=2).fold(builder, |builder, n| {
        builder
            .service(stand::prover(
                &format!("prover-{n}"),
                8,
                Duration::from_millis(50),
            ))
            .service(stand::verifier(&format!("verifier-{n}"), 8))
    })
}

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let mut bench = Bench::on(deployment().start_wired(3).await).await?;
    let times = context.times.unwrap_or(context.profile.pick(2, 20));
    let mut wrong = Vec::new();
    for fault in Fault::all().filter(|fault| context.fault.is_none_or(|only| only == *fault)) {
        let mut all = Outcome::default();
        for time in 0..times {
            let led = Led::nth(time);
            let outcome = bench.suffer(fault, led, time).await?;
            outcome.record(context, fault, led.name(), 1).publish()?;
            all = all.and(outcome);
        }
        all.record(context, fault, "each in turn", times).publish()?;
        let found = all.wrong(fault);
        if all.lost + all.doubled + all.wedged > 0 {
            return bench.keep(&found);
        }
        wrong.extend(
            found
                .into_iter()
                .map(|found| format!("{}: {found}", fault.name())),
        );
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

/// A deployment on three brokers, and the number of its next block.
struct Bench {
    deployment: Deployment<NatsCluster>,
    pipeline: Pipeline,
    next: u64,
}

impl Bench {
    async fn on(deployment: Deployment<NatsCluster>) -> anyhow::Result<Self> {
        let name = Pipeline::from_toml("load.toml", &stand::single(true))?.name;
        let current = deployment.pipelines().current_of(&name).await?;
        let pipeline = current.context("the pipeline was applied")?.as_ref().clone();
        Ok(Self {
            deployment,
            pipeline,
            next: 1,
        })
    }

    /// Publishes blocks, puts a broker into trouble and out of it again, and returns the consequences.
    async fn suffer(&mut self, fault: Fault, led: Led, time: u32) -> anyhow::Result<Outcome> {
        let cluster = &self.deployment.nats;
        let victim = match led.stream() {
            None => cluster.meta_leader().await,
            Some(stream) => cluster.leader_of(stream).await,
        };
        eprintln!("{fault:?} of n{victim}, which leads {}", led.name());
        let window = BEFORE + AFTER + fault.lasts();
        let count = u64::try_from(window.as_millis() / EVERY.as_millis())?;
        let numbers = self.next..self.next + count;
        self.next = numbers.end;
        let bus = self.deployment.bus().clone();
        stand::know(&bus, &self.pipeline, numbers.clone()).await?;
        let before = Positions::of(&self.deployment.nats).await;
        let listed: Vec<u64> = numbers.clone().collect();
        let urls = self.deployment.url();
        let operator = self.deployment.seed("operator").context("no accounts")?;
        let trouble = async {
            tokio::time::sleep(BEFORE).await;
            let status = async {
                tokio::time::sleep(ASKED_AFTER).await;
                status(&urls, &operator).await
            };
            let carried_out = fault.carry_out(&mut self.deployment.nats, victim, time);
            tokio::join!(carried_out, status).1
        };
        let publishing = stand::publish(&bus, &self.pipeline, &listed, Arrivals::Every(EVERY));
        let (published, answered) = tokio::join!(publishing, trouble);
        published?;
        let drained = stand::wait_emitted(&bus, &self.pipeline.name, numbers.end - 1, DRAIN).await;
        let wedged = before.wedged(&self.deployment.nats).await;
        let mut outcome = records(&bus, &self.pipeline, numbers).await?;
        outcome.wedged = wedged;
        match answered {
            Some(took) => outcome.status_s = took.as_secs_f64(),
            None => outcome.status_failed = 1,
        }
        if let Err(error) = drained {
            eprintln!("{error:#}");
        }
        Ok(outcome)
    }

    /// Leaves all processes' files for inspection.
    fn keep(self, wrong: &[String]) -> anyhow::Result<()> {
        for at in 0..self.deployment.nats.size() {
            let server = self.deployment.nats.server(at);
            eprintln!("--- n{at}, pid {}\n{}", server.pid(), server.log_tail());
        }
        // The system ends the processes together with this one, and the forgotten value
        // keeps their directories.
        std::mem::forget(self);
        bail!("{}; the brokers' logs are above", wrong.join("; "))
    }
}

/// Returns the time until `push0 status` answered; `None` if the command failed.
async fn status(urls: &str, seed: &Path) -> Option<Duration> {
    let began = Instant::now();
    let command = Process::program("push0")
        .arg("status")
        .arg("--json")
        .arg("--nats")
        .arg(urls)
        .env("PUSH0_NATS__NKEY_SEED", seed.display())
        .start();
    let ended = command.wait_exit(STATUS_MAX).await;
    // The command exits with 1 when it names problems, and problems are expected here.
    let has_answered = ended.success() || command.log().contains("\"problems\":[");
    if !has_answered {
        eprintln!("push0 status: {}", command.log());
    }
    has_answered.then(|| began.elapsed())
}

/// Returns the losses, duplicates and longest pause in the records of these blocks.
async fn records(bus: &Bus, pipeline: &Pipeline, numbers: Range<u64>) -> anyhow::Result<Outcome> {
    let mut stored = Vec::new();
    for number in numbers {
        let subject = subject::proof(&pipeline.name, number);
        let records = bus
            .scan::<Emission>(Stream::Proofs, &subject, 1, usize::MAX)
            .await?;
        stored.push(records.iter().map(|record| record.stored_at.0).collect());
    }
    Ok(tally(&stored))
}

/// Judges the instants in microseconds at which the records of each block were stored. A lost block and a
/// doubled one both count.
fn tally(stored: &[Vec<u64>]) -> Outcome {
    Outcome {
        pause_s: pause_s(stored.concat()),
        lost: stored.iter().filter(|times| times.is_empty()).count() as u64,
        doubled: stored
            .iter()
            .map(|times| times.len().saturating_sub(1) as u64)
            .sum(),
        ..Outcome::default()
    }
}

/// Returns the longest time between two of these instants in microseconds, less the usual gap, in seconds.
fn pause_s(mut at: Vec<u64>) -> f64 {
    at.sort_unstable();
    let mut gaps: Vec<u64> = at.windows(2).map(|two| two[1] - two[0]).collect();
    gaps.sort_unstable();
    let usual = EVERY.as_micros() as u64;
    gaps.last()
        .map_or(0.0, |longest| longest.saturating_sub(usual) as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_block_and_a_doubled_one_do_not_cancel_out() {
        let Outcome { lost, doubled, .. } = tally(&[vec![1], vec![], vec![2, 3], vec![]]);
        assert_eq!((lost, doubled), (2, 1));
    }

    #[test]
    fn a_long_pause_and_a_failed_status_fail_a_run_unless_several_brokers_are_killed() {
        let slow = Outcome {
            pause_s: 10.1,
            ..Outcome::default()
        };
        let silent = Outcome {
            status_failed: 1,
            ..Outcome::default()
        };
        let fine = Outcome {
            pause_s: 10.0,
            status_s: 29.0,
            ..Outcome::default()
        };
        for fault in Fault::all() {
            let is_judged = !matches!(fault, Fault::KilledInTurn | Fault::KilledOverlapping);
            assert_eq!(!slow.wrong(fault).is_empty(), is_judged, "{fault:?}");
            assert_eq!(!silent.wrong(fault).is_empty(), is_judged, "{fault:?}");
            assert_eq!(fine.wrong(fault), Vec::<String>::new(), "{fault:?}");
        }
    }

    #[test]
    fn harm_to_blocks_and_streams_fails_every_run() {
        let harms = [
            Outcome {
                lost: 1,
                ..Outcome::default()
            },
            Outcome {
                doubled: 1,
                ..Outcome::default()
            },
            Outcome {
                wedged: 1,
                ..Outcome::default()
            },
        ];
        for (harm, fault) in harms
            .iter()
            .flat_map(|harm| Fault::all().map(move |fault| (harm, fault)))
        {
            assert_eq!(harm.wrong(fault).len(), 1, "{harm:?} {fault:?}");
        }
    }

    #[test]
    fn a_pause_is_the_longest_gap_less_the_usual_one() {
        assert_eq!(pause_s(vec![]), 0.0);
        assert_eq!(pause_s(vec![0, 100_000, 200_000]), 0.0);
        assert_eq!(pause_s(vec![8_100_000, 0, 100_000, 8_150_000]), 7.9);
    }
}
