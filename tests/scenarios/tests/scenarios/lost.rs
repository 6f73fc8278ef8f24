//! Tasks that are taken away: their blocks are missed and proved all the same.

use push0_bus::Stream;
use push0_domain::subject::{self, Kind};
use push0_harness::{Deployment, assert_complete_in_order, wait_for};
use push0_scenarios::{
    PATIENCE, attempts, count_of, demo, deploy, prover, running, settled, single, verifier,
};

const LOST: &str = "push0_watchdog_acts_total{act=\"lost\"}";

/// Takes a message of the pipeline out of a stream as soon as this many results are held at least and the message is the
/// only one.
async fn take_away(deployment: &Deployment, (stream, kind): (Stream, Kind), results: u64) {
    let of_pipeline = subject::attempts_of_pipeline(kind, &demo());
    let bus = deployment.bus();
    wait_for("the last task", PATIENCE, async || {
        let held = bus.level(Stream::Results).await.map(|level| level.messages);
        let there = bus.subjects(stream, &of_pipeline).await.map(|found| found.len());
        let is_last = matches!((&held, &there), (Ok(held), Ok(1)) if *held >= results);
        is_last.then_some(()).ok_or(format!("{held:?} {there:?}"))
    })
    .await;
    assert_eq!(bus.purge(stream, &of_pipeline).await.expect("purged"), 1);
}

/// Takes away a task of this stage of three, whose prover says nothing more, while `results` results are held.
async fn take_away_a_task_of(stage: &str, results: u64) {
    let on_other = |name: &str| if name == stage { "zkvm = \"other\"" } else { "" };
    let (part, join) = (on_other("part"), on_other("join"));
    let pipeline = format!(
        r#"
        name = "demo"
        source = {{ kind = "external" }}
        [[proof]]
        type = "main"
        zkvm = "mock"
        stage = [
            {{ name = "split", kind = "split", timeout = "90s" }},
            {{ name = "part", kind = "map", timeout = "90s", {part} }},
            {{ name = "join", kind = "join", timeout = "90s", {join} }},
        ]
        "#
    );
    let pipeline = pipeline.replace(", }", " }");
    let on_other = |name: &str| prover(name).env("PUSH0_PROVER__ZKVM", "other");
    let adapters = [
        prover("p1").env("PUSH0_MOCK__SPLIT", 3),
        verifier("v1"),
        on_other("v2").arg("--verify"),
        on_other("slow").env("PUSH0_MOCK__TIME", "1000s"),
    ];
    let mut deployment = deploy(&pipeline, adapters).await;
    deployment.submit_blocks(&demo(), 1..=1).await;
    wait_for("the slow prover to have a task", PATIENCE, async || {
        let tasks = subject::tasks_of_zkvm(&"other".parse().expect("a name"));
        let there = deployment.bus().subjects(Stream::Tasks, &tasks).await;
        matches!(&there, Ok(there) if !there.is_empty())
            .then_some(())
            .ok_or(format!("{there:?}"))
    })
    .await;
    deployment.start_service(on_other("p2"));
    if results > 0 {
        take_away(&deployment, (Stream::Tasks, Kind::Task), results).await;
    } else {
        let tasks = subject::attempts_of_pipeline(Kind::Task, &demo());
        let taken = deployment
            .bus()
            .purge(Stream::Tasks, &tasks)
            .await
            .expect("purged");
        assert_eq!(taken, 1);
    }
    let emissions = deployment.wait_emitted(&demo(), 1, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=1);
    assert_eq!(count_of(&deployment, "watchdog", LOST).await, 1);
    settled(deployment.bus()).await;
}

#[tokio::test]
async fn a_part_that_is_taken_away_while_the_others_are_done_is_missed() {
    take_away_a_task_of("part", 2).await;
}

/// The results of the parts are acknowledged, so no message names the block.
#[tokio::test]
async fn a_later_stage_that_is_taken_away_is_missed() {
    take_away_a_task_of("join", 0).await;
}

#[tokio::test]
async fn a_proof_that_is_taken_away_before_it_is_verified_is_made_again() {
    let mut deployment = deploy(&single("timeout = \"90s\""), [prover("p1")]).await;
    deployment.submit_blocks(&demo(), 1..=1).await;
    take_away(&deployment, (Stream::Checks, Kind::Check), 0).await;
    deployment.start_service(verifier("v1"));
    let emissions = deployment.wait_emitted(&demo(), 1, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=1);
    assert_eq!(count_of(&deployment, "watchdog", LOST).await, 1);
    settled(deployment.bus()).await;
}

