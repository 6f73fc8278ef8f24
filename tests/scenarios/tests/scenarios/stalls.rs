//! Provers that stand still for a while: copies start elsewhere at once, and no attempt is given up.

use push0_domain::{
    ProverId,
    message::Happening,
    subject::{self, Kind},
};
use push0_harness::{Deployment, ProcessBuilder, assert_complete_in_order};
use push0_scenarios::{
    PATIENCE, attempts, count_of, dead_letters, demo, deploy, first_running, happening, heartbeat, proofs,
    prover, running, runs_elsewhere, settled, single, verifier,
};
use std::time::Duration;

fn slow(name: &str, time: &str) -> ProcessBuilder {
    prover(name).env("PUSH0_MOCK__TIME", time)
}

fn name(text: &str) -> ProverId {
    text.parse().expect("a name")
}

async fn acts(deployment: &Deployment, act: &str) -> u64 {
    let series = format!("push0_watchdog_acts_total{{act=\"{act}\"}}");
    count_of(deployment, "watchdog", &series).await
}

/// Stops a prover until it is suspected and the condition is met, and starts it again.
async fn stall(deployment: &Deployment, label: &str, meanwhile: impl AsyncFnOnce()) {
    let listening = deployment.bus().listen([subject::all(Kind::Event)]).await;
    let mut events = listening.expect("listening");
    let id = name(label);
    deployment.service(label).pause();
    let suspected =
        |what: &Happening| matches!(what, Happening::ProverSuspected { prover, .. } if *prover == id);
    happening(&mut events, "a suspicion", suspected).await;
    meanwhile().await;
    deployment.service(label).resume();
    let back = |what: &Happening| matches!(what, Happening::ProverBack { prover, .. } if *prover == id);
    happening(&mut events, "a return", back).await;
}

/// T12: all provers of a long proof stand still in turn, the newest copy's always last. Its budget of three attempts is
/// not touched, and the first proof counts.
#[tokio::test]
async fn three_short_stalls_of_a_long_proof_cost_nothing_but_a_copy() {
    let provers = ["p1", "p2", "p3"];
    let adapters = provers
        .map(|name| slow(name, "9s"))
        .into_iter()
        .chain([verifier("v1")]);
    let deployment = deploy(&single("timeout = \"30s\"\nattempts = 3"), adapters).await;
    deployment.submit_blocks(&demo(), 1..=1).await;
    let (first, held) = first_running(deployment.bus(), &provers, 1).await;
    let mut second = None;
    stall(&deployment, first, async || {
        let mut heartbeats = deployment
            .bus()
            .listen([subject::all(Kind::Lease)])
            .await
            .expect("listening");
        let copied = |lease: &_| runs_elsewhere(lease, &held, &name(first));
        second = Some(
            heartbeat(&mut heartbeats, "a copy elsewhere", copied)
                .await
                .prover,
        );
    })
    .await;
    let second = second.expect("it was heard");
    let others = provers.iter().filter(|p| **p != first && **p != second.as_str());
    for label in [second.as_str()].into_iter().chain(others.copied()) {
        stall(&deployment, label, async || {}).await;
    }
    let emissions = deployment.wait_emitted(&demo(), 1, PATIENCE).await;
    let proof = &proofs(&emissions[0])[0];
    assert_eq!((proof.prover.as_str(), proof.attempt), (first, 1));
    settled(deployment.bus()).await;
    assert_eq!(dead_letters(deployment.bus()).await, []);
    assert_eq!(
        (acts(&deployment, "died").await, acts(&deployment, "copied").await),
        (0, 1)
    );
    assert_eq!(attempts(deployment.service(second.as_str()), "stopped").await, 1);
}

