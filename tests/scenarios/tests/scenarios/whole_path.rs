//! Blocks from a chain to verified proofs in order, through every kind of workflow.

use push0_domain::{PipelineId, ProverId, message::EmissionOutcome};
use push0_harness::{Anvil, Deployment, Process, ProcessBuilder, assert_complete_in_order};
use push0_scenarios::{PATIENCE, attempts, demo, deploy, proofs, prover, settled, single, verifier};
use serde_json::{Value, json};

/// The pipeline run by `make demo`.
const MIDEN: &str = include_str!("../../../../deploy/pipelines/demo.toml");

async fn transfer(anvil: &Anvil, count: usize) {
    let accounts = anvil.rpc("eth_accounts", json!([])).await;
    for _ in 0..count {
        let transfer = json!([{ "from": accounts[0], "to": accounts[1], "value": "0x1" }]);
        anvil.rpc("eth_sendTransaction", transfer).await;
    }
}

async fn block_of(anvil: &Anvil, number: u64) -> Value {
    let params = json!([format!("{number:#x}"), false]);
    anvil.rpc("eth_getBlockByNumber", params).await
}

/// Checks that the records match the chain: same blocks, with their transactions.
async fn assert_is_the_chain(deployment: &Deployment, anvil: &Anvil, pipeline: &PipelineId, last: u64) {
    let count = usize::try_from(last).expect("a small number");
    let emissions = deployment.wait_emitted(pipeline, count, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=last);
    for kept in &emissions {
        let emission = kept.body.as_ref().expect("a readable record");
        let block = block_of(anvil, emission.first.number).await;
        assert_eq!(block["hash"], emission.first.hash.to_string());
        assert_eq!(block["parentHash"], emission.parent_hash.to_string());
        let transactions = block["transactions"].as_array().expect("a list").len();
        assert_eq!(emission.facts.transactions as usize, transactions);
        let [proof] = proofs(kept) else {
            unreachable!("one proof is wanted: {emission:?}")
        };
        let verifier = proof.verifier.as_ref().expect("it was verified");
        assert_ne!(*verifier, proof.prover, "a prover verified its own proof");
        assert!(proof.bytes > 0);
    }
    settled(deployment.bus()).await;
}

#[tokio::test]
async fn the_blocks_of_a_chain_are_proved_verified_and_emitted_in_order() {
    let anvil = Anvil::start(None).await;
    let chain = format!(
        r#"
        name = "chain"
        source = {{ kind = "ethereum", rpc_url = "{}", start = 1, poll = "50ms", witness = "header" }}
        [[proof]]
        type = "main"
        zkvm = "mock"
        [[proof.stage]]
        name = "prove"
        kind = "map"
        timeout = "10s"
        "#,
        anvil.url()
    );
    let deployment = deploy(&chain, [prover("p1"), prover("p2"), verifier("v1")]).await;
    for transactions in [3, 0, 1, 2] {
        transfer(&anvil, transactions).await;
        anvil.mine(3).await;
    }
    let pipeline = "chain".parse().expect("a name");
    assert_is_the_chain(&deployment, &anvil, &pipeline, 12).await;
}

#[tokio::test]
async fn the_shipped_demo_emits_starks_of_a_chain() {
    let anvil = Anvil::start(None).await;
    let chain = MIDEN
        .replace("http://127.0.0.1:8545", anvil.url())
        .replace("start = \"latest\"", "start = 1");
    let miden = |name: &str| {
        Process::program("prover-miden")
            .label(name)
            .env("PUSH0_PROVER__ID", name)
    };
    let deployment = deploy(&chain, [miden("m1"), miden("mv1").arg("--verify")]).await;
    transfer(&anvil, 2).await;
    anvil.mine(3).await;
    let pipeline = "demo".parse().expect("a name");
    assert_is_the_chain(&deployment, &anvil, &pipeline, 3).await;
}

/// Returns a pipeline that splits a block into parts, proves each, and joins them with the keys in `how`.
fn workflow(how: &str) -> String {
    format!(
        r#"
        name = "parts"
        source = {{ kind = "external" }}
        [[proof]]
        type = "main"
        zkvm = "mock"
        verify = "every-stage"
        [[proof.stage]]
        name = "split"
        kind = "split"
        timeout = "10s"
        [[proof.stage]]
        name = "step"
        kind = "map"
        timeout = "10s"
        [[proof.stage]]
        name = "aggregate"
        kind = "join"
        timeout = "10s"
        {how}
        "#
    )
}

fn in_parts(name: &str) -> ProcessBuilder {
    prover(name)
        .env("PUSH0_MOCK__SPLIT", 7)
        .env("PUSH0_MOCK__TIME", "5ms")
}

/// Proves blocks 1 to 8 in seven parts each, and returns the number of completed attempts.
async fn prove_in_parts(how: &str) -> u64 {
    let deployment = deploy(&workflow(how), [in_parts("p1"), in_parts("p2"), verifier("v1")]).await;
    let pipeline = "parts".parse().expect("a name");
    deployment.submit_blocks(&pipeline, 1..=8).await;
    let emissions = deployment.wait_emitted(&pipeline, 8, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=8);
    settled(deployment.bus()).await;
    let (p1, p2) = (deployment.service("p1"), deployment.service("p2"));
    attempts(p1, "completed").await + attempts(p2, "completed").await
}