/// A prover of the zkVM acknowledges a task and gives no result, or a full disk loses the task: the message is gone.
#[tokio::test]
async fn a_task_that_is_taken_away_is_missed_and_its_block_is_proved() {
    let slow = prover("p1").env("PUSH0_MOCK__TIME", "60s");
    let mut deployment = deploy(&single("timeout = \"90s\""), [slow, verifier("v1")]).await;
    deployment.submit_blocks(&demo(), 1..=1).await;
    running(deployment.bus(), "p1").await;
    let tasks = subject::attempts_of_pipeline(Kind::Task, &demo());
    let taken = deployment
        .bus()
        .purge(Stream::Tasks, &tasks)
        .await
        .expect("purged");
    assert_eq!(taken, 1);
    deployment.service("p1").kill();
    deployment.start_service(prover("p2"));
    let emissions = deployment.wait_emitted(&demo(), 1, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=1);
    assert_eq!(count_of(&deployment, "watchdog", LOST).await, 1);
    // A block that is merely slow is left alone.
    deployment.submit_blocks(&demo(), 2..=3).await;
    deployment.wait_emitted(&demo(), 3, PATIENCE).await;
    settled(deployment.bus()).await;
}

/// Block 4 holds up the range of blocks 3 to 5. Its first attempt fails, and the second one is taken away.
#[tokio::test]
async fn a_task_of_a_block_inside_a_range_that_is_taken_away_is_missed() {
    let stage = "timeout = \"90s\"\n[[proof.stage]]\nname = \"aggregate\"\nkind = \"range\"\nevery = 3\n\
                 close_after = \"60s\"\ntimeout = \"90s\"";
    let mut deployment = deploy(&single(stage), [prover("p1"), verifier("v1")]).await;
    deployment.submit_blocks(&demo(), 3..=3).await;
    wait_for("the first block", PATIENCE, async || {
        let held = deployment.bus().level(Stream::Results).await;
        matches!(&held, Ok(held) if held.messages == 1)
            .then_some(())
            .ok_or(format!("{held:?}"))
    })
    .await;
    deployment.service("p1").kill();
    deployment.start_service(prover("bad").env("PUSH0_MOCK__FAILURE_RATE", 1));
    deployment.submit_blocks(&demo(), 4..=4).await;
    wait_for("a failure", PATIENCE, async || {
        let failed = attempts(deployment.service("bad"), "retryable").await;
        (failed > 0).then_some(()).ok_or(failed)
    })
    .await;
    deployment.start_service(prover("slow").env("PUSH0_MOCK__TIME", "1000s"));
    running(deployment.bus(), "slow").await;
    deployment.service("bad").kill();
    deployment.start_service(prover("p2"));
    take_away(&deployment, (Stream::Tasks, Kind::Task), 2).await;
    deployment.submit_blocks(&demo(), 5..=5).await;
    let emissions = deployment.wait_emitted(&demo(), 1, PATIENCE).await;
    assert_complete_in_order(&emissions, 3..=5);
    assert_eq!(count_of(&deployment, "watchdog", LOST).await, 1);
    settled(deployment.bus()).await;
}

/// Of ten blocks in flight, five are taken away at once. They do not wait for each other to be missed.
#[tokio::test]
async fn tasks_of_many_blocks_that_are_taken_away_are_missed_together() {
    let slow = prover("slow")
        .env("PUSH0_MOCK__TIME", "1000s")
        .env("PUSH0_PROVER__SLOTS", 5);
    let mut deployment = deploy(&single("timeout = \"90s\""), [slow, verifier("v1")]).await;
    deployment.submit_blocks(&demo(), 1..=5).await;
    let tasks = subject::attempts_of_pipeline(Kind::Task, &demo());
    wait_for("five tasks", PATIENCE, async || {
        let there = deployment.bus().subjects(Stream::Tasks, &tasks).await;
        matches!(&there, Ok(there) if there.len() == 5)
            .then_some(())
            .ok_or(format!("{there:?}"))
    })
    .await;
    let taken = deployment.bus().purge(Stream::Tasks, &tasks).await;
    assert_eq!(taken.expect("purged"), 5);
    deployment.service("slow").kill();
    deployment.start_service(prover("p2"));
    deployment.submit_blocks(&demo(), 6..=10).await;
    let emissions = deployment.wait_emitted(&demo(), 10, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=10);
    assert_eq!(count_of(&deployment, "watchdog", LOST).await, 5);
    settled(deployment.bus()).await;
}

#[tokio::test]
async fn a_finished_proof_that_waits_for_another_one_is_not_begun_anew() {
    let pipeline = r#"
        name = "demo"
        source = { kind = "external" }
        quorum = { valid = 2 }
        [[proof]]
        type = "fast"
        zkvm = "mock"
        stage = [{ name = "prove", kind = "map", timeout = "90s" }]
        [[proof]]
        type = "slow"
        zkvm = "other"
        stage = [{ name = "prove", kind = "map", timeout = "90s" }]
        "#;
    let on_other = |name: &str| prover(name).env("PUSH0_PROVER__ZKVM", "other");
    let adapters = [
        prover("p1"),
        verifier("v1"),
        on_other("p2").env("PUSH0_MOCK__TIME", "9s"),
        on_other("v2").arg("--verify"),
    ];
    let deployment = deploy(pipeline, adapters).await;
    deployment.submit_blocks(&demo(), 1..=1).await;
    let emissions = deployment.wait_emitted(&demo(), 1, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=1);
    assert_eq!(count_of(&deployment, "watchdog", LOST).await, 0);
    assert_eq!(attempts(deployment.service("p1"), "completed").await, 1);
}
