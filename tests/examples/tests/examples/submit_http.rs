//! `examples/submit-http`: the submitter finds the leader and waits where no ingester takes blocks.

use crate::{
    PATIENCE,
    consumer_python::{blocks, consumer, wait_said},
    pipeline, run, services, stamp, verifier,
};
use push0_examples::python;
use push0_harness::{Deployment, Process, ProcessBuilder, wait_for};
use tempfile::TempDir;

/// Returns the submitter with the addresses of these ingesters, which submits the blocks in a file.
async fn submitter(deployment: &Deployment, ingesters: &[&str], lines: &str) -> (ProcessBuilder, TempDir) {
    let folder = TempDir::new().expect("a temporary directory");
    let file = folder.path().join("blocks");
    std::fs::write(&file, lines).expect("the blocks are written");
    let mut submitter = python("submitter", "submit-http/submit.py")
        .arg("--file")
        .arg(file);
    for ingester in ingesters {
        let address = address(deployment.service(ingester)).await;
        submitter = submitter.arg(format!("http://{address}/v1/pipelines/demo/blocks"));
    }
    (submitter, folder)
}

/// Returns the address at which an ingester takes blocks, from its log.
async fn address(ingester: &Process) -> String {
    wait_for("the address for blocks", PATIENCE, async || {
        let log = ingester.log();
        let line = log.lines().rfind(|line| line.contains("listening for blocks"))?;
        line.split("address=")
            .nth(1)
            .map(|address| address.trim().to_owned())
    })
    .await
}

fn ingester(label: &str) -> ProcessBuilder {
    Process::program("ingester")
        .label(label)
        .env("PUSH0_SUBMIT__LISTEN", "127.0.0.1:0")
}

/// Returns one line for each of these numbers.
fn numbers(range: std::ops::RangeInclusive<u64>) -> String {
    range.map(|number| format!("{number}\n")).collect()
}

#[tokio::test]
async fn submitted_blocks_reach_the_leader_and_a_reorg_reaches_the_consumer() {
    let folder = TempDir::new().expect("a temporary directory");
    let mut deployment = services(&pipeline("http", "timeout = \"10s\""))
        .service(ingester("ingester"))
        .service(stamp("p1"))
        .service(verifier())
        .start()
        .await;
    deployment.start_service(consumer(folder.path()));
    let (program, _blocks) = submitter(&deployment, &["ingester"], &numbers(1..=6)).await;
    run(program).await;
    wait_said(deployment.service("consumer"), " 6..6 proved (appends)").await;

    // The standby answers 503 while the other ingester leads, and leads once the leader is gone.
    let standby = deployment.start_service(ingester("standby"));
    standby.ready(PATIENCE).await;
    let other = format!("{{\"number\": 5, \"hash\": \"0x{}\"}}\n6\n", "5a".repeat(32));
    let ingesters = ["standby", "ingester"];
    let (program, _blocks) = submitter(&deployment, &ingesters, &other).await;
    let said = run(program).await;
    assert!(
        said.contains(": 503: ") && said.contains("2 blocks are stored"),
        "{said}"
    );
    let (program, _blocks) = submitter(&deployment, &ingesters, &numbers(7..=8)).await;
    deployment.service("ingester").kill();
    let said = run(program).await;
    assert!(said.contains("2 blocks are stored"), "{said}");
    wait_said(deployment.service("consumer"), " 5..5 proved (replaces 2)").await;
    wait_said(deployment.service("consumer"), " 8..8 proved (appends)").await;
    let expected: Vec<String> = (1..=8).map(|number| format!("{number} proved 32")).collect();
    assert_eq!(blocks(folder.path()).await, expected);
}
