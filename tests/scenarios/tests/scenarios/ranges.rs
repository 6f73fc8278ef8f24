//! Rollups: blocks are proved individually, and consecutive blocks together as a range.
//!
//! Every stage is a program that passes on its input numbers. So the proof of a range is the list of its
//! blocks' numbers, and the verifier compares the list with the range.

use push0_bus::Kept;
use push0_domain::message::{Emission, EmissionOutcome};
use push0_harness::{Anvil, Process, ProcessBuilder, assert_complete_in_order};
use push0_scenarios::{
    PATIENCE, attempts, dead_letters, demo, deploy, outcome, prover, push0, running_on, settled, verifier,
};
use std::time::Duration;

/// A program that passes on its input and fails block 13 for good.
const PROGRAM: &str = r#"
[exec]
program = "/bin/sh"
args = ["-c", '[ "$(cat "$1")" != 13 ] || exit 4; cat "$1" > "$2"', "x", "{input}", "{output}"]
exit_codes.fatal = [4]
verify_program = "/bin/sh"
verify_args = ["-c", '[ "$(tr -d "[] \n" < "$1")" = "$(seq -s, "$2" "$3")" ] || { echo push0: invalid: other blocks; exit 65; }', "x", "{proof}", "{first_number}", "{block_number}"]
"#;

fn program(name: &str) -> ProcessBuilder {
    Process::program("prover-exec")
        .label(name)
        .config(PROGRAM)
        .env("PUSH0_PROVER__ID", name)
        .env("PUSH0_PROVER__ZKVM", "mock")
        .env("PUSH0_PROVER__SLOTS", 4)
}

/// Returns a pipeline with ranges of four blocks, joined in pairs and wrapped. The ranges run
/// on zkVM `range_zkvm`.
fn rollup(close_after: &str, range_zkvm: &str) -> String {
    format!(
        r#"
        name = "demo"
        source = {{ kind = "external" }}
        [[proof]]
        type = "main"
        zkvm = "mock"
        [[proof.stage]]
        name = "prove"
        kind = "map"
        timeout = "20s"
        [[proof.stage]]
        name = "aggregate"
        kind = "range"
        zkvm = "{range_zkvm}"
        every = 4
        close_after = "{close_after}"
        arity = 2
        timeout = "20s"
        [[proof.stage]]
        name = "wrap"
        kind = "map"
        timeout = "20s"
        "#
    )
}

/// Returns a prover that takes a second for each of a range's tasks.
fn aggregator() -> ProcessBuilder {
    prover("aggregator")
        .env("PUSH0_PROVER__ZKVM", "aggregate")
        .env("PUSH0_MOCK__TIME", "1s")
}

/// Returns the first and last block number of each record.
fn ranges(emissions: &[Kept<Emission>]) -> Vec<(u64, u64)> {
    let bodies = emissions.iter().map(|kept| kept.body.as_ref().expect("readable"));
    bodies.map(|e| (e.first.number, e.last.number)).collect()
}

#[tokio::test]
async fn consecutive_blocks_are_proved_one_by_one_and_then_together() {
    let deployment = deploy(
        &rollup("20s", "mock"),
        [program("p1"), program("p2"), program("v1").arg("--verify")],
    )
    .await;
    deployment.submit_blocks(&demo(), 1..=11).await;
    let emissions = deployment.wait_emitted(&demo(), 3, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=11);
    // Ranges are cut before multiples of four, regardless of the first block.
    assert_eq!(ranges(&emissions), [(1, 3), (4, 7), (8, 11)]);
    settled(deployment.bus()).await;
    let (p1, p2) = (deployment.service("p1"), deployment.service("p2"));
    let each = 11 + 3 * (2 + 1 + 1);
    assert_eq!(
        attempts(p1, "completed").await + attempts(p2, "completed").await,
        each
    );
}

#[tokio::test]
async fn an_unfilled_range_is_closed_after_its_time() {
    let deployment = deploy(
        &rollup("1s", "mock"),
        [program("p1"), program("v1").arg("--verify")],
    )
    .await;
    deployment.submit_blocks(&demo(), 4..=5).await;
    let emissions = deployment.wait_emitted(&demo(), 1, PATIENCE).await;
    assert_eq!(ranges(&emissions), [(4, 5)]);
    let record = emissions[0].body.as_ref().expect("readable");
    let took = emissions[0].stored_at.since(record.stored_at);
    assert!(took >= Duration::from_secs(1), "closed after {took:?}");
    deployment.submit_blocks(&demo(), 6..=7).await;
    let emissions = deployment.wait_emitted(&demo(), 2, PATIENCE).await;
    assert_complete_in_order(&emissions, 4..=7);
    settled(deployment.bus()).await;
}

