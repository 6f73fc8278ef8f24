//! Tests against a real node: anvil.

use crate::observed::{PATIENCE, deploy, ethereum, events, id, not_ready, numbers, outcome, published_up_to};
use push0_bus::Bucket;
use push0_domain::{
    BlockHash, Payload,
    message::{BlockEvent, KnownBlock},
    subject,
};
use push0_harness::{Anvil, Process, wait_for};
use serde_json::{Value, json};
use std::time::Duration;

/// Accounts that anvil unlocks.
const FROM: &str = "0xf39fd6e51aad88f6f4ce6ab8827279cfffb92266";
const TO: &str = "0x70997970c51812dc3a010c7d01b50e0d17dc79c8";

async fn transfer(anvil: &Anvil) {
    let transaction = json!([{ "from": FROM, "to": TO, "value": "0x1" }]);
    anvil.rpc("eth_sendTransaction", transaction).await;
}

async fn block(anvil: &Anvil, number: u64) -> Value {
    anvil
        .rpc("eth_getBlockByNumber", json!([format!("{number:#x}"), true]))
        .await
}

fn hash_of(block: &Value) -> BlockHash {
    block["hash"].as_str().expect("a hash").parse().expect("32 bytes")
}

#[tokio::test]
async fn a_chain_that_grows_is_followed_with_its_transactions() {
    let anvil = Anvil::start(Some(Duration::from_secs(1))).await;
    let more = "start = 1\nwitness = \"block\"";
    let headers = "start = 1\nwitness = \"header\"";
    let deployment = deploy(&[
        ethereum("whole", anvil.url(), more),
        ethereum("head", anvil.url(), headers),
    ])
    .await;
    for _ in 0..3 {
        transfer(&anvil).await;
    }
    wait_for("a transfer in a block", PATIENCE, async || {
        let mined = block(&anvil, anvil.head().await).await;
        !mined["transactions"].as_array().expect("a list").is_empty()
    })
    .await;
    let head = anvil.head().await + 2;
    let published = published_up_to(&deployment, "whole", head).await;
    let (wanted, cancels) = outcome(&published);
    assert!(cancels.is_empty());
    assert_eq!(numbers(&published)[..3], [1, 2, 3]);
    let known = deployment
        .bus()
        .facts::<KnownBlock>(Bucket::Blocks)
        .await
        .expect("a bucket");
    let mut transactions = 0;
    for observed in &wanted {
        let mined = block(&anvil, observed.block.number).await;
        assert_eq!(observed.block.hash, hash_of(&mined));
        assert!(observed.observed_at.0 > 0 && observed.deadline_at.is_none());
        assert_eq!(observed.revision, 1);
        let Payload::Inline(witness) = &observed.input else {
            panic!("it is small")
        };
        let witness: Value = serde_json::from_slice(witness).expect("the node's JSON");
        assert_eq!(witness, mined);
        transactions += observed.facts.transactions;
        let key = subject::facts::known_block(&id("whole"), &observed.block);
        let fact = known
            .get(&key)
            .await
            .expect("an answer")
            .and_then(|fact| fact.value)
            .expect("known");
        assert_eq!(
            (fact.block, fact.parent_hash),
            (observed.block, observed.parent_hash)
        );
        assert_eq!(fact.facts, observed.facts);
    }
    assert_eq!(transactions, 3);
    let (headers, _) = outcome(&published_up_to(&deployment, "head", 3).await);
    assert!(
        headers
            .iter()
            .all(|h| matches!(&h.input, Payload::Inline(rlp) if rlp[0] == 0xf9))
    );
}

#[tokio::test]
async fn a_reorg_cancels_what_it_replaces() {
    let anvil = Anvil::start(None).await;
    anvil.mine(10).await;
    let deployment = deploy(&[ethereum("demo", anvil.url(), "start = 2\nwitness = \"number\"")]).await;
    let before = published_up_to(&deployment, "demo", 10).await;
    assert_eq!(numbers(&before), (2..=10).collect::<Vec<_>>());
    anvil.reorg(4).await;
    anvil.mine(2).await;
    let canonical = hash_of(&block(&anvil, 12).await);
    let after = wait_for("the new chain", PATIENCE, async || {
        let events = events(&deployment, "demo").await;
        let tip = outcome(&events).0.last().map(|tip| tip.block.hash);
        if tip == Some(canonical) {
            Ok(events)
        } else {
            Err(tip)
        }
    })
    .await;
    let (wanted, cancels) = outcome(&after);
    assert_eq!(numbers(&after), (2..=12).collect::<Vec<_>>());
    for observed in wanted {
        assert_eq!(
            observed.block.hash,
            hash_of(&block(&anvil, observed.block.number).await)
        );
        assert_eq!(
            observed.input,
            Payload::Inline(observed.block.number.to_string().into_bytes())
        );
    }
    let old: Vec<BlockHash> = outcome(&before).0[5..]
        .iter()
        .map(|block| block.block.hash)
        .collect();
    let gone: Vec<BlockHash> = cancels.iter().flat_map(|cancel| cancel.hashes.clone()).collect();
    assert_eq!(gone, old, "blocks 7 to 10 were replaced");
}

