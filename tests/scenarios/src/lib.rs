//! Shared parts of the scenarios: pipelines as text, services as processes, and observation from outside.
//!
//! A scenario observes only the outside of services, as an operator can: records, dead letters,
//! heartbeats, metrics and logs.

use push0_bus::{Bus, Kept, Signals, Stream};
use push0_domain::{
    PipelineId, ProverId,
    message::{DeadLetter, Emission, EmissionOutcome, Event, Happening, Held, Lease, Proof},
    subject::{self, Kind},
};
use push0_harness::{Broker, Deployment, DeploymentBuilder, Process, ProcessBuilder, wait_for};
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Time limit of waits: far above the duration of any step on a busy machine, below the limit of a test.
pub const PATIENCE: Duration = Duration::from_secs(25);

/// The zkVM of pipelines with a single zkVM.
pub const MOCK: &str = "mock";

/// Returns a pipeline `demo` of blocks published by the test, with one verified task per block. `stage` holds
/// the remaining keys of the stage.
pub fn single(stage: &str) -> String {
    format!(
        r#"
        name = "demo"
        source = {{ kind = "external" }}
        [[proof]]
        type = "main"
        zkvm = "{MOCK}"
        [[proof.stage]]
        name = "prove"
        kind = "map"
        {stage}
        "#
    )
}

/// Returns the name of the pipeline of [`single`].
pub fn demo() -> PipelineId {
    PipelineId::new("demo").expect("a name")
}

/// Starts a shipped deployment of one pipeline with these adapters: two of each control service, each process
/// with its own account.
pub async fn deploy(pipeline: &str, adapters: impl IntoIterator<Item = ProcessBuilder>) -> Deployment {
    let builder = Deployment::builder().as_shipped().pipeline(pipeline);
    let builder = adapters.into_iter().fold(builder, DeploymentBuilder::service);
    builder.start().await
}

/// Returns a mock prover with this id, which takes 20 ms per attempt.
pub fn prover(name: &str) -> ProcessBuilder {
    adapter(name).env("PUSH0_MOCK__TIME", "20ms")
}

/// Returns a verifier of the mock's proofs.
pub fn verifier(name: &str) -> ProcessBuilder {
    adapter(name).arg("--verify")
}

fn adapter(name: &str) -> ProcessBuilder {
    Process::program("prover-mock")
        .label(name)
        .env("PUSH0_PROVER__ID", name)
        .env("PUSH0_PROVER__ZKVM", MOCK)
}

/// Returns the proofs of a proved block.
///
/// # Panics
/// The block was not proved.
#[track_caller]
pub fn proofs(kept: &Kept<Emission>) -> &[Proof] {
    let outcome = &kept.body.as_ref().expect("a readable record").outcome;
    let proved = match outcome {
        EmissionOutcome::Proved(proofs) => Some(&proofs[..]),
        EmissionOutcome::Dead { .. } | EmissionOutcome::Abandoned(_) => None,
    };
    proved.unwrap_or_else(|| unreachable!("{} is not proved: {outcome:?}", kept.subject))
}

/// Returns the outcome in a block's record.
///
/// # Panics
/// The record cannot be read.
#[track_caller]
pub fn outcome(kept: &Kept<Emission>) -> &EmissionOutcome {
    &kept.body.as_ref().expect("a readable record").outcome
}

/// Returns the sum over all series of a process's metrics whose line begins with `series`, such as
/// `push0_attempts_total{outcome="completed"`.
pub async fn count(process: &Process, series: &str) -> u64 {
    let text = process.metrics().await;
    let values = text
        .lines()
        .filter(|line| line.starts_with(series))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    values.sum()
}

/// Returns the sum of [`count`] over all processes of a program.
pub async fn count_of<B: Broker>(deployment: &Deployment<B>, program: &str, series: &str) -> u64 {
    let mut sum = 0;
    for process in deployment.instances(program) {
        sum += count(process, series).await;
    }
    sum
}

/// Returns the number of a prover's attempts with this outcome.
pub async fn attempts(process: &Process, outcome: &str) -> u64 {
    count(process, &format!("push0_attempts_total{{outcome=\"{outcome}\"}}")).await
}

/// Returns all dead letters. Waits for an election of the stream's leader to end.
pub async fn dead_letters(bus: &Bus) -> Vec<DeadLetter> {
    let subjects = subject::all(Kind::Dead);
    let letters = wait_for("the dead letters", PATIENCE, async || {
        bus.scan::<DeadLetter>(Stream::Dead, &subjects, 1, usize::MAX)
            .await
            .map_err(|error| error.to_string())
    });
    letters
        .await
        .into_iter()
        .map(|kept| kept.body.expect("a readable letter"))
        .collect()
}

/// Runs the operator's command on a deployment, and returns its output.
///
/// # Panics
/// The command fails.
pub async fn push0<B: Broker>(deployment: &Deployment<B>, args: &[&str]) -> String {
    let command = args
        .iter()
        .fold(deployment.command(), |command, arg| command.arg(*arg));
    let command = command.start();
    let status = command.wait_exit(PATIENCE).await;
    assert!(status.success(), "push0 {args:?}: {status}: {}", command.log());
    command.log()
}

