//! Failures that are not the task's: an outage of a dependency costs time, and no block.

use push0_domain::{
    message::{EmissionOutcome, Happening},
    subject::{self, Kind},
};
use push0_harness::{
    Deployment, DeploymentBuilder, Process, ProcessBuilder, assert_complete_in_order, wait_for,
};
use push0_scenarios::{
    MOCK, PATIENCE, attempts, count_of, dead_letters, demo, happening, outcome, settled, single,
};
use std::path::Path;
use tempfile::TempDir;

const HELD: &str = "push0_queue_held{zkvm=\"mock\"}";

/// A program that fails at once while the file `outage` exists, and on the blocks of `poisonous` always.
fn program(name: &str, folder: &Path, poisonous: &str) -> ProcessBuilder {
    let outage = folder.join("outage");
    let script = format!(
        "if [ -e {} ]; then echo 'the node does not answer' >&2; exit 1; fi; \
         case $(cat \"$1\") in {poisonous}) echo 'guest panicked' >&2; exit 1;; esac; sleep 0.05; cp \"$1\" \"$2\"",
        outage.display()
    );
    Process::program("prover-exec")
        .label(name)
        .env("PUSH0_PROVER__ID", name)
        .env("PUSH0_PROVER__ZKVM", MOCK)
        .config(&format!(
            "[exec]\nprogram = '/bin/sh'\nargs = ['-c', '''{script}''', 'script', '{{input}}', '{{output}}']\n"
        ))
}

async fn deploy(stage: &str, programs: impl IntoIterator<Item = ProcessBuilder>) -> Deployment {
    let pipeline = single(stage).replace("zkvm = \"mock\"", "zkvm = \"mock\"\nverify = \"off\"");
    let builder = Deployment::builder().as_shipped().pipeline(&pipeline);
    let builder = programs.into_iter().fold(builder, DeploymentBuilder::service);
    builder.start().await
}

#[tokio::test]
async fn an_outage_of_a_dependency_costs_time_and_no_block() {
    let folder = TempDir::new().expect("a temporary directory");
    let outage = folder.path().join("outage");
    let programs = ["p1", "p2"].map(|name| program(name, folder.path(), "never"));
    let stage = "timeout = \"10s\"\nattempts = 2\nretry = { first = \"100ms\", longest = \"1s\" }";
    let deployment = deploy(stage, programs).await;
    let mut events = deployment
        .bus()
        .listen([subject::all(Kind::Event)])
        .await
        .expect("listening");
    deployment.submit_blocks(&demo(), 1..=20).await;
    deployment.wait_emitted(&demo(), 20, PATIENCE).await;
    std::fs::write(&outage, "").expect("written");
    deployment.submit_blocks(&demo(), 21..=60).await;
    let is_held = |what: &Happening| matches!(what, Happening::QueueHeld { .. });
    let held = happening(&mut events, "a held queue", is_held).await;
    let Happening::QueueHeld { zkvm, held } = held else {
        unreachable!("asked for")
    };
    assert_eq!(zkvm.as_str(), MOCK);
    assert!(held.error.contains("the node does not answer"), "{held:?}");
    let status = deployment.command().arg("status").start();
    let code = status.wait_exit(PATIENCE).await.code();
    let said = status.log();
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("the queue of zkVM mock has been held") && said.contains("the node does not answer"),
        "{said}"
    );
    assert_eq!(count_of(&deployment, "dispatcher", HELD).await, 1);
    let failed = async || {
        let mut failed = 0;
        for name in ["p1", "p2"] {
            failed += attempts(deployment.service(name), "retryable").await;
        }
        failed
    };
    wait_for("five probes", PATIENCE, async || failed().await >= 8).await;
    assert!(failed().await < 20, "one probe at a time: {}", failed().await);
    assert_eq!(deployment.emissions(&demo()).await.len(), 20);
    std::fs::remove_file(&outage).expect("removed");
    let is_open = |what: &Happening| matches!(what, Happening::QueueOpened { .. });
    happening(&mut events, "an open queue", is_open).await;
    let emissions = deployment.wait_emitted(&demo(), 60, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=60);
    assert!(
        emissions
            .iter()
            .all(|kept| matches!(outcome(kept), EmissionOutcome::Proved(_)))
    );
    assert_eq!(dead_letters(deployment.bus()).await, []);
    assert_eq!(count_of(&deployment, "dispatcher", HELD).await, 0);
    settled(deployment.bus()).await;
}

#[tokio::test]
async fn a_poisonous_task_is_a_dead_letter_while_others_overtake_it() {
    let folder = TempDir::new().expect("a temporary directory");
    let programs = ["p1", "p2"].map(|name| program(name, folder.path(), "3"));
    let stage = "timeout = \"10s\"\nattempts = 3\nretry = { first = \"20ms\", longest = \"200ms\" }";
    let deployment = deploy(stage, programs).await;
    let mut next = 1;
    wait_for("the dead letter of block 3", PATIENCE, async || {
        deployment.submit_blocks(&demo(), next..=next).await;
        next += 1;
        dead_letters(deployment.bus())
            .await
            .iter()
            .any(|letter| letter.reason.contains("guest panicked"))
    })
    .await;
    let emissions = deployment.wait_emitted(&demo(), 3, PATIENCE).await;
    assert!(matches!(outcome(&emissions[2]), EmissionOutcome::Dead { .. }));
    assert_eq!(dead_letters(deployment.bus()).await.len(), 1);
}
