//! Chains and nodes: slow, behind, restarted, of another kind, or in contradiction with themselves.

use crate::observed::{
    PATIENCE, deploy, ethereum, events,
    node_proxy::{NodeProxy, Reply, asks_for, asks_for_head},
    not_ready, numbers, outcome, published_up_to, reset,
};
use push0_domain::{BlockHash, Payload, message::Cancel};
use push0_harness::{Anvil, Deployment, wait_for};
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

fn spans(cancels: &[Cancel]) -> Vec<(u64, u64)> {
    cancels.iter().map(|cancel| (cancel.first, cancel.last)).collect()
}

pub(crate) fn logged(deployment: &Deployment, text: &str) -> usize {
    deployment.service("ingester").log().matches(text).count()
}

/// A switch that a test and the rule of a proxy share.
fn switch() -> (Arc<AtomicBool>, Arc<AtomicBool>) {
    let switch = Arc::new(AtomicBool::new(true));
    (switch.clone(), switch)
}

#[tokio::test]
async fn a_pipeline_begins_nowhere_while_its_node_syncs() {
    let anvil = Anvil::start(None).await;
    anvil.mine(50).await;
    let node = NodeProxy::to(anvil.url()).await;
    let (says_so, says) = switch();
    let (shows_genesis, shows) = switch();
    node.on_question(move |question| match question["method"].as_str() {
        Some("eth_syncing") if says.load(Ordering::Relaxed) => {
            Reply::Result(json!({ "currentBlock": "0x0", "highestBlock": "0x32" }))
        }
        _ => {
            if asks_for_head(question) && shows.load(Ordering::Relaxed) {
                question["params"][0] = json!("0x0");
            }
            Reply::Node
        }
    });
    let deployment = deploy(&[]).await;
    deployment
        .apply(&ethereum("demo", &node.url, "start = \"latest\""))
        .await;
    not_ready(&deployment, "the node still syncs and is at block 0").await;
    // A node that has no peers yet denies its syncing.
    says_so.store(false, Ordering::Relaxed);
    let seen = Arc::new(AtomicU64::new(0));
    wait_for("ten more looks", PATIENCE, async || {
        let head = deployment.service("ingester").metrics().await;
        let head = head.contains("push0_ingester_head_block{pipeline=\"demo\"} 0");
        head && seen.fetch_add(1, Ordering::Relaxed) >= 10
    })
    .await;
    assert_eq!(events(&deployment, "demo").await, []);
    shows_genesis.store(false, Ordering::Relaxed);
    let published = published_up_to(&deployment, "demo", 50).await;
    assert_eq!(numbers(&published), [50]);
    deployment.ready().await;
}

#[tokio::test]
async fn a_chain_at_rest_begins_at_its_last_block() {
    let anvil = Anvil::start(None).await;
    let at_genesis = ethereum("genesis", anvil.url(), "stale_after = \"1s\"");
    let other = Anvil::start(None).await;
    other.mine(3).await;
    let old = NodeProxy::to(other.url()).await;
    old.on_result(|result| {
        if result.is_object() {
            result["timestamp"] = json!("0x1");
        }
    });
    let old = ethereum("old", &old.url, "stale_after = \"1s\"\nhash = \"node\"");
    let deployment = deploy(&[at_genesis, old]).await;
    assert_eq!(numbers(&published_up_to(&deployment, "genesis", 0).await), [0]);
    assert_eq!(numbers(&published_up_to(&deployment, "old", 3).await), [3]);
    deployment.ready().await;
}

