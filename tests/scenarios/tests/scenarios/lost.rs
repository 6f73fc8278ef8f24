//! Tasks that are taken away: their blocks are missed and proved all the same.

use push0_bus::Stream;
use push0_domain::subject::{self, Kind};
use push0_harness::{Deployment, ProcessBuilder, assert_complete_in_order, wait_for};
use push0_scenarios::{
    PATIENCE, attempts, count_of, demo, deploy, prover, push0, running, running_on, settled, single, verifier,
};
use std::ops::RangeInclusive;

const LOST: &str = "push0_watchdog_acts_total{act=\"lost\"}";
const LOST_RANGES: &str = "push0_ranges_lost_total{pipeline=\"demo\"}";

/// Takes the messages of the pipeline out of a stream as soon as there are `count` of them, and at least this many results
/// are held.
async fn take_away(deployment: &Deployment, (stream, kind): (Stream, Kind), count: usize, results: u64) {
    let of_pipeline = subject::attempts_of_pipeline(kind, &demo());
    let bus = deployment.bus();
    wait_for("the messages to take away", PATIENCE, async || {
        let held = bus.level(Stream::Results).await.map(|level| level.messages);
        let there = bus.subjects(stream, &of_pipeline).await.map(|found| found.len());
        let are_there =
            matches!((&held, &there), (Ok(held), Ok(there)) if *held >= results && *there == count);
        are_there.then_some(()).ok_or(format!("{held:?} {there:?}"))
    })
    .await;
    let taken = bus.purge(stream, &of_pipeline).await.expect("purged");
    assert_eq!(taken, count as u64);
}

/// Waits until the blocks are emitted by as many records, and checks that this many proofs were begun anew.
async fn assert_proved(deployment: &Deployment, blocks: RangeInclusive<u64>, records: usize, lost: u64) {
    let emissions = deployment.wait_emitted(&demo(), records, PATIENCE).await;
    assert_complete_in_order(&emissions, blocks);
    assert_eq!(count_of(deployment, "watchdog", LOST).await, lost);
    settled(deployment.bus()).await;
}

fn on_other(name: &str) -> ProcessBuilder {
    prover(name).env("PUSH0_PROVER__ZKVM", "other")
}

/// Takes away a task of this stage of three, whose prover says nothing more, while `results` results are held.
async fn take_away_a_task_of(stage: &str, results: u64) {
    let zkvm_of = |name: &str| if name == stage { "other" } else { "mock" };
    let (part, join) = (zkvm_of("part"), zkvm_of("join"));
    let pipeline = format!(
        r#"
        name = "demo"
        source = {{ kind = "external" }}
        [[proof]]
        type = "main"
        zkvm = "mock"
        stage = [
            {{ name = "split", kind = "split", timeout = "90s" }},
            {{ name = "part", kind = "map", timeout = "90s", zkvm = "{part}" }},
            {{ name = "join", kind = "join", timeout = "90s", zkvm = "{join}" }},
        ]
        "#
    );
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
    take_away(&deployment, (Stream::Tasks, Kind::Task), 1, results).await;
    assert_proved(&deployment, 1..=1, 1, 1).await;
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
    take_away(&deployment, (Stream::Checks, Kind::Check), 1, 0).await;
    deployment.start_service(verifier("v1"));
    assert_proved(&deployment, 1..=1, 1, 1).await;
}

/// A prover of the zkVM acknowledges a task and gives no result, or a full disk loses the task: the message is gone.
#[tokio::test]
async fn a_task_that_is_taken_away_is_missed_and_its_block_is_proved() {
    let slow = prover("p1").env("PUSH0_MOCK__TIME", "60s");
    let mut deployment = deploy(&single("timeout = \"90s\""), [slow, verifier("v1")]).await;
    deployment.submit_blocks(&demo(), 1..=1).await;
    running(deployment.bus(), "p1").await;
    take_away(&deployment, (Stream::Tasks, Kind::Task), 1, 0).await;
    deployment.service("p1").kill();
    deployment.start_service(prover("p2"));
    assert_proved(&deployment, 1..=1, 1, 1).await;
    // A block that is merely slow is left alone.
    deployment.submit_blocks(&demo(), 2..=3).await;
    assert_proved(&deployment, 1..=3, 3, 1).await;
}

/// The collector holds the end of blocks 5 to 9 until their turn, which waits for block 1.
#[tokio::test]
async fn a_task_that_is_taken_away_is_missed_while_the_end_of_later_blocks_waits() {
    let slow = prover("p1").env("PUSH0_MOCK__TIME", "60s");
    let mut deployment = deploy(&single("timeout = \"90s\""), [slow, verifier("v1")]).await;
    deployment.submit_blocks(&demo(), 1..=1).await;
    running(deployment.bus(), "p1").await;
    push0(&deployment, &["cancel", "5..9", "--note", "a test"]).await;
    take_away(&deployment, (Stream::Tasks, Kind::Task), 1, 1).await;
    deployment.service("p1").kill();
    deployment.start_service(prover("p2"));
    deployment.wait_emitted(&demo(), 1, PATIENCE).await;
    deployment.submit_blocks(&demo(), 2..=9).await;
    assert_proved(&deployment, 1..=9, 9, 1).await;
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
    take_away(&deployment, (Stream::Tasks, Kind::Task), 1, 2).await;
    deployment.submit_blocks(&demo(), 5..=5).await;
    assert_proved(&deployment, 3..=5, 1, 1).await;
}

