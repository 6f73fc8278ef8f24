//! The accounts of the services permit every operation of a recovery.
//!
//! After an interruption the client renews its subscriptions, watches and consumers by other requests than at
//! the start. So after each fault a pipeline is applied, which a service can learn of only through renewed
//! subscriptions, and one replica of every service must serve the pipeline alone. A shipped deployment fails
//! its test if the broker refuses anything.

use push0_harness::{
    Broker, Deployment, DeploymentBuilder, NatsCluster, Process, assert_complete_in_order, wait_for,
};
use push0_scenarios::{demo, prover, single, verifier};
use std::{
    io::Write,
    path::Path,
    time::{Duration, Instant},
};
use tempfile::NamedTempFile;

/// Three brokers take up to half a minute to notice a frozen one.
const PATIENCE: Duration = Duration::from_secs(90);
/// Longer than connections without an answer are kept.
const SILENCE: Duration = Duration::from_secs(7);
const BLOCKS: u64 = 4;
const CONTROL: [&str; 4] = ["ingester", "dispatcher", "collector", "watchdog"];
/// Stream name of the bucket watched by all services.
const WATCHED: &str = "KV_push0_pipelines";

fn builder() -> DeploymentBuilder {
    let first = single("timeout = \"20s\"");
    let builder = Deployment::builder().as_shipped().pipeline(&first);
    let gateway = Process::program("gateway").env("PUSH0_GATEWAY__LISTEN", "127.0.0.1:0");
    builder
        .service(prover("p1"))
        .service(verifier("v1"))
        .service(gateway)
        .service(Process::program("enroller"))
}

/// Applies a pipeline whose blocks the ingester reads from a file, and lets the replicas with number
/// `replica` serve the pipeline alone. Returns the file, which the ingester continues to follow.
async fn serves_alone<B: Broker>(deployment: &mut Deployment<B>, replica: u8) -> NamedTempFile {
    let mut file = NamedTempFile::new().expect("a file");
    for number in 1..=BLOCKS {
        writeln!(file, "{number}").expect("written");
    }
    let source = format!("{{ kind = \"file\", path = \"{}\" }}", file.path().display());
    let text = single("timeout = \"20s\"\nattempts = 8")
        .replace("\"demo\"", &format!("\"alone-{replica}\""))
        .replace("{ kind = \"external\" }", &source);
    let pipeline = deployment.apply(&text).await;
    let others = CONTROL.map(|program| format!("{program}-{}", 3 - replica));
    for label in &others {
        deployment.service(label).kill();
    }
    let count = usize::try_from(BLOCKS).expect("a small number");
    deployment.wait_emitted(&pipeline, count, PATIENCE).await;
    for label in &others {
        deployment.service_mut(label).restart();
    }
    file
}

async fn assert_all_came<B: Broker>(deployment: &Deployment<B>) {
    deployment.ready().await;
    for replica in 1..=2 {
        let pipeline = format!("alone-{replica}").parse().expect("a name");
        assert_complete_in_order(&deployment.emissions(&pipeline).await, 1..=BLOCKS);
    }
}

/// Waits for [`SILENCE`]. The length of a silence has no event to wait for.
async fn silence() {
    let began = Instant::now();
    wait_for("the silence", PATIENCE, async || began.elapsed() >= SILENCE).await;
}

#[tokio::test]
async fn each_replica_alone_serves_a_pipeline_that_is_applied_after_the_broker_was_killed() {
    let mut deployment = builder().start().await;
    let mut files = Vec::new();
    for replica in 1..=2 {
        deployment.nats.restart().await;
        files.push(serves_alone(&mut deployment, replica).await);
        deployment.ready().await;
    }
    assert_all_came(&deployment).await;
}

#[tokio::test]
async fn each_replica_alone_serves_a_pipeline_that_is_applied_after_the_broker_was_frozen() {
    let mut deployment = builder().start().await;
    let mut files = Vec::new();
    for replica in 1..=2 {
        deployment.nats.pause();
        silence().await;
        deployment.nats.resume();
        files.push(serves_alone(&mut deployment, replica).await);
        deployment.ready().await;
    }
    assert_all_came(&deployment).await;
}

#[tokio::test]
async fn each_replica_alone_serves_a_pipeline_that_is_applied_after_the_broker_was_cut_off() {
    let mut deployment = builder().proxied().start().await;
    let mut files = Vec::new();
    for replica in 1..=2 {
        deployment.proxy().cut();
        silence().await;
        deployment.proxy().reset();
        deployment.proxy().heal();
        files.push(serves_alone(&mut deployment, replica).await);
        deployment.ready().await;
    }
    assert_all_came(&deployment).await;
}

