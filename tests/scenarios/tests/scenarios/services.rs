//! Services die while standbys wait, and the standbys take over quickly.

use futures::{StreamExt, TryStreamExt};
use push0_bus::{Message, Stream};
use push0_domain::{
    Payload, Payloads, PipelineId, SealKeys,
    message::{Outcome, ResultEvent, StageReady, TaskResult},
    subject::{self, Kind},
    trace::TraceContext,
};
use push0_harness::{
    Deployment, Process, ProcessBuilder, assert_complete_in_order, synthetic_header, wait_for,
};
use push0_scenarios::{
    MOCK, PATIENCE, count, demo, deploy, first_running, heartbeat, prover, runs_elsewhere, settled, single,
    verifier,
};
use std::time::{Duration, Instant};

/// Time allowed for the takeover by a standby.
const TAKEN_OVER: Duration = Duration::from_secs(1);

/// The log line of a process that begins to lead.
const LEADS: &str = "this process leads";

/// Kills the active one of two instances under load, and returns the time until the other instance leads.
async fn takeover(program: &str) -> Duration {
    let adapters = [prover("p1"), prover("p2"), verifier("v1")];
    let deployment = deploy(&single("timeout = \"10s\""), adapters).await;
    deployment.submit_blocks(&demo(), 1..=60).await;
    deployment.wait_emitted(&demo(), 15, PATIENCE).await;
    // How often an instance has won the lead: a busy machine may have moved the lead before the kill.
    let wins = |label: &str| deployment.service(label).log().matches(LEADS).count();
    let active = deployment.leader(program).await;
    let standby = deployment.other_than(&active);
    let wins_before = wins(&standby);
    let killed_at = Instant::now();
    deployment.service(&active).kill();
    wait_for("the standby's lead", PATIENCE, async || {
        wins(&standby) > wins_before
    })
    .await;
    let took = killed_at.elapsed();
    println!("the standby {program} leads after {} ms", took.as_millis());
    deployment.wait_emitted(&demo(), 60, PATIENCE).await;
    settled(deployment.bus()).await;
    assert_complete_in_order(&deployment.emissions(&demo()).await, 1..=60);
    took
}

#[tokio::test]
async fn a_standby_dispatcher_takes_over_within_a_second() {
    let took = takeover("dispatcher").await;
    assert!(took < TAKEN_OVER, "{took:?}");
}

#[tokio::test]
async fn a_standby_collector_takes_over_within_a_second() {
    let took = takeover("collector").await;
    assert!(took < TAKEN_OVER, "{took:?}");
}

#[tokio::test]
async fn a_standby_watchdog_takes_over_within_a_second() {
    let took = takeover("watchdog").await;
    assert!(took < TAKEN_OVER, "{took:?}");
}

#[tokio::test]
async fn without_a_watchdog_the_broker_reassigns_the_task_of_a_dead_prover() {
    let slow = |name: &str| prover(name).env("PUSH0_MOCK__TIME", "2s");
    let deployment = deploy(
        &single("timeout = \"10s\""),
        [slow("p1"), slow("p2"), verifier("v1")],
    )
    .await;
    deployment.submit_blocks(&demo(), 1..=1).await;
    let (dying, held) = first_running(deployment.bus(), &["p1", "p2"], 1).await;
    let mut heartbeats = deployment
        .bus()
        .listen([subject::all(Kind::Lease)])
        .await
        .expect("listening");
    for watchdog in deployment.instances("watchdog") {
        watchdog.kill();
    }
    deployment.service(dying).kill();
    let killed_at = Instant::now();
    let not = dying.parse().expect("a name");
    heartbeat(&mut heartbeats, "the task runs elsewhere", |lease| {
        runs_elsewhere(lease, &held, &not)
    })
    .await;
    let took = killed_at.elapsed();
    println!("the broker reassigned after {} ms", took.as_millis());
    assert!(took < Duration::from_secs(6), "{took:?}");
    let emissions = deployment.wait_emitted(&demo(), 1, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=1);
    settled(deployment.bus()).await;
}

/// Number of results pending when the collector dies.
const PENDING: u32 = 10_000;

const WIDE: &str = r#"
    name = "wide"
    source = { kind = "external" }
    [[proof]]
    type = "main"
    zkvm = "mock"
    verify = "off"
    [[proof.stage]]
    name = "split"
    kind = "split"
    timeout = "10s"
    [[proof.stage]]
    name = "step"
    kind = "map"
    timeout = "10s"
    [[proof.stage]]
    name = "aggregate"
    kind = "join"
    timeout = "10s"
    "#;

