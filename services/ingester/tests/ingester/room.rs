//! Stores that fill: blocks wait for room, and nothing else waits with them.

use crate::http::{submit, submit_patiently};
use crate::observed::{
    PATIENCE, ethereum,
    node_proxy::{NodeProxy, asks_in_full},
    pipeline, published_up_to, reset,
};
use push0_bus::{Limits, Place};
use push0_harness::{Anvil, Deployment, Process, wait_for};
use serde_json::json;
use std::time::{Duration, Instant};

/// Starts an ingester with this small a store, of which a fifth is for blobs.
async fn deploy(store_bytes: u64, pipelines: &[String]) -> Deployment {
    let limits = Limits {
        store_bytes,
        ..Limits::default()
    };
    let ingester = Process::program("ingester").env("PUSH0_SUBMIT__LISTEN", "127.0.0.1:0");
    let builder = Deployment::builder().limits(limits);
    let builder = pipelines
        .iter()
        .fold(builder, |builder, toml| builder.pipeline(toml));
    builder.service(ingester).start().await
}

/// Returns a node whose blocks have this many bytes more than anvil's.
async fn node_of_blocks(anvil: &Anvil, more: usize) -> NodeProxy {
    let node = NodeProxy::to(anvil.url()).await;
    node.on_answer(move |question, result| {
        if asks_in_full(question) && result.is_object() {
            result["extra"] = json!("x".repeat(more));
        }
    });
    node
}

async fn metric(deployment: &Deployment, series: &str) -> u64 {
    let metrics = deployment.service("ingester").metrics().await;
    let value = metrics.lines().find_map(|line| line.strip_prefix(series));
    value.map_or(0, |value| value.trim().parse().expect("a number"))
}

async fn waits_for_room(deployment: &Deployment, pipeline: &str) {
    let series = format!("push0_ingester_waits_for_room{{pipeline=\"{pipeline}\"}}");
    wait_for("a pipeline that waits for room", PATIENCE, async || {
        metric(deployment, &series).await == 1
    })
    .await;
}

#[tokio::test]
async fn a_pipeline_without_room_leaves_room_for_proofs_and_its_turn_to_others_and_can_be_reset() {
    const MORE: usize = 1_200_000;
    let (anvil, other) = (Anvil::of_blocks(80).await, Anvil::of_blocks(1).await);
    let node = node_of_blocks(&anvil, MORE).await;
    let of_blocks = "start = 1\nwitness = \"block\"";
    let deployment = deploy(256 << 20, &[ethereum("demo", &node.url, of_blocks)]).await;
    waits_for_room(&deployment, "demo").await;
    let levels = deployment.bus().levels(&[Place::Blobs]).await.expect("a level");
    let used = levels[0].1.permille();
    assert!((830..880).contains(&used), "{used} of 1000");
    // Another pipeline has no blocks that wait, and may fill the store further.
    let small = node_of_blocks(&other, MORE).await;
    deployment.apply(&ethereum("other", &small.url, of_blocks)).await;
    published_up_to(&deployment, "other", 1).await;
    assert_eq!(reset(&deployment, 1).await, None);
}

#[tokio::test]
async fn a_full_store_is_not_asked_again_before_it_has_room() {
    let anvil = Anvil::of_blocks(2).await;
    // Each of the two blocks has more than half of the room for blobs.
    let node = node_of_blocks(&anvil, 900_000).await;
    // The ingester is not ready while the store refuses.
    let deployment = deploy(8 << 20, &[]).await;
    let demo = ethereum("demo", &node.url, "start = 1\nwitness = \"block\"");
    deployment.apply(&demo).await;
    waits_for_room(&deployment, "demo").await;
    let retries = "push0_ingester_store_retries_total{pipeline=\"demo\",reason=\"full\"}";
    assert_eq!(metric(&deployment, retries).await, 1);
}

#[tokio::test]
async fn submissions_without_room_are_refused_at_once_and_take_no_memory_from_others() {
    let posts = |name| pipeline(name, "kind = \"http\"");
    let deployment = deploy(256 << 20, &[posts("full"), posts("other")]).await;
    let block = |number: u64, bytes: usize| {
        json!({ "number": number, "input": format!("0x{}", "ab".repeat(bytes)) }).to_string()
    };
    submit_patiently(&deployment, "full", "1").await;
    submit_patiently(&deployment, "other", "1").await;
    // A fifth of the store is for blobs, and the backlog of a single pipeline may take 83 % of it.
    let mut number = 2;
    while submit(&deployment, "full", &block(number, 4 << 20)).await.0 == 202 {
        number += 1;
    }
    assert!(number > 8, "block {number} has no room");
    let began = Instant::now();
    for _ in 0..5 {
        let (status, answer) = submit(&deployment, "full", &block(number, 4 << 20)).await;
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(
            status == 503 && error.contains("nearly full"),
            "{status}: {answer}"
        );
    }
    assert_eq!(submit(&deployment, "other", &block(2, 100_000)).await.0, 202);
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}
