//! The only broker loses its volume and is provisioned again, while all services keep running.

use push0_bus::{Bucket, Limits, now};
use push0_domain::{
    Announcement,
    message::{BlockFacts, KnownBlock},
    subject,
};
use push0_harness::{Deployment, assert_complete_in_order, synthetic_block, synthetic_hash};
use push0_scenarios::{PATIENCE, demo, deploy, prover, single, verifier};
use serde_json::json;

/// Stores the first block of the pipeline in the ingester's cursor, as the ingester does before
/// its first publish.
async fn begin(deployment: &Deployment, first: u64) {
    let cursors = deployment.bus().facts(Bucket::State).await.expect("a bucket");
    let cursor = json!({ "first": first, "block": null });
    let stored = cursors.put(&format!("cursor.ingester.{}", demo()), &cursor).await;
    stored.expect("the cursor is stored");
}

/// Covers an ingester deposed between its writing the facts of a block and its publishing the block. The
/// successor begins with the blocks then on the chain, and so does the output.
#[tokio::test]
async fn nobody_waits_for_a_block_that_was_written_down_and_never_published() {
    let toml = single("timeout = \"10s\"").replace("\"external\"", "\"http\"");
    let mut deployment = deploy(&toml, [prover("p1"), verifier("v1")]).await;
    begin(&deployment, 1).await;
    deployment.submit_blocks(&demo(), 1..=5).await;
    let before = deployment.wait_emitted(&demo(), 5, PATIENCE).await;
    assert_complete_in_order(&before, 1..=5);

    deployment.nats.lose_store();
    deployment.nats.restart().await;
    deployment.bus().connected().await;
    let limits = Limits {
        store_bytes: 1 << 30,
        ..Limits::default()
    };
    deployment
        .bus()
        .provision(&limits)
        .await
        .expect("the streams are there again");
    deployment.apply(&toml).await;
    let block = synthetic_block(&demo(), 6);
    let known = deployment.bus().facts(Bucket::Blocks).await.expect("a bucket");
    let fact = KnownBlock {
        block,
        parent_hash: synthetic_hash(&demo(), 5),
        revision: 1,
        observed_at: now(),
        announced_after: Announcement::default(),
        input: None,
        facts: BlockFacts::default(),
    };
    let stored = known
        .put(&subject::facts::known_block(&demo(), &block), &fact)
        .await;
    stored.expect("the fact is stored");

    begin(&deployment, 9).await;
    deployment.submit_blocks(&demo(), 9..=12).await;
    let after = deployment.wait_emitted(&demo(), 4, PATIENCE).await;
    assert_complete_in_order(&after, 9..=12);
}
