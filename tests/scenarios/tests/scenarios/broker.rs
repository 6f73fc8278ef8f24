//! A broker that restarts, stands still or is full, and duplicate messages.

use push0_bus::{Limits, Message, Stream};
use push0_domain::{
    message::ResultEvent,
    subject::{self, Kind},
};
use push0_harness::{Deployment, Process, assert_complete_in_order, wait_for};
use push0_scenarios::{
    PATIENCE, attempts, count, dead_letters, demo, deploy, prover, settled, single, verifier,
};
use std::{io::Write, time::Duration};

const STAGE: &str = "timeout = \"10s\"\nattempts = 5";

#[tokio::test]
async fn the_work_goes_on_when_the_broker_is_stopped_and_started() {
    let mut deployment = deploy(&single(STAGE), [prover("p1"), prover("p2"), verifier("v1")]).await;
    for round in 0..3_u64 {
        deployment
            .submit_blocks(&demo(), round * 20 + 1..=round * 20 + 20)
            .await;
        deployment.nats.stop().await;
        deployment.nats.restart().await;
    }
    deployment.wait_emitted(&demo(), 60, PATIENCE).await;
    settled(deployment.bus()).await;
    assert_complete_in_order(&deployment.emissions(&demo()).await, 1..=60);
    assert_eq!(dead_letters(deployment.bus()).await, []);
}

#[tokio::test]
async fn the_work_goes_on_when_the_broker_is_killed_again_and_again() {
    let mut deployment = deploy(&single(STAGE), [prover("p1"), prover("p2"), verifier("v1")]).await;
    deployment.submit_blocks(&demo(), 1..=60).await;
    for emitted in [5, 15, 25, 35] {
        deployment.wait_emitted(&demo(), emitted, PATIENCE).await;
        deployment.nats.restart().await;
    }
    deployment.wait_emitted(&demo(), 60, PATIENCE).await;
    settled(deployment.bus()).await;
    assert_complete_in_order(&deployment.emissions(&demo()).await, 1..=60);
    assert_eq!(dead_letters(deployment.bus()).await, []);
}

#[tokio::test]
async fn no_service_is_ready_while_the_broker_is_away_and_each_says_so() {
    let gateway = Process::program("gateway").env("PUSH0_GATEWAY__LISTEN", "127.0.0.1:0");
    let adapters = [
        prover("p1"),
        verifier("v1"),
        gateway,
        Process::program("enroller"),
    ];
    let mut deployment = deploy(&single(STAGE), adapters).await;
    deployment.nats.kill();
    let url = deployment.url();
    for program in [
        "ingester",
        "dispatcher",
        "collector",
        "watchdog",
        "gateway",
        "enroller",
        "prover-mock",
    ] {
        let mut count = 0;
        for process in deployment.instances(program) {
            process.not_ready("\"connection\"", PATIENCE).await;
            process.not_ready(&url, PATIENCE).await;
            count += 1;
        }
        assert!(count > 0, "no {program} runs");
    }
    deployment.nats.restart().await;
    deployment.ready().await;
}

#[tokio::test]
async fn a_service_that_never_reached_the_broker_says_where_it_tries() {
    let nobody = "nats://127.0.0.1:1";
    let dispatcher = Process::program("dispatcher")
        .env("PUSH0_NATS__URL", nobody)
        .env("PUSH0_HTTP__LISTEN", "127.0.0.1:0")
        .start();
    dispatcher
        .not_ready("cannot reach the broker nats://127.0.0.1:1", PATIENCE)
        .await;
    dispatcher.not_ready("refused", PATIENCE).await;
    let log = dispatcher.log();
    assert_eq!(log.matches("cannot reach the broker").count(), 1, "{log}");
}

/// Imitates a disk busy with other work: every write waits, and heartbeats wait too.
#[tokio::test]
async fn a_broker_that_stalls_again_and_again_costs_no_block_and_no_prover() {
    let deployment = deploy(&single(STAGE), [prover("p1"), prover("p2"), verifier("v1")]).await;
    let stalls = async {
        for _ in 0..20 {
            deployment.nats.pause();
            tokio::time::sleep(Duration::from_millis(200)).await; // wait: the length of a stall
            deployment.nats.resume();
            tokio::time::sleep(Duration::from_millis(50)).await; // wait: the pause between two stalls
        }
    };
    let name = demo();
    tokio::join!(deployment.submit_blocks(&name, 1..=80), stalls);
    deployment.wait_emitted(&name, 80, PATIENCE).await;
    settled(deployment.bus()).await;
    assert_complete_in_order(&deployment.emissions(&name).await, 1..=80);
    assert_eq!(dead_letters(deployment.bus()).await, []);
    let (p1, p2) = (deployment.service("p1"), deployment.service("p2"));
    let completed = attempts(p1, "completed").await + attempts(p2, "completed").await;
    assert_eq!(
        completed, 80,
        "a prover was declared dead, or an attempt ran twice"
    );
}

