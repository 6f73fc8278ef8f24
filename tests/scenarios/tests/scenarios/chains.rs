//! Chains that are restarted, or reorganised deeper than a pipeline follows by itself.

use push0_bus::Kept;
use push0_domain::{
    BlockHash,
    message::{Emission, EmissionOutcome},
};
use push0_harness::{Anvil, Process, wait_for};
use push0_scenarios::{PATIENCE, demo, deploy, prover, push0, settled, single, verifier};
use serde_json::json;
use std::collections::BTreeMap;

fn pipeline(url: &str, depth: u32) -> String {
    let source = format!(
        "{{ kind = \"ethereum\", rpc_url = \"{url}\", start = 1, poll = \"50ms\", depth = {depth} }}"
    );
    single("timeout = \"20s\"").replace("{ kind = \"external\" }", &source)
}

/// Returns the blocks of a consumer that follows docs/consuming-proofs.md. Panics if the records leave a gap or do not
/// link, or a block has no proof.
fn consumed(records: &[Kept<Emission>]) -> BTreeMap<u64, BlockHash> {
    let mut chain: BTreeMap<u64, BlockHash> = BTreeMap::new();
    for kept in records {
        let record = kept.body.as_ref().expect("a readable record");
        assert!(matches!(record.outcome, EmissionOutcome::Proved(_)), "{record:?}");
        chain.split_off(&record.first.number);
        if let Some((before, hash)) = chain.last_key_value() {
            assert_eq!((before + 1, *hash), (record.first.number, record.parent_hash));
        }
        chain.insert(record.first.number, record.first.hash);
    }
    chain
}

async fn canonical(anvil: &Anvil) -> BTreeMap<u64, BlockHash> {
    let mut chain = BTreeMap::new();
    for number in 1..=anvil.head().await {
        let block = anvil
            .rpc("eth_getBlockByNumber", json!([format!("{number:#x}"), false]))
            .await;
        let hash = serde_json::from_value(block["hash"].clone()).expect("a hash");
        chain.insert(number, hash);
    }
    chain
}

#[tokio::test]
async fn a_restarted_chain_is_proved_once_an_operator_accepts_it() {
    let anvil = Anvil::start(None).await;
    anvil.mine(90).await;
    let adapters = [
        Process::program("ingester"),
        prover("p1"),
        prover("p2"),
        verifier("v1"),
    ];
    let deployment = deploy(&pipeline(anvil.url(), 16), adapters).await;
    deployment.wait_emitted(&demo(), 90, PATIENCE).await;

    let restarted = Anvil::start(None).await;
    let coinbase = json!([format!("0x{}", "11".repeat(20))]);
    restarted.rpc("anvil_setCoinbase", coinbase).await;
    restarted.mine(30).await;
    deployment.apply(&pipeline(restarted.url(), 16)).await;
    let command = wait_for("a message that names the way out", PATIENCE, async || {
        deployment.instances("ingester").find_map(|ingester| {
            let log = ingester.log();
            // A quote is escaped in the JSON of a log line, a backtick is not.
            let end = log.split_once("`push0 pipeline reset demo --from ")?.1;
            Some(end.split_once('`')?.0.to_owned())
        })
    });
    assert_eq!(command.await, "1");
    let said = push0(&deployment, &["pipeline", "reset", "demo", "--from", "1"]).await;
    assert!(said.contains("blocks 1..90 are replaced"), "{said}");
    restarted.mine(70).await;
    let wanted = canonical(&restarted).await;
    wait_for("the records of the restarted chain", PATIENCE, async || {
        let records = deployment.emissions(&demo()).await;
        let held = consumed(&records);
        if held == wanted {
            Ok(())
        } else {
            Err((records.len(), held.last_key_value().map(|(last, _)| *last)))
        }
    })
    .await;
    settled(deployment.bus()).await;

    // A removed pipeline goes on where it stopped, and says so.
    let said = push0(&deployment, &["pipeline", "remove", "demo"]).await;
    assert!(said.contains("goes on at block 101"), "{said}");
    let folder = tempfile::tempdir().expect("a directory");
    let file = folder.path().join("demo.toml");
    std::fs::write(&file, pipeline(restarted.url(), 16)).expect("written");
    let file = file.display().to_string();
    let said = push0(&deployment, &["pipeline", "apply", &file]).await;
    assert!(
        said.contains("demo: goes on at block 101, where its ingestion stopped"),
        "{said}"
    );
    let said = push0(&deployment, &["pipeline", "apply", &file]).await;
    assert!(
        !said.contains("goes on"),
        "an unchanged source needs no word: {said}"
    );
    deployment.assert_nothing_refused();
}

#[tokio::test]
async fn a_reorg_deeper_than_the_output_remembers_is_followed_within_the_depth_of_the_source() {
    let anvil = Anvil::start(None).await;
    anvil.mine(100).await;
    let adapters = [
        Process::program("ingester"),
        prover("p1"),
        prover("p2"),
        verifier("v1"),
    ];
    let deployment = deploy(&pipeline(anvil.url(), 99), adapters).await;
    deployment.wait_emitted(&demo(), 100, PATIENCE).await;
    anvil.reorg(85).await;
    anvil.mine(1).await;
    let wanted = canonical(&anvil).await;
    wait_for("the records of the new branch", PATIENCE, async || {
        let records = deployment.emissions(&demo()).await;
        let held = consumed(&records);
        // Exactly the replaced blocks were proved again.
        let is_all = held == wanted && records.len() == 100 + 86;
        if is_all {
            Ok(())
        } else {
            Err((records.len(), held.last_key_value().map(|(last, _)| *last)))
        }
    })
    .await;
    settled(deployment.bus()).await;
}
