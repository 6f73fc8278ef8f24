//! Each process dies once in the middle of the work, and then all processes are replaced in turn.

use push0_harness::{Anvil, Deployment, assert_complete_in_order};
use push0_scenarios::{PATIENCE, dead_letters, demo, deploy, prover, settled, single, verifier};
use std::time::Duration;

/// Enough attempts that the deaths in these tests use up no task's budget.
const STAGE: &str = "timeout = \"10s\"\nattempts = 5";

async fn start() -> Deployment {
    deploy(&single(STAGE), [prover("p1"), prover("p2"), verifier("v1")]).await
}

/// Publishes `count` more blocks after block `before`, and waits until a quarter of them are emitted. The
/// other blocks are then in flight, in every stream.
async fn load(deployment: &Deployment, before: u64, count: u64) {
    deployment
        .submit_blocks(&demo(), before + 1..=before + count)
        .await;
    let emitted = usize::try_from(before + count / 4).expect("a small number");
    deployment.wait_emitted(&demo(), emitted, PATIENCE).await;
}

async fn assert_all_came(deployment: &Deployment, last: u64) {
    let count = usize::try_from(last).expect("a small number");
    deployment.wait_emitted(&demo(), count, PATIENCE).await;
    // A late redelivery might cause a second emission, so wait until all streams are empty.
    settled(deployment.bus()).await;
    assert_complete_in_order(&deployment.emissions(&demo()).await, 1..=last);
    assert_eq!(dead_letters(deployment.bus()).await, []);
}

/// Kills the leader of two control services, or the only adapter with this label, in the middle of 60 blocks.
async fn survives_the_death_of(name: &str) {
    let mut deployment = start().await;
    load(&deployment, 0, 60).await;
    let label = deployment.victim(name).await;
    deployment.service_mut(&label).restart();
    deployment.submit_blocks(&demo(), 61..=80).await;
    assert_all_came(&deployment, 80).await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_when_the_dispatcher_is_killed() {
    survives_the_death_of("dispatcher").await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_when_the_collector_is_killed() {
    survives_the_death_of("collector").await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_when_the_watchdog_is_killed() {
    survives_the_death_of("watchdog").await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_when_a_prover_is_killed() {
    survives_the_death_of("p1").await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_when_the_verifier_is_killed() {
    survives_the_death_of("v1").await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_when_the_broker_is_killed() {
    let mut deployment = start().await;
    load(&deployment, 0, 60).await;
    deployment.nats.restart().await;
    deployment.submit_blocks(&demo(), 61..=80).await;
    assert_all_came(&deployment, 80).await;
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_when_the_ingester_is_killed() {
    let anvil = Anvil::start(None).await;
    let chain = single(STAGE).replace(
        "{ kind = \"external\" }",
        &format!(
            "{{ kind = \"ethereum\", rpc_url = \"{}\", start = 1, poll = \"50ms\", witness = \"number\" }}",
            anvil.url()
        ),
    );
    let mut deployment = deploy(&chain, [prover("p1"), prover("p2"), verifier("v1")]).await;
    for (killed, mined) in (1..=4).map(|round| (round, 20)) {
        anvil.mine(mined).await;
        // Each round waits for one more of the new blocks than the round before, so the ingester dies while
        // it publishes the others.
        deployment
            .wait_emitted(&demo(), (killed - 1) * 20 + killed, PATIENCE)
            .await;
        // Only one of the two publishes, and both die, so the test need not know which.
        for label in ["ingester-1", "ingester-2"] {
            deployment.service_mut(label).restart();
        }
    }
    assert_all_came(&deployment, 80).await;
}

#[tokio::test]
async fn every_service_in_turn_is_stopped_and_replaced_under_load() {
    let mut deployment = start().await;
    let mut published = 0;
    let control = ["ingester", "dispatcher", "collector", "watchdog"];
    let control = control
        .into_iter()
        .flat_map(|name| [format!("{name}-1"), format!("{name}-2")]);
    let adapters = ["p1", "p2", "v1"].map(str::to_owned);
    for label in control.chain(adapters) {
        load(&deployment, published, 20).await;
        published += 20;
        let service = deployment.service_mut(&label);
        service.terminate();
        let status = service.wait_exit(Duration::from_secs(10)).await;
        assert!(status.success(), "{label} ended with {status}");
        service.restart();
        deployment.ready().await;
    }
    assert_all_came(&deployment, published).await;
}
