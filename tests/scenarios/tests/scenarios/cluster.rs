//! Three brokers that keep three copies: one is lost, and then the one that leads.

use push0_bus::Stream;
use push0_harness::{Deployment, DeploymentBuilder, NatsCluster, assert_complete_in_order};
use push0_scenarios::{dead_letters, demo, prover, settled_within, single, verifier};
use std::time::Duration;

/// Raft elects a new leader after 4 to 9 s, for each of a dozen streams and consumers.
const PATIENCE: Duration = Duration::from_secs(60);
const STAGE: &str = "timeout = \"20s\"\nattempts = 5";

async fn start() -> Deployment<NatsCluster> {
    let builder = Deployment::builder().as_shipped().pipeline(&single(STAGE));
    let adapters = [prover("p1"), prover("p2"), verifier("v1")];
    let builder = adapters.into_iter().fold(builder, DeploymentBuilder::service);
    builder.start_cluster(3).await
}

/// Kills a broker in the middle of 60 blocks, waits for all of them, and for 20 more when it is back.
async fn survives_the_loss_of(deployment: &mut Deployment<NatsCluster>, broker: usize) {
    deployment.nats.kill(broker);
    deployment.wait_emitted(&demo(), 60, PATIENCE).await;
    deployment.nats.restart(broker).await;
    deployment.submit_blocks(&demo(), 61..=80).await;
    deployment.wait_emitted(&demo(), 80, PATIENCE).await;
    settled_within(deployment.bus(), PATIENCE).await;
    assert_complete_in_order(&deployment.emissions(&demo()).await, 1..=80);
    assert_eq!(dead_letters(deployment.bus()).await, []);
}

#[tokio::test]
async fn a_cluster_that_loses_a_follower_loses_no_block() {
    let mut deployment = start().await;
    deployment.submit_blocks(&demo(), 1..=60).await;
    deployment.wait_emitted(&demo(), 10, PATIENCE).await;
    let leads = deployment.nats.leader_of(Stream::Tasks.name()).await;
    survives_the_loss_of(&mut deployment, (leads + 1) % 3).await;
}

#[tokio::test]
async fn a_cluster_that_loses_the_leader_of_its_tasks_loses_no_block() {
    let mut deployment = start().await;
    deployment.submit_blocks(&demo(), 1..=60).await;
    deployment.wait_emitted(&demo(), 10, PATIENCE).await;
    let leads = deployment.nats.leader_of(Stream::Tasks.name()).await;
    survives_the_loss_of(&mut deployment, leads).await;
}