/// Returns the newest heartbeat of a prover of [`MOCK`].
pub async fn lease(bus: &Bus, prover: &str) -> Option<Lease> {
    lease_on(bus, MOCK, prover).await
}

/// Returns the newest heartbeat of a prover of any zkVM.
pub async fn lease_on(bus: &Bus, zkvm: &str, prover: &str) -> Option<Lease> {
    let zkvm = zkvm.parse().expect("a name");
    let subject = subject::lease(&zkvm, &prover.parse().expect("a name"));
    let kept = bus.last::<Lease>(Stream::Leases, &subject).await;
    kept.expect("the leases are read")?.body.ok()
}

/// Waits until a prover of [`MOCK`] runs an attempt, and returns the attempt.
pub async fn running(bus: &Bus, prover: &str) -> Held {
    running_on(bus, MOCK, prover).await
}

/// Waits until a prover of any zkVM runs an attempt, and returns the attempt.
pub async fn running_on(bus: &Bus, zkvm: &str, prover: &str) -> Held {
    wait_for(&format!("a running attempt on {prover}"), PATIENCE, async || {
        let held = lease_on(bus, zkvm, prover).await?.held;
        held.into_iter().find(|held| held.running_ms.is_some())
    })
    .await
}

/// Returns the first of these provers to run an attempt for block `number`. The number is compared because a
/// prover's newest heartbeat may still hold an earlier attempt.
pub async fn first_running<'a>(bus: &Bus, provers: &[&'a str], number: u64) -> (&'a str, Held) {
    wait_for("a running attempt", PATIENCE, async || {
        for prover in provers {
            let held = lease(bus, prover)
                .await
                .map(|lease| lease.held)
                .unwrap_or_default();
            let runs = |held: &Held| held.running_ms.is_some() && held.header.id.stage.block.number == number;
            if let Some(held) = held.into_iter().find(runs) {
                return Some((*prover, held));
            }
        }
        None
    })
    .await
}

/// Listens for heartbeats until one satisfies the predicate, and returns the heartbeat. Unlike reads of the
/// stored leases, listening misses no heartbeat.
///
/// # Panics
/// No heartbeat satisfies the predicate within [`PATIENCE`].
pub async fn heartbeat(signals: &mut Signals, what: &str, satisfies: impl Fn(&Lease) -> bool) -> Lease {
    heard(signals, what, satisfies).await
}

/// Listens for events until one satisfies the predicate, and returns its happening.
///
/// # Panics
/// No event satisfies the predicate within [`PATIENCE`].
pub async fn happening(
    signals: &mut Signals,
    what: &str,
    satisfies: impl Fn(&Happening) -> bool,
) -> Happening {
    let event: Event = heard(signals, what, |event: &Event| satisfies(&event.what)).await;
    event.what
}

async fn heard<T: DeserializeOwned>(signals: &mut Signals, what: &str, satisfies: impl Fn(&T) -> bool) -> T {
    let heard = async {
        loop {
            let signal = signals.next().await.expect("signals come");
            match signal.body::<T>() {
                Ok(body) if satisfies(&body) => return body,
                _ => {}
            }
        }
    };
    let heard = tokio::time::timeout(PATIENCE, heard).await;
    heard.unwrap_or_else(|_| unreachable!("not heard in {PATIENCE:?}: {what}"))
}

/// Returns whether a prover other than `not` runs the task of `held`.
pub fn runs_elsewhere(lease: &Lease, held: &Held, not: &ProverId) -> bool {
    let runs = |other: &Held| other.header.id == held.header.id && other.running_ms.is_some();
    lease.prover != *not && lease.held.iter().any(runs)
}

/// Waits until a stream is empty.
pub async fn drained(bus: &Bus, stream: Stream) {
    drained_within(bus, stream, PATIENCE).await;
}

async fn drained_within(bus: &Bus, stream: Stream, patience: Duration) {
    wait_for(&format!("an empty {}", stream.name()), patience, async || {
        let level = bus.level(stream).await.map_err(|e| e.to_string())?;
        if level.messages == 0 {
            return Ok(());
        }
        let subjects = bus.subjects(stream, ">").await.map_err(|e| e.to_string())?;
        let some: Vec<&str> = subjects
            .iter()
            .take(5)
            .map(|(subject, _)| subject.as_str())
            .collect();
        Err(format!(
            "{} messages, among them {}",
            level.messages,
            some.join(" ")
        ))
    })
    .await;
}

/// Waits until all work streams are empty: every requested proof was either made or given up.
pub async fn settled(bus: &Bus) {
    settled_within(bus, PATIENCE).await;
}

/// Waits like [`settled`], with this time limit.
pub async fn settled_within(bus: &Bus, patience: Duration) {
    for stream in [
        Stream::Blocks,
        Stream::Stages,
        Stream::Tasks,
        Stream::Checks,
        Stream::Results,
    ] {
        drained_within(bus, stream, patience).await;
    }
}