#[tokio::test]
async fn blocks_and_results_that_come_twice_count_once() {
    let deployment = deploy(&single(STAGE), [prover("p1"), prover("p2"), verifier("v1")]).await;
    let bus = deployment.bus();
    let mut results = bus
        .listen([subject::all(Kind::Verdict)])
        .await
        .expect("listening");
    deployment.submit_blocks(&demo(), 1..=20).await;
    deployment.submit_blocks(&demo(), 1..=20).await;
    for _ in 0..20 {
        let heard = tokio::time::timeout(PATIENCE, results.next()).await;
        let signal = heard.expect("a result in time").expect("a result");
        let event: ResultEvent = signal.body().expect("a readable result");
        let again = Message::new(signal.subject().to_owned(), &event, &signal.trace());
        bus.publish(again.expect("it can be written"))
            .await
            .expect("stored");
    }
    deployment.submit_blocks(&demo(), 21..=30).await;
    deployment.wait_emitted(&demo(), 30, PATIENCE).await;
    settled(bus).await;
    assert_complete_in_order(&deployment.emissions(&demo()).await, 1..=30);
    assert_eq!(dead_letters(bus).await, []);
}

/// Witness size of each of the file's [`BLOCKS`] blocks, in bytes. Together the blocks exceed the store's
/// share for BLOCKS.
const WITNESS_BYTES: usize = 20_000;
const BLOCKS: u64 = 120;

#[tokio::test]
async fn a_full_store_makes_the_ingester_wait_and_drops_nothing() {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    for number in 1..=BLOCKS {
        writeln!(
            file,
            "{{\"number\": {number}, \"input\": \"0x{}\"}}",
            "ab".repeat(WITNESS_BYTES)
        )
        .expect("written");
    }
    let source = format!("{{ kind = \"file\", path = \"{}\" }}", file.path().display());
    let limits = Limits {
        store_bytes: 8 << 20,
        ..Limits::default()
    };
    let builder = Deployment::builder()
        .shipped_settings()
        .limits(limits)
        .pipeline(&single(STAGE).replace("{ kind = \"external\" }", &source));
    // No dispatcher takes blocks from the stream yet. The ingester may never become ready, because its stream
    // fills at once.
    let mut deployment = builder.start().await;
    deployment.start_service(Process::program("ingester"));
    wait_for("a full stream", PATIENCE, async || {
        count(
            deployment.service("ingester"),
            "push0_ingester_store_retries_total{pipeline=\"demo\",reason=\"full\"}",
        )
        .await
            > 0
    })
    .await;
    let stored = deployment
        .bus()
        .level(Stream::Blocks)
        .await
        .expect("a level")
        .messages;
    assert!(stored > 10 && stored < BLOCKS, "{stored} blocks are stored");
    for service in ["dispatcher", "collector", "watchdog"] {
        deployment.start_service(Process::program(service));
    }
    for adapter in [prover("p1"), prover("p2"), verifier("v1")] {
        deployment.start_service(adapter);
    }
    let all = usize::try_from(BLOCKS).expect("a small number");
    deployment.wait_emitted(&demo(), all, PATIENCE).await;
    settled(deployment.bus()).await;
    assert_complete_in_order(&deployment.emissions(&demo()).await, 1..=BLOCKS);
    assert_eq!(dead_letters(deployment.bus()).await, []);
}

#[tokio::test]
async fn a_broker_that_stands_still_for_a_while_costs_no_block() {
    let builder = Deployment::builder().as_shipped().pipeline(&single(STAGE));
    let builder = [prover("p1"), prover("p2"), verifier("v1")]
        .into_iter()
        .fold(builder, |b, a| b.service(a));
    let deployment = builder.start().await;
    deployment.submit_blocks(&demo(), 1..=40).await;
    deployment.wait_emitted(&demo(), 5, PATIENCE).await;
    deployment.nats.pause();
    // The silence is far longer than heartbeats and terms of leadership, and has no event to wait for.
    let still = std::time::Instant::now();
    wait_for("the standstill", PATIENCE, async || {
        still.elapsed().as_secs() >= 3
    })
    .await;
    deployment.nats.resume();
    deployment.wait_emitted(&demo(), 40, PATIENCE).await;
    settled(deployment.bus()).await;
    assert_complete_in_order(&deployment.emissions(&demo()).await, 1..=40);
    let done = attempts(deployment.service("p1"), "completed").await
        + attempts(deployment.service("p2"), "completed").await;
    assert!(done >= 40);
    assert_eq!(dead_letters(deployment.bus()).await, []);
}