#[tokio::test]
async fn a_block_that_cannot_be_proved_has_a_record_between_two_ranges() {
    let deployment = deploy(
        &rollup("20s", "mock"),
        [program("p1"), program("p2"), program("v1").arg("--verify")],
    )
    .await;
    deployment.submit_blocks(&demo(), 8..=15).await;
    let emissions = deployment.wait_emitted(&demo(), 4, PATIENCE).await;
    assert_eq!(ranges(&emissions), [(8, 11), (12, 12), (13, 13), (14, 15)]);
    for kept in &emissions {
        let number = kept.body.as_ref().expect("readable").first.number;
        let is_dead = matches!(outcome(kept), EmissionOutcome::Dead { .. });
        assert_eq!(is_dead, number == 13, "{kept:?}");
    }
    assert_eq!(dead_letters(deployment.bus()).await.len(), 1);
    settled(deployment.bus()).await;
}

#[tokio::test]
async fn a_range_goes_on_where_it_was_when_the_collector_is_killed() {
    let mut deployment = deploy(
        &rollup("20s", "aggregate"),
        [prover("p1"), aggregator(), verifier("v1")],
    )
    .await;
    deployment.submit_blocks(&demo(), 4..=7).await;
    let first = running_on(deployment.bus(), "aggregate", "aggregator").await;
    assert_eq!(first.header.id.stage.numbers(), 4..=7);
    let leader = deployment.leader("collector").await;
    deployment.service_mut(&leader).restart();
    deployment.submit_blocks(&demo(), 8..=11).await;
    let emissions = deployment.wait_emitted(&demo(), 2, PATIENCE).await;
    assert_complete_in_order(&emissions, 4..=11);
    assert_eq!(ranges(&emissions), [(4, 7), (8, 11)]);
    settled(deployment.bus()).await;
    // No task was proved a second time.
    assert_eq!(attempts(deployment.service("p1"), "completed").await, 8 + 2);
    assert_eq!(
        attempts(deployment.service("aggregator"), "completed").await,
        2 * 3
    );
}

#[tokio::test]
async fn a_reorg_inside_a_range_that_is_proved_leaves_a_range_of_the_new_chain() {
    let anvil = Anvil::start(None).await;
    let source = format!(
        "{{ kind = \"ethereum\", rpc_url = \"{}\", start = 1, poll = \"50ms\", witness = \"number\" }}",
        anvil.url()
    );
    let chain = rollup("3s", "aggregate").replace("{ kind = \"external\" }", &source);
    let deployment = deploy(
        &chain,
        [
            Process::program("ingester"),
            prover("p1"),
            aggregator(),
            verifier("v1"),
        ],
    )
    .await;
    anvil.mine(4).await;
    running_on(deployment.bus(), "aggregate", "aggregator").await;
    anvil.reorg(2).await;
    anvil.mine(3).await;
    let emissions = deployment.wait_emitted(&demo(), 2, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=7);
    assert_eq!(ranges(&emissions), [(1, 3), (4, 7)]);
    for kept in &emissions {
        for block in kept.body.as_ref().expect("readable").blocks() {
            let params = serde_json::json!([block.hash.to_string(), false]);
            let found = anvil.rpc("eth_getBlockByHash", params).await;
            assert_eq!(
                found["number"],
                format!("{:#x}", block.number),
                "{block} is on the chain"
            );
        }
    }
    settled(deployment.bus()).await;
    assert!(attempts(deployment.service("aggregator"), "stopped").await > 0);
}

#[tokio::test]
async fn a_cancelled_block_takes_its_range_apart_while_it_is_proved() {
    let deployment = deploy(
        &rollup("20s", "aggregate"),
        [prover("p1"), aggregator(), verifier("v1")],
    )
    .await;
    deployment.submit_blocks(&demo(), 4..=7).await;
    running_on(deployment.bus(), "aggregate", "aggregator").await;
    push0(
        &deployment,
        &["cancel", "--pipeline", "demo", "6", "--note", "a test"],
    )
    .await;
    let emissions = deployment.wait_emitted(&demo(), 3, PATIENCE).await;
    assert_eq!(ranges(&emissions), [(4, 5), (6, 6), (7, 7)]);
    assert!(matches!(outcome(&emissions[1]), EmissionOutcome::Abandoned(_)));
    settled(deployment.bus()).await;
    assert!(attempts(deployment.service("aggregator"), "stopped").await > 0);
}