/// T44: the consumer of the tasks has a history, and one of two provers stands still for 15 s, as in swap or while its
/// machine is migrated.
#[tokio::test]
async fn no_block_waits_longer_than_a_second_while_a_prover_stands_still() {
    const BLOCKS: u64 = 25;
    let adapters = [slow("p1", "200ms"), slow("p2", "200ms"), verifier("v1")];
    let deployment = deploy(&single("timeout = \"10s\""), adapters).await;
    deployment.submit_blocks(&demo(), 1..=5).await;
    deployment.wait_emitted(&demo(), 5, PATIENCE).await;
    // The pace of a chain: one block a second.
    let mut pace = tokio::time::interval(Duration::from_secs(1));
    for number in 6..=BLOCKS {
        pace.tick().await;
        match number {
            8 => deployment.service("p1").pause(),
            23 => deployment.service("p1").resume(),
            _ => {}
        }
        deployment.submit_blocks(&demo(), number..=number).await;
    }
    let count = usize::try_from(BLOCKS).expect("small");
    let emissions = deployment.wait_emitted(&demo(), count, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=BLOCKS);
    let waited = emissions.iter().map(|kept| {
        let record = kept.body.as_ref().expect("readable");
        kept.stored_at.since(record.stored_at)
    });
    let longest = waited.max().expect("some");
    println!(
        "the longest wait from block to record was {} ms",
        longest.as_millis()
    );
    assert!(longest < Duration::from_millis(1800), "{longest:?}");
    settled(deployment.bus()).await;
    assert_eq!(dead_letters(deployment.bus()).await, []);
}

fn of_p1(label: &str, time: &str) -> ProcessBuilder {
    slow("p1", time).label(label)
}

/// T27: a copied configuration. The second process does not start, and says why.
#[tokio::test]
async fn a_second_process_of_a_name_is_refused_and_running_work_is_untouched() {
    let mut deployment = deploy(&single("timeout = \"30s\""), [slow("p1", "4s"), verifier("v1")]).await;
    deployment.submit_blocks(&demo(), 1..=1).await;
    let held = running(deployment.bus(), "p1").await;
    let second = deployment.start_service(of_p1("second", "4s"));
    let status = second.wait_exit(PATIENCE).await;
    assert_eq!(status.code(), Some(64), "{status}");
    let (log, pid) = (second.log(), second.pid());
    let first = deployment.service("p1").pid();
    for said in [
        "the name `p1` is taken by",
        &format!("process {first} on"),
        &format!("process {pid} on"),
    ] {
        assert!(log.contains(said), "no `{said}`: {log}");
    }
    let emissions = deployment.wait_emitted(&demo(), 1, PATIENCE).await;
    assert_eq!(proofs(&emissions[0])[0].attempt, held.header.attempt);
    settled(deployment.bus()).await;
    assert_eq!(
        acts(&deployment, "died").await + acts(&deployment, "copied").await,
        0
    );
    // The name of a killed process is free at once.
    deployment.service("p1").kill();
    deployment.service_mut("second").restart();
    deployment.ready().await;
    deployment.submit_blocks(&demo(), 2..=2).await;
    deployment.wait_emitted(&demo(), 2, PATIENCE).await;
}

/// A process that stands still does not hold up another one of its name for long. When it is back, both go on, and
/// operators are told.
#[tokio::test]
async fn two_living_processes_of_one_name_are_reported_and_both_go_on() {
    let mut deployment = deploy(
        &single("timeout = \"30s\""),
        [slow("p1", "300ms"), verifier("v1")],
    )
    .await;
    let listening = deployment.bus().listen([subject::all(Kind::Event)]).await;
    let mut events = listening.expect("listening");
    deployment.service("p1").pause();
    let second = deployment.start_service(of_p1("second", "300ms")).pid();
    deployment.service("second").ready(PATIENCE).await;
    deployment.service("p1").resume();
    let twice = |what: &Happening| matches!(what, Happening::NameTakenTwice { .. });
    let happened = happening(&mut events, "two of a name", twice).await;
    let Happening::NameTakenTwice { prover, origins } = happened else {
        unreachable!("asked for")
    };
    let mut pids: Vec<u32> = origins.iter().map(|origin| origin.pid).collect();
    pids.sort_unstable();
    let mut both = [deployment.service("p1").pid(), second];
    both.sort_unstable();
    assert_eq!((prover, &pids[..]), (name("p1"), &both[..]));
    deployment.submit_blocks(&demo(), 1..=8).await;
    deployment.wait_emitted(&demo(), 8, PATIENCE).await;
    settled(deployment.bus()).await;
    assert_eq!(acts(&deployment, "died").await, 0);
    let alive = ["p1", "second"].map(|label| deployment.service(label).is_running());
    assert_eq!(alive, [true, true]);
}