/// Starts a service whose configuration names a missing file, and checks that it ends as one with a wrong setting.
async fn refuses(service: ProcessBuilder, key: &str) {
    let service = service.start();
    let status = service.wait_exit(PATIENCE).await;
    let (log, label) = (service.log(), service.label());
    assert_eq!(status.code(), Some(64), "{label}: {log}");
    assert!(log.contains(&format!("{key} `/nowhere`: ")), "{label}: {log}");
}

#[tokio::test]
async fn a_missing_file_ends_each_service_as_a_wrong_setting() {
    let enroller = || {
        Process::program("enroller")
            .env("PUSH0_ENROL__ACCOUNTS", "/nowhere")
            .env("PUSH0_ENROL__ISSUER_SEED", "/nowhere")
    };
    let others = [
        "ingester",
        "dispatcher",
        "collector",
        "watchdog",
        "gateway",
        "prover-mock",
    ];
    for service in others.map(Process::program).into_iter().chain([enroller()]) {
        refuses(service.env("PUSH0_NATS__NKEY_SEED", "/nowhere"), "nats.nkey_seed").await;
    }
    refuses(enroller(), "enrol.accounts").await;
}

/// Returns a prover's result message for one step of block 1.
fn step(pipeline: &PipelineId, index: u32, keys: &SealKeys) -> Message {
    let mut header = synthetic_header(pipeline, 1, &MOCK.parse().expect("a name"), "step");
    (header.id.index, header.of) = (index, PENDING);
    let header = keys.seal(header).expect("it can be sealed");
    let (key, prover) = (header.key(), "p1".parse().expect("a name"));
    let subject = subject::result(&prover, &key, None);
    let result = TaskResult {
        header,
        prover,
        outcome: Outcome::Completed {
            outputs: Payloads::one(Payload::Inline(index.to_string().into_bytes())),
        },
        inputs: None,
        prove_us: 1,
        transfer_us: 0,
        waited_us: 0,
        signature: None,
        verdict: None,
    };
    Message::new(subject, &ResultEvent::Attempt(result), &TraceContext::default()).expect("it can be written")
}

async fn opened(deployment: &Deployment) -> Option<StageReady> {
    let subjects = subject::all(Kind::Stage);
    let kept = deployment
        .bus()
        .last::<StageReady>(Stream::Stages, &subjects)
        .await;
    kept.expect("the stages are read")
        .map(|kept| kept.body.expect("a readable stage"))
}

#[tokio::test]
async fn a_collector_that_dies_in_a_join_of_ten_thousand_completes_it_at_once_when_it_is_back() {
    // Only a collector runs, so the opened stage stays in the stream.
    let builder = Deployment::builder()
        .shipped_settings()
        .pipeline(WIDE)
        .service(Process::program("collector"));
    let mut deployment = builder.start().await;
    let pipeline: PipelineId = "wide".parse().expect("a name");
    deployment.submit_blocks(&pipeline, 1..=1).await;
    let bus = deployment.bus().clone();
    let seals = bus.seals().await.expect("the keys of the seals");
    let publish = |index| {
        let (bus, message) = (bus.clone(), step(&pipeline, index, seals.keys()));
        async move { bus.publish(message).await }
    };
    let steps = futures::stream::iter((0..PENDING - 1).map(publish)).buffer_unordered(256);
    steps
        .try_collect::<Vec<_>>()
        .await
        .expect("the results are stored");
    wait_for("pending results", PATIENCE, async || {
        let seen = count(deployment.service("collector"), "push0_results_unacknowledged").await;
        if seen == u64::from(PENDING - 1) {
            Ok(())
        } else {
            Err(seen)
        }
    })
    .await;
    deployment.service("collector").kill();
    publish(PENDING - 1).await.expect("the last result is stored");
    assert_eq!(opened(&deployment).await, None);
    let restarted_at = Instant::now();
    deployment.service_mut("collector").restart();
    let leads = || deployment.service("collector").log().matches(LEADS).count() == 2;
    wait_for("the collector's lead", PATIENCE, async || leads()).await;
    let led_at = Instant::now();
    let join = wait_for("the join", PATIENCE, async || opened(&deployment).await).await;
    println!(
        "join opened {} ms after the lead, {} ms after the restart",
        led_at.elapsed().as_millis(),
        restarted_at.elapsed().as_millis()
    );
    assert!(
        led_at.elapsed() <= Duration::from_millis(500),
        "{:?}",
        led_at.elapsed()
    );
    assert_eq!(
        (join.stage.stage.as_str(), join.inputs.count()),
        ("aggregate", PENDING)
    );
    wait_for("acknowledged results", PATIENCE, async || {
        bus.level(Stream::Results)
            .await
            .is_ok_and(|level| level.messages == 0)
    })
    .await;
}
