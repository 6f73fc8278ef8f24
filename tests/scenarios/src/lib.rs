//! What the scenarios share: pipelines as text, the services as processes, and what can be seen of
//! them from outside.
//!
//! A scenario looks only at what an operator or another service could look at: records, dead letters,
//! heartbeats, metrics, logs.

use push0_bus::{Bus, Kept, Signals, Stream};
use push0_domain::{
    PipelineId, ProverId,
    message::{DeadLetter, Emission, EmissionOutcome, Event, Happening, Held, Lease, Proof},
    subject::{self, Kind},
};
use push0_harness::{Broker, Deployment, DeploymentBuilder, Process, ProcessBuilder, wait_for};
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Far beyond what anything here takes on a busy machine, below the limit of a test.
pub const PATIENCE: Duration = Duration::from_secs(25);

/// The zkVM of pipelines that need only one.
pub const MOCK: &str = "mock";

/// A pipeline `demo` of blocks that the test publishes, with one task a block, whose proof is
/// verified. `stage` holds the stage's remaining keys.
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

/// The pipeline that [`single`] describes.
pub fn demo() -> PipelineId {
    PipelineId::new("demo").expect("a name")
}

/// A deployment of one pipeline as shipped, with these adapters: two of each control service, each under its
/// own account.
pub async fn deploy(pipeline: &str, adapters: impl IntoIterator<Item = ProcessBuilder>) -> Deployment {
    let builder = Deployment::builder().as_shipped().pipeline(pipeline);
    let builder = adapters.into_iter().fold(builder, DeploymentBuilder::service);
    builder.start().await
}

/// A mock prover under its own name, 20 ms an attempt.
pub fn prover(name: &str) -> ProcessBuilder {
    adapter(name).env("PUSH0_MOCK__TIME", "20ms")
}

/// A verifier of the mock's proofs.
pub fn verifier(name: &str) -> ProcessBuilder {
    adapter(name).arg("--verify")
}

fn adapter(name: &str) -> ProcessBuilder {
    Process::program("prover-mock")
        .label(name)
        .env("PUSH0_PROVER__ID", name)
        .env("PUSH0_PROVER__ZKVM", MOCK)
}

/// The proofs of a block that was proved.
///
/// # Panics
/// It was not.
#[track_caller]
pub fn proofs(kept: &Kept<Emission>) -> &[Proof] {
    let outcome = &kept.body.as_ref().expect("a readable record").outcome;
    let proved = match outcome {
        EmissionOutcome::Proved(proofs) => Some(&proofs[..]),
        EmissionOutcome::Dead { .. } | EmissionOutcome::Abandoned(_) => None,
    };
    proved.unwrap_or_else(|| unreachable!("{} is not proved: {outcome:?}", kept.subject))
}

/// What became of a block.
///
/// # Panics
/// Its record cannot be read.
#[track_caller]
pub fn outcome(kept: &Kept<Emission>) -> &EmissionOutcome {
    &kept.body.as_ref().expect("a readable record").outcome
}

/// What a process counts in all series of a metric whose text begins like this, such as
/// `push0_attempts_total{outcome="completed"`.
pub async fn count(process: &Process, series: &str) -> u64 {
    let text = process.metrics().await;
    let values = text
        .lines()
        .filter(|line| line.starts_with(series))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    values.sum()
}

/// What all processes of a program count in all series of a metric whose text begins like this.
pub async fn count_of<B: Broker>(deployment: &Deployment<B>, program: &str, series: &str) -> u64 {
    let mut sum = 0;
    for process in deployment.instances(program) {
        sum += count(process, series).await;
    }
    sum
}

/// How many attempts a prover ended with this outcome.
pub async fn attempts(process: &Process, outcome: &str) -> u64 {
    count(process, &format!("push0_attempts_total{{outcome=\"{outcome}\"}}")).await
}

/// All dead letters.
pub async fn dead_letters(bus: &Bus) -> Vec<DeadLetter> {
    let letters = bus
        .scan::<DeadLetter>(Stream::Dead, &subject::all(Kind::Dead), 1, usize::MAX)
        .await;
    let letters = letters.expect("the dead letters are read");
    letters
        .into_iter()
        .map(|kept| kept.body.expect("a readable letter"))
        .collect()
}

/// Runs the operator's command on a deployment, and returns what it says.
///
/// # Panics
/// It fails.
pub async fn push0<B: Broker>(deployment: &Deployment<B>, args: &[&str]) -> String {
    let command = args
        .iter()
        .fold(deployment.command(), |command, arg| command.arg(*arg));
    let command = command.start();
    let status = command.wait_exit(PATIENCE).await;
    assert!(status.success(), "push0 {args:?}: {status}: {}", command.log());
    command.log()
}

/// The newest heartbeat of a prover of [`MOCK`].
pub async fn lease(bus: &Bus, prover: &str) -> Option<Lease> {
    lease_on(bus, MOCK, prover).await
}

/// The newest heartbeat of a prover of any zkVM.
pub async fn lease_on(bus: &Bus, zkvm: &str, prover: &str) -> Option<Lease> {
    let zkvm = zkvm.parse().expect("a name");
    let subject = subject::lease(&zkvm, &prover.parse().expect("a name"));
    let kept = bus.last::<Lease>(Stream::Leases, &subject).await;
    kept.expect("the leases are read")?.body.ok()
}

/// Waits until a prover runs an attempt, and says which.
pub async fn running(bus: &Bus, prover: &str) -> Held {
    running_on(bus, MOCK, prover).await
}

/// The same of a prover of any zkVM.
pub async fn running_on(bus: &Bus, zkvm: &str, prover: &str) -> Held {
    wait_for(&format!("a running attempt on {prover}"), PATIENCE, async || {
        let held = lease_on(bus, zkvm, prover).await?.held;
        held.into_iter().find(|held| held.running_ms.is_some())
    })
    .await
}

/// Which of these provers runs an attempt for this block first. What it ran before may still stand in
/// its newest heartbeat.
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

/// Listens for heartbeats until one satisfies, and returns it. Nothing is missed between two looks,
/// unlike in what is stored.
///
/// # Panics
/// None does within [`PATIENCE`].
pub async fn heartbeat(signals: &mut Signals, what: &str, satisfies: impl Fn(&Lease) -> bool) -> Lease {
    heard(signals, what, satisfies).await
}

/// Listens until something happens that satisfies, and returns it.
///
/// # Panics
/// Nothing does within [`PATIENCE`].
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

/// Whether a prover other than `not` runs the task that `held` is about.
pub fn runs_elsewhere(lease: &Lease, held: &Held, not: &ProverId) -> bool {
    let runs = |other: &Held| other.header.id == held.header.id && other.running_ms.is_some();
    lease.prover != *not && lease.held.iter().any(runs)
}

/// Waits until a stream holds nothing.
pub async fn drained(bus: &Bus, stream: Stream) {
    drained_within(bus, stream, PATIENCE).await;
}

async fn drained_within(bus: &Bus, stream: Stream, patience: Duration) {
    wait_for(&format!("an empty {}", stream.name()), patience, async || {
        let level = bus.level(stream).await.map_err(|e| e.to_string())?;
        if level.messages == 0 {
            Ok(())
        } else {
            Err(format!("{} messages", level.messages))
        }
    })
    .await;
}

/// Waits until nothing is on its way any more: whatever was asked for was either done or given up.
pub async fn settled(bus: &Bus) {
    settled_within(bus, PATIENCE).await;
}

/// The same, where it takes longer.
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