#[tokio::test]
async fn a_block_is_split_into_parts_and_joined_again() {
    assert_eq!(prove_in_parts("").await, 8 * (1 + 7 + 1));
}

#[tokio::test]
async fn a_tree_of_arity_three_joins_level_by_level() {
    // Seven parts make three tasks on the first level and one on the second.
    assert_eq!(prove_in_parts("arity = 3").await, 8 * (1 + 7 + 3 + 1));
}

#[tokio::test]
async fn a_quorum_of_one_of_two_emits_the_faster_proof_and_stops_the_other() {
    let two = r#"
        name = "two"
        source = { kind = "external" }
        quorum = { valid = 1 }
        [[proof]]
        type = "a"
        zkvm = "mock-a"
        [[proof.stage]]
        name = "prove"
        kind = "map"
        timeout = "20s"
        [[proof]]
        type = "b"
        zkvm = "mock-b"
        [[proof.stage]]
        name = "prove"
        kind = "map"
        timeout = "20s"
        "#;
    let of = |adapter: ProcessBuilder, zkvm: &str| adapter.env("PUSH0_PROVER__ZKVM", zkvm);
    let deployment = deploy(
        two,
        [
            of(prover("fast"), "mock-a"),
            of(verifier("va"), "mock-a"),
            of(prover("slow"), "mock-b").env("PUSH0_MOCK__TIME", "15s"),
            of(verifier("vb"), "mock-b"),
        ],
    )
    .await;
    let pipeline = "two".parse().expect("a name");
    deployment.submit_blocks(&pipeline, 1..=6).await;
    let emissions = deployment.wait_emitted(&pipeline, 6, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=6);
    for kept in &emissions {
        assert!(matches!(proofs(kept), [proof] if proof.proof_type.as_str() == "a"));
    }
    settled(deployment.bus()).await;
    assert!(attempts(deployment.service("slow"), "stopped").await > 0);
    assert_eq!(attempts(deployment.service("slow"), "completed").await, 0);
}

#[tokio::test]
async fn every_proof_type_of_a_full_quorum_is_in_the_record() {
    let both = r#"
        name = "both"
        source = { kind = "external" }
        [[proof]]
        type = "a"
        zkvm = "mock"
        [[proof.stage]]
        name = "prove"
        kind = "map"
        timeout = "20s"
        [[proof]]
        type = "b"
        zkvm = "mock"
        verify = "off"
        [[proof.stage]]
        name = "prove"
        kind = "map"
        timeout = "20s"
        "#;
    let deployment = Deployment::builder()
        .as_shipped()
        .pipeline(both)
        .service(prover("p1"))
        .service(verifier("v1"))
        .start()
        .await;
    let pipeline = "both".parse().expect("a name");
    deployment.submit_blocks(&pipeline, 1..=10).await;
    let emissions = deployment.wait_emitted(&pipeline, 10, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=10);
    for kept in &emissions {
        let body = kept.body.as_ref().expect("a readable record");
        assert!(
            matches!(&body.outcome, EmissionOutcome::Proved(both)
                if both.len() == 2 && both[0].verifier.is_some() && both[1].verifier.is_none()),
            "{body:?}"
        );
    }
}

#[tokio::test]
async fn a_record_tells_how_long_its_block_waited_and_how_long_push0_took() {
    let slow = prover("p1")
        .env("PUSH0_MOCK__TIME", "300ms")
        .env("PUSH0_PROVER__SLOTS", "1");
    let deployment = deploy(&single("timeout = \"10s\""), [slow, verifier("v1")]).await;
    deployment.submit_blocks(&demo(), 1..=3).await;
    let emissions = deployment.wait_emitted(&demo(), 3, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=3);
    let mut waited = Vec::new();
    for kept in &emissions {
        let emission = kept.body.as_ref().expect("a readable record");
        let [leg] = emission.critical_path() else {
            unreachable!("one stage: {emission:?}")
        };
        assert_eq!(
            (leg.stage.as_str(), leg.prover.as_str(), leg.failed),
            ("prove", "p1", 0)
        );
        assert_eq!(leg.verifier.as_ref().map(ProverId::as_str), Some("v1"));
        assert_eq!(leg.ready_at, emission.stored_at);
        let account = emission.account(kept.stored_at).expect("a proof");
        let sum = account.parts.sum_us() + account.range_us + account.order_us + account.own_us;
        assert_eq!(sum, account.total_us, "{account:?}");
        assert_eq!(account.total_us, kept.stored_at.0 - emission.stored_at.0);
        assert!(account.own_us < 100_000, "{account:?}");
        assert!(account.parts.prove_us >= 300_000, "{account:?}");
        waited.push(account.parts.waited_us);
    }
    // One prover proves one block after another.
    assert!(
        waited[0] < 100_000 && waited[1] >= 200_000 && waited[2] >= 400_000,
        "{waited:?}"
    );
    settled(deployment.bus()).await;
}
