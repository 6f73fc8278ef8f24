//! Tests of the harness itself: its processes work, and end with the test.

use futures::FutureExt;
use nix::{errno::Errno, sys::signal::kill, unistd::Pid};
use push0_bus::{Bucket, Bus, NatsConfig};
use push0_domain::{message::KnownBlock, subject};
use push0_harness::{Anvil, Deployment, NatsCluster, NatsServer, Process, synthetic_block, wait_for};
use std::{
    panic::AssertUnwindSafe,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const SOON: Duration = Duration::from_secs(10);
/// Environment variable that marks the copy of this program to be killed.
const VICTIM: &str = "HARNESS_VICTIM";

const EXTERNAL: &str = r#"
name = "demo"
source = { kind = "external" }
[[proof]]
type = "main"
zkvm = "mock"
[[proof.stage]]
name = "prove"
kind = "map"
timeout = "10s"
"#;

fn is_alive(pid: u32) -> bool {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid"));
    kill(pid, None) != Err(Errno::ESRCH)
}

async fn bus(url: &str) -> Bus {
    let config = NatsConfig {
        url: url.into(),
        ..NatsConfig::default()
    };
    let bus = Bus::connect(&config, "test").await.expect("a valid URL");
    bus.connected().await;
    bus
}

#[tokio::test]
async fn a_broker_keeps_its_port_and_store_when_it_is_killed_and_restarted() {
    let mut server = NatsServer::start().await;
    let (url, pid) = (server.url(), server.pid());
    bus(&url)
        .await
        .provision(&push0_bus::Limits::default())
        .await
        .expect("provisioned");
    server.kill();
    assert!(!is_alive(pid));
    server.restart().await;
    assert_eq!(server.url(), url);
    bus(&url)
        .await
        .check_provisioned()
        .await
        .expect("the streams are still there");
    server.stop().await;
    assert_eq!(server.pid(), 0);
}

#[tokio::test]
async fn a_dropped_broker_is_gone_with_its_files() {
    let server = NatsServer::options()
        .sync_always()
        .with_store_limit(1 << 20)
        .start()
        .await;
    let pid = server.pid();
    let seen = server.monitor("/jsz").await;
    assert_eq!(seen["config"]["max_storage"], 1 << 20, "{seen}");
    assert_eq!(seen["config"]["sync_always"], true, "{seen}");
    let store = seen["config"]["store_dir"].as_str().expect("a path").to_owned();
    assert!(std::fs::exists(&store).expect("readable"));
    drop(server);
    assert!(!is_alive(pid));
    assert!(!std::fs::exists(&store).expect("readable"));
}

#[tokio::test]
async fn what_a_killed_test_started_ends_with_it() {
    if std::env::var_os(VICTIM).is_some() {
        let server = NatsServer::start().await;
        println!("broker {}", server.pid());
        std::future::pending::<()>().await;
    }
    let test = std::env::current_exe().expect("a path");
    let mut victim = Command::new(test)
        .args([
            "--exact",
            "what_a_killed_test_started_ends_with_it",
            "--nocapture",
        ])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("this program runs again");
    let said = std::io::BufReader::new(victim.stdout.take().expect("piped"));
    let pid = std::io::BufRead::lines(said)
        .map_while(Result::ok)
        // The test runner may already have written the beginning of the line.
        .find_map(|line| line.split_once("broker ")?.1.trim().parse::<u32>().ok())
        .expect("the victim started a broker");
    assert!(is_alive(pid));
    victim.kill().expect("SIGKILL");
    victim.wait().expect("reaped");
    wait_for("the broker's end", SOON, async || !is_running(pid)).await;
}

/// Returns whether a process runs. An orphan may stay a zombie if process 1 does not reap it.
fn is_running(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[tokio::test]
async fn a_cluster_elects_another_leader_when_one_dies() {
    let mut cluster = NatsCluster::start(3).await;
    let limits = push0_bus::Limits {
        replicas: 3,
        ..push0_bus::Limits::default()
    };
    bus(&cluster.url())
        .await
        .provision(&limits)
        .await
        .expect("provisioned");
    let first = cluster.leader_of(push0_bus::Stream::Proofs.name()).await;
    cluster.kill(first);
    let second = cluster.leader_of(push0_bus::Stream::Proofs.name()).await;
    assert_ne!(first, second);
    cluster.restart(first).await;
    cluster.meta_leader().await;
}

#[tokio::test]
async fn a_chain_mines_when_told_and_forgets_what_was_reorganised() {
    let anvil = Anvil::start(None).await;
    anvil.mine(3).await;
    assert_eq!(anvil.head().await, 3);
    let block = async || {
        anvil
            .rpc("eth_getBlockByNumber", serde_json::json!(["0x3", false]))
            .await["hash"]
            .clone()
    };
    let before = block().await;
    anvil.reorg(1).await;
    assert_ne!(block().await, before);
}

#[tokio::test]
async fn a_deployment_publishes_synthetic_blocks_with_their_facts() {
    let deployment = Deployment::builder().pipeline(EXTERNAL).start().await;
    let demo = "demo".parse().expect("a name");
    deployment.submit_blocks(&demo, 1..=100).await;
    let level = deployment
        .bus()
        .level(push0_bus::Stream::Blocks)
        .await
        .expect("answered");
    assert_eq!(level.messages, 100);
    let facts = deployment
        .bus()
        .facts::<KnownBlock>(Bucket::Blocks)
        .await
        .expect("bound");
    let block = synthetic_block(&demo, 100);
    let known = facts
        .get(&subject::facts::known_block(
            &"demo".parse().expect("a name"),
            &block,
        ))
        .await
        .expect("answered");
    assert_eq!(known.and_then(|fact| fact.value).expect("a fact").block, block);
    assert!(deployment.emissions(&demo).await.is_empty());
}

#[tokio::test]
async fn a_service_is_ready_can_be_killed_and_comes_back_and_ends_when_asked() {
    let prover = Process::program("prover-mock").label("p1").envs([
        ("PUSH0_PROVER__ID", "p1"),
        ("PUSH0_PROVER__ZKVM", "mock"),
        ("PUSH0_PROVER__SLOTS", "1"),
    ]);
    let builder = Deployment::builder().pipeline(EXTERNAL).service(prover);
    let mut deployment = builder.start().await;
    assert!(deployment.service("p1").metrics().await.contains("# TYPE"));
    let pid = deployment.service("p1").pid();
    deployment.service("p1").pause();
    deployment.service("p1").kill();
    assert!(!is_alive(pid) && !deployment.service("p1").is_running());
    deployment.service_mut("p1").restart();
    deployment.ready().await;
    deployment.service("p1").terminate();
    let status = deployment.service("p1").wait_exit(SOON).await;
    assert!(status.success(), "{status}: {}", deployment.service("p1").log());
}

#[tokio::test]
async fn a_deployment_as_shipped_runs_two_of_each_control_service_and_says_who_leads() {
    let deployment = Deployment::builder()
        .as_shipped()
        .pipeline(EXTERNAL)
        .start()
        .await;
    let leader = deployment.leader("dispatcher").await;
    let other = deployment.other_than(&leader);
    assert!(
        leader != other && other.starts_with("dispatcher-"),
        "{leader} {other}"
    );
    assert_eq!(deployment.victim("dispatcher").await, leader);
    deployment.service(&leader).kill();
    wait_for("the standby's lead", SOON, async || {
        deployment.leader("dispatcher").await == other
    })
    .await;
    // A killed process keeps its peak.
    let peaks = deployment.peaks();
    assert_eq!(peaks.len(), 8);
    assert!(peaks.iter().all(|(_, mb)| *mb > 1.0), "{peaks:?}");
}

/// The prover publishes a record, which its user may not do.
#[tokio::test]
async fn a_deployment_as_shipped_fails_its_test_when_the_broker_refuses_something() {
    let prover = Process::program("prover-mock").label("p1");
    let test = AssertUnwindSafe(async move {
        let builder = Deployment::builder()
            .shipped_settings()
            .pipeline(EXTERNAL)
            .service(prover);
        let deployment = builder.start().await;
        let demo = "demo".parse().expect("a name");
        let forged = push0_bus::Message::new(
            subject::proof(&demo, 1),
            &"forged",
            &push0_domain::trace::TraceContext::default(),
        );
        let refused = deployment
            .bus_as("p1")
            .await
            .publish(forged.expect("it can be written"))
            .await;
        assert!(refused.is_err());
    });
    let panic = test.catch_unwind().await.expect_err("it fails");
    let said = panic.downcast::<String>().expect("a message");
    assert!(
        said.contains("p1") && said.contains(&subject::proof(&"demo".parse().expect("a name"), 1)),
        "{said}"
    );
}

#[tokio::test]
#[should_panic(expected = "for three of them; last seen: 2")]
async fn waiting_in_vain_says_what_for_and_what_was_there() {
    let begun = Instant::now();
    wait_for("three of them", Duration::from_millis(50), async || {
        if begun.elapsed() > SOON { Ok(()) } else { Err(2) }
    })
    .await;
}