#[tokio::test]
async fn a_reorg_while_nobody_looks_is_found_at_the_next_start() {
    let anvil = Anvil::start(None).await;
    anvil.mine(8).await;
    let mut deployment = deploy(&[ethereum("demo", anvil.url(), "start = 1")]).await;
    published_up_to(&deployment, "demo", 8).await;
    deployment.service("ingester").kill();
    anvil.reorg(3).await;
    anvil.mine(1).await;
    deployment.service_mut("ingester").restart();
    let after = published_up_to(&deployment, "demo", 9).await;
    let (wanted, cancels) = outcome(&after);
    assert_eq!(numbers(&after), (1..=9).collect::<Vec<_>>());
    assert_eq!(
        cancels.iter().map(|c| (c.first, c.last)).collect::<Vec<_>>(),
        [(6, 8)]
    );
    assert_eq!(wanted[8].block.hash, hash_of(&block(&anvil, 9).await));
}

#[tokio::test]
async fn a_kill_in_the_middle_leaves_no_gap() {
    let anvil = Anvil::start(None).await;
    anvil.mine(600).await;
    let mut deployment = deploy(&[ethereum("demo", anvil.url(), "start = 1")]).await;
    for stop in [1, 200, 400] {
        published_up_to(&deployment, "demo", stop).await;
        deployment.service_mut("ingester").restart();
    }
    let published = published_up_to(&deployment, "demo", 600).await;
    assert_eq!(numbers(&published), (1..=600).collect::<Vec<_>>());
    // Each kill repeats at most one window of blocks, under the same message ids.
    assert!(published.len() <= 600 + 3 * 32, "{} messages", published.len());
    assert!(
        published
            .iter()
            .all(|event| matches!(event, BlockEvent::Observed(_)))
    );
}

#[tokio::test]
async fn a_node_that_is_away_is_waited_for() {
    let anvil = Anvil::start(None).await;
    anvil.mine(3).await;
    let deployment = deploy(&[ethereum("demo", anvil.url(), "start = 1")]).await;
    published_up_to(&deployment, "demo", 3).await;
    anvil.pause();
    not_ready(&deployment, "no answer within 5s").await;
    anvil.resume();
    anvil.mine(2).await;
    let published = published_up_to(&deployment, "demo", 5).await;
    assert_eq!(numbers(&published), [1, 2, 3, 4, 5]);
    deployment.ready().await;
    let log = deployment.service("ingester").log();
    let said = log.matches("no answer within 5s").count();
    assert_eq!(said, 1, "a change of state is one line:\n{log}");
}

#[tokio::test]
async fn blocks_wait_for_their_confirmations() {
    let anvil = Anvil::start(None).await;
    anvil.mine(5).await;
    let deployment = deploy(&[ethereum("demo", anvil.url(), "start = 1\nconfirmations = 2")]).await;
    let published = published_up_to(&deployment, "demo", 3).await;
    assert_eq!(numbers(&published), [1, 2, 3]);
    anvil.mine(1).await;
    assert_eq!(
        numbers(&published_up_to(&deployment, "demo", 4).await),
        [1, 2, 3, 4]
    );
}

#[tokio::test]
async fn a_second_ingester_takes_over() {
    let anvil = Anvil::start(None).await;
    anvil.mine(2).await;
    let mut deployment = deploy(&[ethereum("demo", anvil.url(), "start = 1")]).await;
    published_up_to(&deployment, "demo", 2).await;
    deployment.start_service(Process::program("ingester").label("standby"));
    deployment.ready().await;
    deployment.service("ingester").kill();
    anvil.mine(3).await;
    let published = published_up_to(&deployment, "demo", 5).await;
    assert_eq!(numbers(&published), [1, 2, 3, 4, 5]);
    assert!(deployment.service("standby").log().contains("leading"));
}

#[tokio::test]
async fn a_broker_that_restarts_loses_nothing() {
    let anvil = Anvil::start(Some(Duration::from_secs(1))).await;
    let mut deployment = deploy(&[ethereum("demo", anvil.url(), "start = 1")]).await;
    published_up_to(&deployment, "demo", 1).await;
    deployment.nats.restart().await;
    let head = anvil.head().await + 3;
    let published = published_up_to(&deployment, "demo", head).await;
    assert_eq!(numbers(&published)[..3], [1, 2, 3]);
    deployment.ready().await;
}

#[tokio::test]
async fn pipelines_come_change_and_go_while_it_runs() {
    let anvil = Anvil::start(None).await;
    anvil.mine(2).await;
    let deployment = deploy(&[]).await;
    deployment
        .apply(&ethereum("demo", anvil.url(), "start = 1\nwitness = \"number\""))
        .await;
    published_up_to(&deployment, "demo", 2).await;
    let changed = ethereum("demo", anvil.url(), "start = 1\nwitness = \"number\"");
    let changed = changed.replace("[source]", "policy = \"deadline\"\ndeadline = \"10s\"\n[source]");
    deployment.apply(&changed).await;
    wait_for("the new definition", PATIENCE, async || {
        deployment.service("ingester").log().contains("new definition")
    })
    .await;
    anvil.mine(1).await;
    let (wanted, _) = outcome(&published_up_to(&deployment, "demo", 3).await);
    assert_eq!(
        wanted.iter().map(|block| block.revision).collect::<Vec<_>>(),
        [1, 1, 2]
    );
    let within = wanted[2]
        .deadline_at
        .expect("a deadline")
        .since(wanted[2].observed_at);
    assert_eq!(within, Duration::from_secs(10));
    deployment.pipelines().remove(&id("demo")).await.expect("removed");
    wait_for("the end of the lead", PATIENCE, async || {
        deployment.service("ingester").log().contains("resigned")
    })
    .await;
    anvil.mine(1).await;
    deployment
        .apply(&ethereum("other", anvil.url(), "start = 4"))
        .await;
    published_up_to(&deployment, "other", 4).await;
    assert_eq!(numbers(&events(&deployment, "demo").await), [1, 2, 3]);
}
