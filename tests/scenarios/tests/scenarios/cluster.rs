//! Three brokers with three copies, of which one is lost, stands still, or is cut off.

use push0_bus::Stream;
use push0_harness::{Deployment, DeploymentBuilder, NatsCluster, assert_complete_in_order};
use push0_scenarios::{dead_letters, demo, prover, settled_within, single, verifier};
use std::time::{Duration, Instant};

/// Raft elects a new leader after 4 to 9 s, for each of a dozen streams and consumers.
const PATIENCE: Duration = Duration::from_secs(60);
/// A broker that fails between the acknowledgement and the removal of a message leaves the message in its
/// work queue, never to be delivered again. The brokers look for such messages every 120 to 150 s.
const SWEPT: Duration = Duration::from_secs(180);
const STAGE: &str = "timeout = \"20s\"\nattempts = 5";

fn builder() -> DeploymentBuilder {
    let builder = Deployment::builder().as_shipped().pipeline(&single(STAGE));
    let adapters = [prover("p1"), prover("p2"), verifier("v1")];
    adapters.into_iter().fold(builder, DeploymentBuilder::service)
}

/// Returns a deployment in the middle of 60 blocks, and the broker that leads TASKS.
async fn at_work(
    starting: impl Future<Output = Deployment<NatsCluster>>,
) -> (Deployment<NatsCluster>, usize) {
    let deployment = starting.await;
    deployment.submit_blocks(&demo(), 1..=60).await;
    deployment.wait_emitted(&demo(), 10, PATIENCE).await;
    let leads = deployment.nats.leader_of(Stream::Tasks.name()).await;
    (deployment, leads)
}

/// Waits for 20 more blocks once all brokers are back.
async fn goes_on(deployment: &Deployment<NatsCluster>) {
    // Blocks are submitted facts first, so wait until all three brokers agree on the leader of
    // the facts' bucket.
    deployment.nats.leader_of("KV_push0_blocks").await;
    deployment.submit_blocks(&demo(), 61..=80).await;
    deployment.wait_emitted(&demo(), 80, PATIENCE).await;
    settled_within(deployment.bus(), SWEPT).await;
    assert_complete_in_order(&deployment.emissions(&demo()).await, 1..=80);
    assert_eq!(dead_letters(deployment.bus()).await, []);
}

/// Kills a broker in the middle of 60 blocks, waits for all of them, and for 20 more when the broker is back.
async fn survives_the_loss_of(deployment: &mut Deployment<NatsCluster>, broker: usize) {
    deployment.nats.kill(broker);
    deployment.wait_emitted(&demo(), 60, PATIENCE).await;
    deployment.nats.restart(broker).await;
    goes_on(deployment).await;
}

/// Puts a broker into trouble in the middle of 60 blocks. All blocks are emitted while the trouble lasts.
async fn survives(
    deployment: &Deployment<NatsCluster>,
    trouble: impl FnOnce(&NatsCluster),
    relief: impl FnOnce(&NatsCluster),
) {
    trouble(&deployment.nats);
    let began = Instant::now();
    deployment.wait_emitted(&demo(), 60, PATIENCE).await;
    println!("all came {} ms after the fault", began.elapsed().as_millis());
    relief(&deployment.nats);
    for broker in 0..3 {
        deployment.nats.catches_up(broker).await;
    }
    goes_on(deployment).await;
}

#[tokio::test]
async fn a_cluster_that_loses_a_follower_loses_no_block() {
    let (mut deployment, leads) = at_work(builder().start_cluster(3)).await;
    survives_the_loss_of(&mut deployment, (leads + 1) % 3).await;
}

#[tokio::test]
async fn a_cluster_that_loses_the_leader_of_its_tasks_loses_no_block() {
    let (mut deployment, leads) = at_work(builder().start_cluster(3)).await;
    survives_the_loss_of(&mut deployment, leads).await;
}

#[tokio::test]
async fn a_cluster_goes_on_while_a_follower_stands_still() {
    let (deployment, leads) = at_work(builder().start_cluster(3)).await;
    let victim = (leads + 1) % 3;
    survives(
        &deployment,
        |nats| nats.server(victim).pause(),
        |nats| nats.server(victim).resume(),
    )
    .await;
}

#[tokio::test]
async fn a_cluster_goes_on_while_the_leader_of_its_tasks_stands_still() {
    let (deployment, leads) = at_work(builder().start_cluster(3)).await;
    survives(
        &deployment,
        |nats| nats.server(leads).pause(),
        |nats| nats.server(leads).resume(),
    )
    .await;
}

#[tokio::test]
async fn a_cluster_goes_on_while_one_broker_is_cut_off_from_the_others() {
    let (deployment, leads) = at_work(builder().start_wired(3)).await;
    survives(
        &deployment,
        |nats| nats.cut_from_peers(leads),
        |nats| nats.heal(leads),
    )
    .await;
}

#[tokio::test]
async fn a_cluster_goes_on_while_one_broker_is_heard_and_hears_nothing() {
    let (deployment, leads) = at_work(builder().start_wired(3)).await;
    survives(&deployment, |nats| nats.deafen(leads), |nats| nats.heal(leads)).await;
}

#[tokio::test]
async fn a_cluster_goes_on_while_clients_do_not_reach_one_broker() {
    let (deployment, leads) = at_work(builder().start_wired(3)).await;
    survives(
        &deployment,
        |nats| nats.cut_from_clients(leads),
        |nats| nats.heal(leads),
    )
    .await;
}

/// Two of three brokers are away, so no stream takes a message. The commands of an operator say so and end, and the work
/// goes on where it was once the brokers are back.
#[tokio::test]
async fn a_cluster_without_a_quorum_is_told_as_that_and_goes_on_afterwards() {
    let (mut deployment, leads) = at_work(builder().start_cluster(3)).await;
    let away = [(leads + 1) % 3, (leads + 2) % 3];
    for broker in away {
        deployment.nats.kill(broker);
    }
    for (command, user, told) in [
        ("status", "operator", "most of the brokers may be away"),
        ("provision", "provision", "no copy leads"),
    ] {
        let began = Instant::now();
        let seed = deployment.seed(user).expect("accounts");
        let process = deployment.command().arg(command);
        let process = process.env("PUSH0_NATS__NKEY_SEED", seed.display()).start();
        let ended = process.wait_exit(PATIENCE).await;
        let log = process.log();
        println!("{command} ended after {} ms: {log}", began.elapsed().as_millis());
        assert!(!ended.success(), "{command}: {log}");
        assert!(log.contains(told), "{command}: {log}");
    }
    for broker in away {
        deployment.nats.restart(broker).await;
    }
    deployment.wait_emitted(&demo(), 60, PATIENCE).await;
    goes_on(&deployment).await;
}