#[tokio::test]
async fn a_reorg_seen_through_nodes_that_lag_cancels_only_what_was_replaced() {
    let anvil = Anvil::start(None).await;
    anvil.mine(100).await;
    let node = NodeProxy::to(anvil.url()).await;
    let deployment = deploy(&[ethereum("demo", &node.url, "start = 1")]).await;
    published_up_to(&deployment, "demo", 100).await;
    deployment.ready().await;
    // The node that answers first lacks block 99, the next one lags, and then all are the same again.
    let looks = AtomicU64::new(0);
    node.on_question(|_| Reply::Status(503));
    anvil.reorg(1).await;
    node.on_question(move |question| {
        if asks_for_head(question) {
            match looks.fetch_add(1, Ordering::Relaxed) {
                1 => question["params"][0] = json!("0x5a"),
                3 => question["params"][0] = json!("0x50"),
                _ => {}
            }
        }
        if asks_for(question, 99) && looks.load(Ordering::Relaxed) < 2 {
            return Reply::Result(Value::Null);
        }
        Reply::Node
    });
    anvil.mine(1).await;
    let published = published_up_to(&deployment, "demo", 101).await;
    let (_, cancels) = outcome(&published);
    assert_eq!(spans(&cancels), [(100, 100)]);
    assert_eq!(numbers(&published), (1..=101).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_node_that_needs_longer_than_the_limit_is_waited_for_longer() {
    let anvil = Anvil::start(None).await;
    anvil.mine(3).await;
    let node = NodeProxy::to(anvil.url()).await;
    node.on_question(|_| Reply::Late(Duration::from_millis(300)));
    let all = ethereum("all", &node.url, "start = 1\ntimeout = \"100ms\"");
    let slow = NodeProxy::to(anvil.url()).await;
    slow.on_question(|question| match question["params"][1].as_bool() {
        Some(true) => Reply::Late(Duration::from_millis(300)),
        _ => Reply::Node,
    });
    let full = ethereum(
        "full",
        &slow.url,
        "start = 1\nwitness = \"block\"\ntimeout = \"100ms\"",
    );
    let deployment = deploy(&[all, full]).await;
    for name in ["all", "full"] {
        assert_eq!(numbers(&published_up_to(&deployment, name, 3).await), [1, 2, 3]);
    }
    let said = "no answer within 100ms: the limit begins with source.timeout and grows after timeouts";
    assert!(logged(&deployment, said) >= 2);
}

#[tokio::test]
async fn a_limit_that_an_answer_breaks_is_named_and_can_be_raised() {
    let anvil = Anvil::start(None).await;
    anvil.mine(2).await;
    let node = NodeProxy::to(anvil.url()).await;
    node.on_result(|result| {
        if result["transactions"].is_array() {
            result["extra"] = json!("x".repeat(2 * 1024 * 1024));
        }
    });
    let more = "start = 1\nwitness = \"block\"\nanswer_max_mib = ";
    let deployment = deploy(&[]).await;
    deployment
        .apply(&ethereum("demo", &node.url, &format!("{more}1")))
        .await;
    not_ready(
        &deployment,
        "an answer of more than 1 MiB, the limit source.answer_max_mib",
    )
    .await;
    deployment
        .apply(&ethereum("demo", &node.url, &format!("{more}40")))
        .await;
    assert_eq!(numbers(&published_up_to(&deployment, "demo", 2).await), [1, 2]);
    node.on_question(|_| Reply::Status(308));
    not_ready(
        &deployment,
        "answered with HTTP status 308: redirects are not followed",
    )
    .await;
}

#[tokio::test]
async fn a_leader_keeps_its_lead_over_one_failed_request_while_it_fetches() {
    let anvil = Anvil::start(None).await;
    anvil.mine(1).await;
    let node = NodeProxy::to(anvil.url()).await;
    let heads = AtomicU64::new(0);
    let (fetches, fetching) = switch();
    fetches.store(false, Ordering::Relaxed);
    let (failed, fails) = switch();
    node.on_question(move |question| {
        if question["params"][1] == json!(true) {
            fetching.store(true, Ordering::Relaxed);
            return Reply::Late(Duration::from_secs(4));
        }
        let is_during = fetching.load(Ordering::Relaxed) && asks_for_head(question);
        if is_during && heads.fetch_add(1, Ordering::Relaxed) == 0 {
            fails.store(false, Ordering::Relaxed);
            return Reply::Status(502);
        }
        Reply::Node
    });
    let deployment = deploy(&[ethereum("demo", &node.url, "start = 1\nwitness = \"block\"")]).await;
    published_up_to(&deployment, "demo", 1).await;
    assert!(!failed.load(Ordering::Relaxed), "a request failed meanwhile");
    assert_eq!(
        (logged(&deployment, "resigned"), logged(&deployment, "leading")),
        (0, 1)
    );
}

#[tokio::test]
async fn a_restarted_chain_stops_its_pipeline_until_an_operator_accepts_it() {
    let anvil = Anvil::start(None).await;
    anvil.mine(70).await;
    let node = NodeProxy::to(anvil.url()).await;
    let mut deployment = deploy(&[ethereum("demo", &node.url, "start = 1\ndepth = 16")]).await;
    published_up_to(&deployment, "demo", 70).await;
    let restarted = Anvil::start(None).await;
    restarted
        .rpc("anvil_setCoinbase", json!([format!("0x{}", "11".repeat(20))]))
        .await;
    restarted.mine(20).await;
    node.point_to(restarted.url());
    not_ready(&deployment, "`push0 pipeline reset demo --from 1` accepts it").await;
    // The way out is the same once the new chain has blocks of all numbers.
    restarted.mine(55).await;
    not_ready(&deployment, "`push0 pipeline reset demo --from 1` accepts it").await;
    assert_eq!(spans(&outcome(&events(&deployment, "demo").await).1), []);
    assert_eq!(reset(&deployment, 1).await, None);
    let published = published_up_to(&deployment, "demo", 75).await;
    let (wanted, cancels) = outcome(&published);
    assert_eq!(spans(&cancels), [(1, 70)]);
    assert_eq!(numbers(&published), (1..=75).collect::<Vec<_>>());
    let hash = restarted.rpc("eth_getBlockByNumber", json!(["0x1", false])).await["hash"].clone();
    assert_eq!(json!(wanted[0].block.hash), hash);
    deployment.ready().await;
    // A wish is carried out once.
    deployment.service_mut("ingester").restart();
    restarted.mine(1).await;
    assert_eq!(
        spans(&outcome(&published_up_to(&deployment, "demo", 76).await).1),
        [(1, 70)]
    );
}

#[tokio::test]
async fn a_deep_reorg_stops_its_pipeline_and_names_the_first_block_that_differs() {
    let anvil = Anvil::start(None).await;
    anvil.mine(60).await;
    let deployment = deploy(&[ethereum("demo", anvil.url(), "start = 1\ndepth = 8")]).await;
    published_up_to(&deployment, "demo", 60).await;
    anvil.reorg(30).await;
    let said = "the node's chain replaces the ingested blocks 31 to 60, and source.depth = 8 permits fewer: \
                `push0 pipeline reset demo --from 31` accepts it";
    not_ready(&deployment, said).await;
    let refused = reset(&deployment, 35).await.expect("a refusal");
    assert!(
        refused.contains("block 35 does not follow the ingested block 34"),
        "{refused}"
    );
    let refused = reset(&deployment, 5000).await.expect("a refusal");
    assert!(
        refused.contains("block 5000 leaves a gap: expected at most 61"),
        "{refused}"
    );
    anvil.mine(3).await;
    assert_eq!(reset(&deployment, 31).await, None);
    let published = published_up_to(&deployment, "demo", 63).await;
    assert_eq!(spans(&outcome(&published).1), [(31, 60)]);
    assert_eq!(numbers(&published), (1..=63).collect::<Vec<_>>());
    deployment.ready().await;
}

#[tokio::test]
async fn a_reorg_within_a_greater_depth_is_followed() {
    let anvil = Anvil::start(None).await;
    anvil.mine(120).await;
    let deployment = deploy(&[ethereum("demo", anvil.url(), "start = 1\ndepth = 110")]).await;
    published_up_to(&deployment, "demo", 120).await;
    anvil.reorg(100).await;
    anvil.mine(1).await;
    let (_, cancels) = outcome(&published_up_to(&deployment, "demo", 121).await);
    assert_eq!(spans(&cancels), [(21, 120)]);
}

/// Returns a hash with all bits turned.
fn turned(hash: &Value) -> Value {
    let digits = hash.as_str().expect("a hash").trim_start_matches("0x");
    let turn = |digit: char| format!("{:x}", 15 - digit.to_digit(16).expect("a digit"));
    json!(format!("0x{}", digits.chars().map(turn).collect::<String>()))
}

#[tokio::test]
async fn a_chain_with_hashes_of_its_own_is_followed_by_its_nodes_word() {
    let anvil = Anvil::start(None).await;
    anvil.mine(5).await;
    let node = NodeProxy::to(anvil.url()).await;
    node.on_result(|block| {
        if block["hash"].is_string() {
            block["hash"] = turned(&block["hash"]);
            block["parentHash"] = turned(&block["parentHash"]);
            block["baseFeePerGas"] = Value::Null;
            block["l1BlockNumber"] = json!("0x7");
            for gone in ["mixHash", "nonce"] {
                block.as_object_mut().expect("a block").remove(gone);
            }
        }
    });
    let deployment = deploy(&[]).await;
    deployment.apply(&ethereum("demo", &node.url, "start = 1")).await;
    not_ready(&deployment, "not a block").await;
    deployment
        .apply(&ethereum("demo", &node.url, "start = 1\nhash = \"node\""))
        .await;
    let published = published_up_to(&deployment, "demo", 5).await;
    let (wanted, _) = outcome(&published);
    let block = anvil.rpc("eth_getBlockByNumber", json!(["0x5", false])).await;
    assert_eq!(json!(wanted[4].block.hash), turned(&block["hash"]));
    let Payload::Inline(witness) = &wanted[4].input else {
        panic!("a small block")
    };
    let witness: Value = serde_json::from_slice(witness).expect("the block as the node gave it");
    assert_eq!(witness["l1BlockNumber"], json!("0x7"));
    anvil.reorg(2).await;
    anvil.mine(1).await;
    let (wanted, cancels) = outcome(&published_up_to(&deployment, "demo", 6).await);
    assert_eq!((spans(&cancels), wanted.len()), (vec![(4, 5)], 6));
    assert_ne!(wanted[0].block.hash, BlockHash::default());
}
