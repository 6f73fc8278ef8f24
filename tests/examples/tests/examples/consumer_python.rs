//! `examples/consumer-python`: the consumer copies every record once, in order, and follows amendments.

use crate::{PATIENCE, demo, operate, pipeline, run, services, stamp, verifier};
use push0_examples::{interpreter, python};
use push0_harness::{Process, ProcessBuilder, wait_for};
use std::path::Path;
use tempfile::TempDir;

/// Returns the consumer with its database in this directory.
pub(crate) fn consumer(folder: &Path) -> ProcessBuilder {
    python("consumer", "consumer-python/consumer.py")
        .arg("demo")
        .arg(folder.join("proofs.db"))
}

/// Returns the blocks in the consumer's database as lines `number state length-of-the-proof`.
pub(crate) async fn blocks(folder: &Path) -> Vec<String> {
    let query = "import sqlite3, sys
rows = sqlite3.connect(sys.argv[1]).execute('''SELECT number, state, length(bytes) FROM blocks
    LEFT JOIN proofs USING (sequence) ORDER BY number''')
for row in rows: print(*row)";
    let query = interpreter().arg("-c").arg(query).arg(folder.join("proofs.db"));
    run(query).await.lines().map(str::to_owned).collect()
}

/// Waits until the consumer has logged a line with this text.
pub(crate) async fn wait_said(consumer: &Process, text: &str) {
    wait_for(&format!("`{text}`"), PATIENCE, async || {
        assert!(consumer.is_running(), "the consumer ended: {}", consumer.log());
        let log = consumer.log();
        if log.contains(text) { Ok(()) } else { Err(log) }
    })
    .await;
}

#[tokio::test]
async fn the_consumer_resumes_after_a_kill_and_has_every_record_once() {
    let folder = TempDir::new().expect("a temporary directory");
    let mut deployment = services(&pipeline("external", "timeout = \"10s\""))
        .service(stamp("p1"))
        .service(verifier())
        .start()
        .await;
    deployment.start_service(consumer(folder.path()));
    deployment.submit_blocks(&demo(), 1..=20).await;
    wait_said(deployment.service("consumer"), " 5..5 proved (appends)").await;
    deployment.service_mut("consumer").restart();
    wait_said(deployment.service("consumer"), " 20..20 proved (appends)").await;
    deployment.service("consumer").kill();
    deployment.submit_blocks(&demo(), 21..=25).await;
    deployment.wait_emitted(&demo(), 25, PATIENCE).await;
    deployment.service_mut("consumer").restart();
    wait_said(deployment.service("consumer"), " 25..25 proved (appends)").await;
    let expected: Vec<String> = (1..=25).map(|number| format!("{number} proved 32")).collect();
    assert_eq!(blocks(folder.path()).await, expected);
}

#[tokio::test]
async fn the_consumer_takes_a_record_that_amends_a_dead_block() {
    let folder = TempDir::new().expect("a temporary directory");
    let bad = Process::program("prover-mock")
        .label("bad")
        .env("PUSH0_PROVER__ID", "bad")
        .env("PUSH0_PROVER__ZKVM", "stamp")
        .env("PUSH0_MOCK__TIME", "5ms")
        .env("PUSH0_MOCK__FAILURE_RATE", 1)
        .env("PUSH0_MOCK__FAILURE_CLASS", "fatal");
    let mut deployment = services(&pipeline("external", "timeout = \"10s\"\nattempts = 1"))
        .service(bad)
        .service(verifier())
        .start()
        .await;
    deployment.start_service(consumer(folder.path()));
    deployment.submit_blocks(&demo(), 1..=1).await;
    wait_said(deployment.service("consumer"), " 1..1 dead ").await;
    deployment.service("bad").kill();
    deployment.start_service(stamp("p1"));
    deployment.submit_blocks(&demo(), 2..=2).await;
    wait_said(deployment.service("consumer"), " 2..2 proved (appends)").await;
    assert_eq!(blocks(folder.path()).await, ["1 dead None", "2 proved 32"]);
    run(operate(&deployment, &["dead", "retry", "--all"])).await;
    wait_said(deployment.service("consumer"), " 1..1 proved (amends)").await;
    assert_eq!(blocks(folder.path()).await, ["1 proved 32", "2 proved 32"]);
}
