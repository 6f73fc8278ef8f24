//! Waiting blocks stay in their stream, delay no other pipeline, and can be cancelled at once.

use push0_bus::{Bus, Message, Stream};
use push0_domain::{
    Payload, PipelineId,
    message::{BlockEvent, BlockFacts, Emission, EmissionOutcome, ObservedBlock},
    subject,
    trace::TraceContext,
};
use push0_harness::{Deployment, assert_complete_in_order, synthetic_block, synthetic_hash, wait_for};
use push0_scenarios::{
    PATIENCE, attempts, count_of, dead_letters, demo, outcome, prover, push0, settled, single, verifier,
};
use std::ops::RangeInclusive;

/// Number of blocks dispatched ahead of the output in these tests.
const AHEAD: u64 = 8;

/// Starts all services and a verifier, but no prover.
async fn deploy(pipelines: &[String]) -> Deployment {
    let builder = Deployment::builder()
        .as_shipped()
        .env_of("dispatcher", "PUSH0_DISPATCH__AHEAD", AHEAD)
        .service(verifier("v1"));
    let builder = pipelines
        .iter()
        .fold(builder, |builder, pipeline| builder.pipeline(pipeline));
    builder.start().await
}

fn of(name: &str) -> String {
    single("timeout = \"20s\"").replace("\"demo\"", &format!("\"{name}\""))
}

/// Waits until the next block of a pipeline is too far ahead of its output.
async fn waits_for_output(deployment: &Deployment, pipeline: &PipelineId) {
    let series = format!("push0_dispatch_waits_for_output{{pipeline=\"{pipeline}\"}}");
    wait_for("dispatch that waits for the output", PATIENCE, async || {
        count_of(deployment, "dispatcher", &series).await == 1
    })
    .await;
}

/// Waits until an end of a block in RESULTS tells the collector of a cancel.
async fn is_told(bus: &Bus) {
    wait_for("an end in RESULTS", PATIENCE, async || {
        let told = bus.subjects(Stream::Results, &subject::ended(&demo())).await;
        told.is_ok_and(|told| !told.is_empty())
    })
    .await;
}

async fn cancel(deployment: &Deployment, blocks: &str) {
    let command = ["cancel", "--pipeline", "demo", blocks, "--note", "a test"];
    push0(deployment, &command).await;
}

/// Checks that all blocks have their record, in order, and exactly the blocks `abandoned` are abandoned.
fn assert_abandoned(emissions: &[push0_bus::Kept<Emission>], last: u64, abandoned: RangeInclusive<u64>) {
    assert_eq!(emissions.len() as u64, last);
    for (kept, number) in emissions.iter().zip(1..) {
        assert_eq!(kept.body.as_ref().expect("readable").last.number, number);
        let is_abandoned = matches!(outcome(kept), EmissionOutcome::Abandoned(_));
        assert_eq!(is_abandoned, abandoned.contains(&number), "{kept:?}");
    }
}

#[tokio::test]
async fn a_cancel_is_effective_at_once_behind_a_backlog_of_blocks() {
    let mut deployment = deploy(&[of("demo")]).await;
    deployment.submit_blocks(&demo(), 1..=200).await;
    waits_for_output(&deployment, &demo()).await;
    // Without a prover the output stands still, so a cancel queued behind the blocks would never be read.
    cancel(&deployment, "1..150").await;
    deployment.wait_emitted(&demo(), 150, PATIENCE).await;
    deployment.start_service(prover("p1"));
    let emissions = deployment.wait_emitted(&demo(), 200, PATIENCE).await;
    assert_abandoned(&emissions, 200, 1..=150);
    settled(deployment.bus()).await;
    assert_eq!(attempts(deployment.service("p1"), "completed").await, 50);
}

#[tokio::test]
async fn a_hole_stops_dispatch_at_its_limit_and_no_other_pipeline() {
    let (demo, steady) = (demo(), PipelineId::new("steady").expect("a name"));
    let mut deployment = deploy(&[of("demo"), of("steady")]).await;
    deployment.submit_blocks(&demo, 1..=5).await;
    deployment.submit_blocks(&demo, 7..=60).await;
    deployment.start_service(prover("p1"));
    waits_for_output(&deployment, &demo).await;
    deployment.submit_blocks(&steady, 1..=40).await;
    let emissions = deployment.wait_emitted(&steady, 40, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=40);
    // Blocks 1 to 5, and 8 blocks ahead of the hole.
    wait_for("all that may be dispatched", PATIENCE, async || {
        attempts(deployment.service("p1"), "completed").await == 40 + 5 + AHEAD
    })
    .await;
    assert_eq!(deployment.emissions(&demo).await.len(), 5);
    // The missing block lies in the stream behind all blocks that wait for it.
    deployment.submit_blocks(&demo, 6..=6).await;
    let emissions = deployment.wait_emitted(&demo, 60, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=60);
    settled(deployment.bus()).await;
    assert_eq!(
        attempts(deployment.service("p1"), "completed").await,
        100,
        "every block once"
    );
}

#[tokio::test]
async fn a_dispatcher_that_is_killed_ends_what_was_cancelled_before_it_was_read() {
    let mut deployment = deploy(&[of("demo")]).await;
    deployment.submit_blocks(&demo(), 1..=100).await;
    waits_for_output(&deployment, &demo()).await;
    cancel(&deployment, "50..90").await;
    is_told(deployment.bus()).await;
    let leader = deployment.leader("dispatcher").await;
    deployment.service_mut(&leader).restart();
    deployment.ready().await;
    deployment.start_service(prover("p1"));
    let emissions = deployment.wait_emitted(&demo(), 100, PATIENCE).await;
    assert_abandoned(&emissions, 100, 50..=90);
    settled(deployment.bus()).await;
    assert_eq!(attempts(deployment.service("p1"), "completed").await, 59);
}

#[tokio::test]
async fn pipelines_are_served_as_they_come_and_leave_nothing_when_they_go() {
    let mut deployment = deploy(&[of("demo")]).await;
    deployment.start_service(prover("p1"));
    let later = deployment.apply(&of("later")).await;
    deployment.submit_blocks(&later, 1..=5).await;
    let emissions = deployment.wait_emitted(&later, 5, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=5);
    deployment
        .pipelines()
        .remove(&later)
        .await
        .expect("it is removed");

    // The pipeline `ghost` was never defined.
    let ghost = PipelineId::new("ghost").expect("a name");
    let event = BlockEvent::Observed(ObservedBlock {
        pipeline: ghost.clone(),
        revision: 1,
        block: synthetic_block(&ghost, 1),
        parent_hash: synthetic_hash(&ghost, 0),
        input: Payload::Inline(b"1".to_vec()),
        observed_at: push0_bus::now(),
        deadline_at: None,
        facts: BlockFacts::default(),
    });
    let message = Message::new(subject::block(&ghost), &event, &TraceContext::default());
    let stored = deployment
        .bus()
        .publish(message.expect("it can be written"))
        .await;
    stored.expect("the block is stored");
    wait_for("a dead letter", PATIENCE, async || {
        dead_letters(deployment.bus()).await.len() == 1
    })
    .await;
    for gone in [later, ghost] {
        let consumer = format!("dispatcher-blocks-{gone}");
        wait_for(&format!("no {consumer}"), PATIENCE, async || {
            let out = deployment.bus().handed_out(Stream::Blocks, &consumer).await;
            out.is_ok_and(|out| out.is_none())
        })
        .await;
    }
    settled(deployment.bus()).await;
}
