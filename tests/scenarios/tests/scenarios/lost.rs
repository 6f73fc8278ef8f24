//! Tasks that are taken away: their blocks are missed and proved all the same.

use push0_bus::Stream;
use push0_domain::subject::{self, Kind};
use push0_harness::assert_complete_in_order;
use push0_scenarios::{PATIENCE, count_of, demo, deploy, prover, running, settled, single, verifier};

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
    let lost = "push0_watchdog_acts_total{act=\"lost\"}";
    assert_eq!(count_of(&deployment, "watchdog", lost).await, 1);
    // A block that is merely slow is left alone.
    deployment.submit_blocks(&demo(), 2..=3).await;
    deployment.wait_emitted(&demo(), 3, PATIENCE).await;
    settled(deployment.bus()).await;
}