/// Each new prover is a reload of the broker, which has every connection and every import of its accounts in use.
#[tokio::test]
async fn provers_join_one_by_one_while_blocks_are_proved() {
    const PROVERS: u64 = 8;
    const EACH: u64 = 5;
    let mut deployment = builder().start().await;
    let demo = demo();
    for joined in 1..=PROVERS {
        deployment
            .submit_blocks(&demo, (joined - 1) * EACH + 1..=joined * EACH)
            .await;
        deployment.start_service(prover(&format!("joined-{joined}")));
    }
    deployment.ready().await;
    let count = PROVERS * EACH;
    deployment
        .wait_emitted(&demo, usize::try_from(count).expect("a small number"), PATIENCE)
        .await;
    assert_complete_in_order(&deployment.emissions(&demo).await, 1..=count);
}

/// Returns the answer of `push0 proof signer` about block 1, by this book of keys.
async fn signer(deployment: &Deployment, accounts: &Path) -> serde_json::Value {
    let command = deployment
        .command()
        .arg("--json")
        .arg("proof")
        .arg("signer")
        .arg("1");
    let command = command.arg("--accounts").arg(accounts).start();
    command.wait_exit(PATIENCE).await;
    serde_json::from_str(&command.log()).expect("an answer in JSON")
}

#[tokio::test]
async fn a_record_tells_who_proved_by_the_book_of_keys() {
    let mut deployment = builder().start().await;
    let demo = demo();
    deployment.submit_blocks(&demo, 1..=2).await;
    deployment.wait_emitted(&demo, 2, PATIENCE).await;
    let folder = tempfile::tempdir().expect("a directory");
    let before = folder.path().join("before.json");
    std::fs::copy(deployment.accounts_file(), &before).expect("the book is copied");
    let told = signer(&deployment, &before).await;
    assert_eq!(
        (told["signed"].as_bool(), told["prover"].as_str()),
        (Some(true), Some("p1")),
        "{told}"
    );
    // The record is as good as before, and the book does not know its prover any more.
    deployment.service_mut("p1").kill();
    deployment.revoke("p1");
    let told = signer(&deployment, &deployment.accounts_file()).await;
    assert_eq!(told["signed"].as_bool(), Some(false), "{told}");
    assert_eq!(signer(&deployment, &before).await["signed"].as_bool(), Some(true));
}

/// Applies the pipelines while one of three brokers is in trouble: the leader of the bucket
/// with the definitions.
async fn on_three_brokers(
    builder: DeploymentBuilder,
    hurt: impl AsyncFn(&mut Deployment<NatsCluster>, usize),
    heal: impl AsyncFn(&mut Deployment<NatsCluster>, usize),
) {
    let mut deployment = builder.start_cluster(3).await;
    let mut files = Vec::new();
    for replica in 1..=2 {
        let broker = deployment.nats.leader_of(WATCHED).await;
        hurt(&mut deployment, broker).await;
        files.push(serves_alone(&mut deployment, replica).await);
        heal(&mut deployment, broker).await;
        deployment.ready().await;
    }
    assert_all_came(&deployment).await;
}

#[tokio::test]
async fn each_replica_alone_serves_a_pipeline_that_is_applied_while_one_of_three_brokers_is_dead() {
    let kill = async |deployment: &mut Deployment<NatsCluster>, broker| deployment.nats.kill(broker);
    let restart =
        async |deployment: &mut Deployment<NatsCluster>, broker| deployment.nats.restart(broker).await;
    on_three_brokers(builder(), kill, restart).await;
}

#[tokio::test]
async fn each_replica_alone_serves_a_pipeline_that_is_applied_while_one_of_three_brokers_is_frozen() {
    let pause = async |deployment: &mut Deployment<NatsCluster>, broker: usize| {
        deployment.nats.server(broker).pause();
    };
    let resume = async |deployment: &mut Deployment<NatsCluster>, broker: usize| {
        deployment.nats.server(broker).resume();
    };
    on_three_brokers(builder(), pause, resume).await;
}

#[tokio::test]
async fn each_replica_alone_serves_a_pipeline_that_is_applied_while_one_of_three_brokers_is_cut_off() {
    let cut = async |deployment: &mut Deployment<NatsCluster>, broker| deployment.proxy_of(broker).cut();
    let heal = async |deployment: &mut Deployment<NatsCluster>, broker| {
        deployment.proxy_of(broker).reset();
        deployment.proxy_of(broker).heal();
    };
    on_three_brokers(builder().proxied(), cut, heal).await;
}
