//! Sources with several URLs: a node that is of no use is left for the next one.

use crate::chains::logged;
use crate::observed::{
    deploy, ethereum,
    node_proxy::{NodeProxy, Reply, asks_for, asks_for_head},
    not_ready, numbers, outcome, published_up_to,
};
use push0_harness::Anvil;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Returns a pipeline with these two nodes, asked in this order.
fn of_two(first: &NodeProxy, second: &NodeProxy, more: &str) -> String {
    let urls = format!("{}\", \"{}", first.url, second.url);
    let pipeline = ethereum("demo", &urls, more);
    pipeline.replace(&format!("\"{urls}\""), &format!("[\"{urls}\"]"))
}

#[tokio::test]
async fn the_next_url_is_asked_when_one_fails_and_kept() {
    let anvil = Anvil::start(None).await;
    anvil.mine(2).await;
    let (first, second) = (NodeProxy::to(anvil.url()).await, NodeProxy::to(anvil.url()).await);
    let asked = Arc::new(AtomicU64::new(0));
    let deployment = deploy(&[of_two(&first, &second, "start = 1")]).await;
    published_up_to(&deployment, "demo", 2).await;
    first.on_question(|_| Reply::Status(502));
    anvil.mine(1).await;
    published_up_to(&deployment, "demo", 3).await;
    deployment.ready().await;
    // Heads of two nodes differ, so the second one is kept when the first one is back.
    let count = asked.clone();
    first.on_question(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Reply::Node
    });
    anvil.mine(1).await;
    published_up_to(&deployment, "demo", 4).await;
    assert_eq!(
        (asked.load(Ordering::Relaxed), logged(&deployment, "resigned")),
        (0, 0)
    );
    second.on_question(|_| Reply::Status(502));
    anvil.mine(1).await;
    assert_eq!(
        numbers(&published_up_to(&deployment, "demo", 5).await),
        [1, 2, 3, 4, 5]
    );
    assert!(asked.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn a_node_of_another_chain_is_never_followed() {
    let (anvil, other) = (Anvil::start(None).await, Anvil::start(None).await);
    anvil.mine(2).await;
    other.mine(9).await;
    let (first, second) = (NodeProxy::to(anvil.url()).await, NodeProxy::to(other.url()).await);
    second.on_question(|question| match question["method"] == "eth_chainId" {
        true => Reply::Result(json!("0x5")),
        false => Reply::Node,
    });
    let deployment = deploy(&[of_two(&first, &second, "start = 1")]).await;
    published_up_to(&deployment, "demo", 2).await;
    first.on_question(|_| Reply::Status(502));
    not_ready(&deployment, "serves the chain 0x5").await;
    first.on_question(|_| Reply::Node);
    anvil.mine(1).await;
    assert_eq!(numbers(&published_up_to(&deployment, "demo", 3).await), [1, 2, 3]);
}

#[tokio::test]
async fn a_node_that_answers_and_is_of_no_use_is_left() {
    let anvil = Anvil::start(None).await;
    anvil.mine(60).await;
    for (manner, start, first_block) in [
        ("pruned", "start = 5", 5),
        ("headless", "start = 5", 5),
        ("syncing", "start = \"latest\"", 60),
    ] {
        let (useless, sound) = (NodeProxy::to(anvil.url()).await, NodeProxy::to(anvil.url()).await);
        useless.on_question(move |question| match manner {
            "pruned" if !asks_for_head(question) => Reply::Result(Value::Null),
            "headless" => Reply::Result(Value::Null),
            "syncing" if question["method"] == "eth_syncing" => Reply::Result(json!({})),
            _ => Reply::Node,
        });
        let deployment = deploy(&[of_two(&useless, &sound, start)]).await;
        let published = published_up_to(&deployment, "demo", 60).await;
        assert_eq!(numbers(&published).first(), Some(&first_block), "{manner}");
        deployment.ready().await;
    }
}

#[tokio::test]
async fn a_node_without_its_old_blocks_is_named() {
    let anvil = Anvil::start(None).await;
    anvil.mine(10).await;
    let node = NodeProxy::to(anvil.url()).await;
    node.on_question(|question| match asks_for_head(question) {
        true => Reply::Node,
        false => Reply::Result(Value::Null),
    });
    let deployment = deploy(&[]).await;
    deployment.apply(&ethereum("demo", &node.url, "start = 5")).await;
    not_ready(
        &deployment,
        "has no block 5, although its newest block is not below",
    )
    .await;
}

#[tokio::test]
async fn a_chain_that_differs_at_one_node_stops_nothing_while_another_one_has_the_ingested_chain() {
    let (anvil, other) = (Anvil::start(None).await, Anvil::start(None).await);
    anvil.mine(40).await;
    let (first, second) = (NodeProxy::to(anvil.url()).await, NodeProxy::to(anvil.url()).await);
    let deployment = deploy(&[of_two(&first, &second, "start = 1\ndepth = 8")]).await;
    published_up_to(&deployment, "demo", 40).await;
    let coinbase = json!([format!("0x{}", "11".repeat(20))]);
    other.rpc("anvil_setCoinbase", coinbase).await;
    other.mine(50).await;
    first.point_to(other.url());
    anvil.mine(5).await;
    let published = published_up_to(&deployment, "demo", 45).await;
    assert_eq!(outcome(&published).1, []);
    deployment.ready().await;
}

#[tokio::test]
async fn a_node_that_fails_while_chains_are_compared_makes_nobody_name_a_block() {
    let anvil = Anvil::start(None).await;
    anvil.mine(40).await;
    let node = NodeProxy::to(anvil.url()).await;
    let deployment = deploy(&[ethereum("demo", &node.url, "start = 1\ndepth = 4")]).await;
    published_up_to(&deployment, "demo", 40).await;
    let fails = Arc::new(AtomicU64::new(1));
    let count = fails.clone();
    node.on_question(move |question| match asks_for(question, 12) {
        true if count.load(Ordering::Relaxed) > 0 => Reply::Status(503),
        _ => Reply::Node,
    });
    anvil.reorg(30).await;
    not_ready(&deployment, "from which block it differs cannot be told yet").await;
    fails.store(0, Ordering::Relaxed);
    not_ready(&deployment, "`push0 pipeline reset demo --from 11` accepts it").await;
    assert_eq!(logged(&deployment, "--from 1`"), 0);
}

#[tokio::test]
async fn a_gateway_that_refuses_to_say_whether_it_syncs_is_a_place_to_begin() {
    let anvil = Anvil::start(Some(Duration::from_secs(1))).await;
    let node = NodeProxy::to(anvil.url()).await;
    node.on_question(|question| match question["method"] == "eth_syncing" {
        true => Reply::Status(405),
        false => Reply::Node,
    });
    let deployment = deploy(&[ethereum("demo", &node.url, "start = \"latest\"")]).await;
    published_up_to(&deployment, "demo", 1).await;
}
