//! The pipelines in `deploy/pipelines` as shipped, except for the node's address. `whole_path.rs` has the
//! pipeline of the demonstration.

use push0_domain::pipeline::{Pipeline, Verify};
use push0_harness::{Anvil, Deployment, Process, ProcessBuilder, assert_complete_in_order};
use push0_scenarios::{PATIENCE, deploy, proofs, settled};

const SINGLE: &str = include_str!("../../../../deploy/pipelines/single.toml");
const MULTI_PROVER: &str = include_str!("../../../../deploy/pipelines/multi-prover.toml");
const SPLIT: &str = include_str!("../../../../deploy/pipelines/split.toml");
const MULTISTEP: &str = include_str!("../../../../deploy/pipelines/multistep.toml");
const ROLLUP: &str = include_str!("../../../../deploy/pipelines/rollup.toml");
const REALTIME: &str = include_str!("../../../../deploy/pipelines/realtime.toml");

fn adapters(pipeline: &Pipeline) -> Vec<ProcessBuilder> {
    let adapter = |role: &str, zkvm: &str| {
        let name = format!("{role}-{zkvm}");
        Process::program("prover-mock")
            .label(&name)
            .env("PUSH0_PROVER__ID", &name)
            .env("PUSH0_PROVER__ZKVM", zkvm)
            .env("PUSH0_PROVER__SLOTS", "8")
            .env("PUSH0_MOCK__TIME", "20ms")
            .env("PUSH0_MOCK__SPLIT", "10")
    };
    let zkvms = pipeline.zkvms();
    let provers = zkvms.iter().map(|zkvm| adapter("prover", zkvm.as_str()));
    let verified = pipeline.proofs.iter().filter(|proof| proof.verify != Verify::Off);
    let verifiers = verified
        .filter_map(|proof| proof.stages.last())
        .map(|stage| adapter("verifier", stage.zkvm.as_str()).arg("--verify"));
    provers.chain(verifiers).collect()
}

/// Starts a shipped pipeline on the blocks of a chain.
async fn follow(text: &str, anvil: &Anvil) -> (Deployment, Pipeline) {
    let text = text.replace("http://127.0.0.1:8545", anvil.url());
    let pipeline = Pipeline::from_toml("shipped.toml", &text).unwrap_or_else(|e| unreachable!("{e}"));
    (deploy(&text, adapters(&pipeline)).await, pipeline)
}

/// Checks that the first blocks are proved, in order, each by as many proofs as the quorum asks for.
async fn proves_a_chain(text: &str) {
    let anvil = Anvil::start(None).await;
    let (deployment, pipeline) = follow(text, &anvil).await;
    anvil.mine(6).await;
    let emissions = deployment.wait_emitted(&pipeline.name, 6, PATIENCE).await;
    let first = emissions[0].body.as_ref().expect("readable").first.number;
    assert_complete_in_order(&emissions, first..=first + emissions.len() as u64 - 1);
    for kept in &emissions {
        assert!(proofs(kept).len() >= pipeline.quorum as usize, "{kept:?}");
    }
    settled(deployment.bus()).await;
}

#[tokio::test]
async fn the_single_prover_of_the_demo_proves_a_chain() {
    proves_a_chain(SINGLE).await;
}

#[tokio::test]
async fn the_three_provers_of_the_demo_prove_a_chain() {
    proves_a_chain(MULTI_PROVER).await;
}

#[tokio::test]
async fn the_split_work_of_the_demo_proves_a_chain() {
    proves_a_chain(SPLIT).await;
}

#[tokio::test]
async fn the_steps_of_the_demo_prove_a_chain() {
    proves_a_chain(MULTISTEP).await;
}

#[tokio::test]
async fn two_of_three_real_time_proofs_prove_a_chain() {
    proves_a_chain(REALTIME).await;
}

#[tokio::test]
async fn the_rollup_proves_the_blocks_up_to_the_next_hundred_as_one() {
    let anvil = Anvil::start(None).await;
    // With 124 blocks, the first block with 64 confirmations is block 60.
    anvil.mine(124).await;
    let (deployment, pipeline) = follow(ROLLUP, &anvil).await;
    anvil.mine(60).await;
    let emissions = deployment.wait_emitted(&pipeline.name, 1, PATIENCE).await;
    let record = emissions[0].body.as_ref().expect("readable");
    assert_eq!(
        (record.first.number, record.last.number, record.next),
        (60, 99, 100)
    );
    assert_eq!(record.hashes.len(), 40);
    assert!(proofs(&emissions[0])[0].verifier.is_some(), "{record:?}");
}