/// Returns a pipeline whose ranges of four blocks are joined in pairs on one zkVM, and wrapped on another one.
fn ranges(range_zkvm: &str, wrap_zkvm: &str) -> String {
    single(&format!(
        r#"timeout = "90s"
        [[proof.stage]]
        name = "aggregate"
        kind = "range"
        zkvm = "{range_zkvm}"
        every = 4
        close_after = "60s"
        arity = 2
        timeout = "90s"
        [[proof.stage]]
        name = "wrap"
        kind = "map"
        zkvm = "{wrap_zkvm}"
        timeout = "90s"
        "#
    ))
}

/// Waits until blocks 4 to 7 are emitted by one record, and checks that their range was begun anew once, and no block.
async fn assert_range_proved(deployment: &Deployment) {
    assert_proved(deployment, 4..=7, 1, 0).await;
    assert_eq!(count_of(deployment, "collector", LOST_RANGES).await, 1);
}

/// No result of the range has come, so only the collector knows the range.
#[tokio::test]
async fn a_range_whose_tasks_are_all_taken_away_is_missed() {
    let slow = on_other("slow").env("PUSH0_MOCK__TIME", "1000s");
    let adapters = [prover("p1"), verifier("v1"), slow.env("PUSH0_PROVER__SLOTS", 2)];
    let mut deployment = deploy(&ranges("other", "mock"), adapters).await;
    deployment.submit_blocks(&demo(), 4..=7).await;
    take_away(&deployment, (Stream::Tasks, Kind::Task), 2, 4).await;
    deployment.service("slow").kill();
    deployment.start_service(on_other("p2"));
    assert_range_proved(&deployment).await;
    // A range that is merely slow is left alone.
    deployment.service("p2").kill();
    deployment.start_service(on_other("p3").env("PUSH0_MOCK__TIME", "5s"));
    deployment.submit_blocks(&demo(), 8..=11).await;
    assert_proved(&deployment, 4..=11, 2, 0).await;
    assert_eq!(count_of(&deployment, "collector", LOST_RANGES).await, 1);
}

/// Takes away the only task in flight of a range while `results` results are held, of its four blocks and of others of its
/// tasks. The provers of zkVM `other` run the task. The collector may die then.
async fn take_away_of_a_range(pipeline: &str, results: u64, dies: bool) {
    let adapters = [
        prover("p1"),
        verifier("v1"),
        on_other("v2").arg("--verify"),
        on_other("slow").env("PUSH0_MOCK__TIME", "1000s"),
    ];
    let mut deployment = deploy(pipeline, adapters).await;
    deployment.submit_blocks(&demo(), 4..=7).await;
    running_on(deployment.bus(), "other", "slow").await;
    deployment.start_service(on_other("p2"));
    take_away(&deployment, (Stream::Tasks, Kind::Task), 1, results).await;
    if dies {
        let leader = deployment.leader("collector").await;
        deployment.service_mut(&leader).restart();
    }
    assert_range_proved(&deployment).await;
}

#[tokio::test]
async fn a_task_of_a_range_that_is_taken_away_while_the_other_is_done_is_missed() {
    take_away_of_a_range(&ranges("other", "mock"), 5, false).await;
}

#[tokio::test]
async fn a_stage_behind_a_range_that_is_taken_away_is_missed() {
    take_away_of_a_range(&ranges("mock", "other"), 5, false).await;
}

#[tokio::test]
async fn a_proof_of_a_range_that_is_taken_away_before_it_is_verified_is_made_again() {
    let adapters = [prover("p1"), verifier("v1"), on_other("p2")];
    let mut deployment = deploy(&ranges("mock", "other"), adapters).await;
    deployment.submit_blocks(&demo(), 4..=7).await;
    take_away(&deployment, (Stream::Checks, Kind::Check), 1, 5).await;
    deployment.start_service(on_other("v2").arg("--verify"));
    assert_range_proved(&deployment).await;
}

/// The next collector finds the result of the other task, so it takes the range for one in progress.
#[tokio::test]
async fn a_task_of_a_range_that_is_taken_away_is_missed_by_the_next_collector() {
    take_away_of_a_range(&ranges("other", "mock"), 5, true).await;
}

/// Of ten blocks in flight, five are taken away at once. They do not wait for each other to be missed.
#[tokio::test]
async fn tasks_of_many_blocks_that_are_taken_away_are_missed_together() {
    let slow = prover("slow")
        .env("PUSH0_MOCK__TIME", "1000s")
        .env("PUSH0_PROVER__SLOTS", 5);
    let mut deployment = deploy(&single("timeout = \"90s\""), [slow, verifier("v1")]).await;
    deployment.submit_blocks(&demo(), 1..=5).await;
    take_away(&deployment, (Stream::Tasks, Kind::Task), 5, 0).await;
    deployment.service("slow").kill();
    deployment.start_service(prover("p2"));
    deployment.submit_blocks(&demo(), 6..=10).await;
    assert_proved(&deployment, 1..=10, 10, 5).await;
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
    let adapters = [
        prover("p1"),
        verifier("v1"),
        on_other("p2").env("PUSH0_MOCK__TIME", "9s"),
        on_other("v2").arg("--verify"),
    ];
    let deployment = deploy(pipeline, adapters).await;
    deployment.submit_blocks(&demo(), 1..=1).await;
    assert_proved(&deployment, 1..=1, 1, 0).await;
    assert_eq!(attempts(deployment.service("p1"), "completed").await, 1);
}
