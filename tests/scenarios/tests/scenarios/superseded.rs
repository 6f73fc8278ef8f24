//! Obsolete work: cancelled by an operator, or replaced by the chain.

use push0_bus::Kept;
use push0_domain::message::{Emission, EmissionOutcome, EndReason};
use push0_harness::{Anvil, Deployment, DeploymentBuilder, Process, assert_complete_in_order, wait_for};
use push0_scenarios::{
    PATIENCE, attempts, dead_letters, demo, deploy, outcome, prover, push0, running, settled, single,
    verifier,
};
use serde_json::json;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

#[tokio::test]
async fn cancelled_blocks_are_stopped_and_recorded_in_order() {
    let slow = prover("p1").env("PUSH0_MOCK__TIME", "4s");
    let deployment = deploy(&single("timeout = \"20s\""), [slow, verifier("v1")]).await;
    deployment.submit_blocks(&demo(), 1..=5).await;
    running(deployment.bus(), "p1").await;
    let cancelled_at = Instant::now();
    push0(
        &deployment,
        &["cancel", "--pipeline", "demo", "1..4", "--note", "a test"],
    )
    .await;
    deployment.wait_emitted(&demo(), 4, PATIENCE).await;
    // Less time than any block takes, so the running attempt was stopped.
    assert!(
        cancelled_at.elapsed() < Duration::from_secs(3),
        "{:?}",
        cancelled_at.elapsed()
    );
    wait_for("a stopped attempt", PATIENCE, async || {
        attempts(deployment.service("p1"), "stopped").await == 1
    })
    .await;
    let emissions = deployment.wait_emitted(&demo(), 5, PATIENCE).await;
    let numbers: Vec<u64> = emissions
        .iter()
        .map(|e| e.body.as_ref().expect("readable").first.number)
        .collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    for kept in &emissions[..4] {
        assert!(
            matches!(outcome(kept), EmissionOutcome::Abandoned(EndReason::Cancelled { note }) if note == "a test"),
            "{kept:?}"
        );
    }
    assert!(matches!(outcome(&emissions[4]), EmissionOutcome::Proved(_)));
    settled(deployment.bus()).await;
    assert_eq!(
        attempts(deployment.service("p1"), "completed").await,
        1,
        "nothing else was run"
    );
}

fn chain_of(anvil: &Anvil) -> String {
    let source = format!(
        "{{ kind = \"ethereum\", rpc_url = \"{}\", start = 1, poll = \"50ms\", witness = \"header\" }}",
        anvil.url()
    );
    single("timeout = \"20s\"").replace("{ kind = \"external\" }", &source)
}

async fn follow(anvil: &Anvil, time: &str) -> Deployment {
    let chain = chain_of(anvil);
    let prover = |name| prover(name).env("PUSH0_MOCK__TIME", time);
    deploy(
        &chain,
        [
            Process::program("ingester"),
            prover("p1"),
            prover("p2"),
            verifier("v1"),
        ],
    )
    .await
}

async fn is_on_chain(anvil: &Anvil, kept: &Kept<Emission>) -> bool {
    let block = kept.body.as_ref().expect("readable").first;
    let found = anvil
        .rpc("eth_getBlockByHash", json!([block.hash.to_string(), false]))
        .await;
    found["number"] == format!("{:#x}", block.number)
}

/// Waits until the newest record is that of the chain's head.
async fn caught_up(deployment: &Deployment, anvil: &Anvil) -> Vec<Kept<Emission>> {
    let head = anvil.head().await;
    wait_for(&format!("block {head} of the chain"), PATIENCE, async || {
        let emissions = deployment.emissions(&demo()).await;
        let Some(last) = emissions.last() else {
            return Err("nothing emitted".to_owned());
        };
        let number = last.body.as_ref().expect("readable").first.number;
        if number == head && is_on_chain(anvil, last).await {
            Ok(emissions)
        } else {
            Err(format!("{} records, the last of block {number}", emissions.len()))
        }
    })
    .await
}

#[tokio::test]
async fn emitted_blocks_that_the_chain_replaced_are_followed_by_their_successors() {
    let anvil = Anvil::start(None).await;
    let deployment = follow(&anvil, "20ms").await;
    anvil.mine(6).await;
    let before = deployment.wait_emitted(&demo(), 6, PATIENCE).await;
    assert_complete_in_order(&before, 1..=6);
    anvil.reorg(3).await;
    anvil.mine(2).await;
    let emissions = caught_up(&deployment, &anvil).await;
    // The records are the first six, then the replacing blocks from the fork on.
    assert_complete_in_order(&emissions[..6], 1..=6);
    let head = anvil.head().await;
    assert_complete_in_order(&emissions[6..], 4..=head);
    let parent = |at: usize| emissions[at].body.as_ref().expect("readable");
    assert_eq!(
        parent(6).parent_hash,
        parent(2).last.hash,
        "it goes on from the fork"
    );
    for kept in &emissions[6..] {
        assert!(is_on_chain(&anvil, kept).await, "{kept:?}");
    }
    settled(deployment.bus()).await;
}

#[tokio::test]
async fn blocks_that_the_chain_replaces_while_they_are_proved_are_cancelled() {
    let anvil = Anvil::start(None).await;
    let deployment = follow(&anvil, "1500ms").await;
    anvil.mine(4).await;
    running(deployment.bus(), "p1").await;
    running(deployment.bus(), "p2").await;
    anvil.reorg(4).await;
    anvil.mine(1).await;
    let emissions = caught_up(&deployment, &anvil).await;
    let head = anvil.head().await;
    assert_complete_in_order(&emissions, 1..=head);
    for kept in &emissions {
        assert!(is_on_chain(&anvil, kept).await, "{kept:?}");
    }
    settled(deployment.bus()).await;
    let stopped = attempts(deployment.service("p1"), "stopped").await
        + attempts(deployment.service("p2"), "stopped").await;
    assert_eq!(stopped, 2, "both that ran were stopped");
}

/// The broker's clock runs minutes ahead and behind while the chain replaces blocks, an operator cancels some and deadlines
/// run. Facts about a block are keyed by its announcement and by no clock of a machine.
#[tokio::test]
async fn a_wandering_clock_of_the_broker_loses_doubles_and_reorders_nothing() {
    let anvil = Anvil::start(None).await;
    let text = chain_of(&anvil).replace(
        "name = \"demo\"",
        "name = \"demo\"\npolicy = \"deadline\"\ndeadline = \"60s\"",
    );
    let builder = Deployment::builder().as_shipped().proxied().pipeline(&text);
    let services = [prover("p1"), prover("p2"), verifier("v1")];
    let deployment = services.into_iter().fold(builder, DeploymentBuilder::service);
    let deployment = deployment.start().await;
    // Hundreds of seconds each way, and back in between.
    let clocks = [0, 600, -600, 60, -3600, 3600, -60, 0];
    for (round, by_seconds) in clocks.into_iter().enumerate() {
        deployment.proxy().move_clock(by_seconds);
        anvil.mine(6).await;
        if round % 2 == 1 {
            anvil.reorg(3).await;
        }
        let last = anvil.head().await + 2;
        anvil.mine(2).await;
        if round % 3 == 2 {
            // Blocks of which some are emitted, some in flight and some not announced.
            let blocks = format!("{}..{last}", last - 2);
            push0(
                &deployment,
                &["cancel", "--pipeline", "demo", &blocks, "--note", "a test"],
            )
            .await;
        }
    }
    let emissions = caught_up(&deployment, &anvil).await;
    let mut next = 1;
    for kept in &emissions {
        let record = kept.body.as_ref().expect("readable");
        let (number, is_back) = (record.first.number, record.first.number < next);
        assert!(number == next || is_back, "block {number} after {}", next - 1);
        assert!(
            matches!(
                outcome(kept),
                EmissionOutcome::Proved(_) | EmissionOutcome::Abandoned(EndReason::Cancelled { .. })
            ),
            "{kept:?}"
        );
        next = number + 1;
    }
    // The newest record of each number is that of the chain.
    let newest: BTreeMap<u64, &Kept<Emission>> = emissions
        .iter()
        .map(|kept| (kept.body.as_ref().expect("readable").first.number, kept))
        .collect();
    for kept in newest.values() {
        assert!(is_on_chain(&anvil, kept).await, "{kept:?}");
    }
    assert_eq!(dead_letters(deployment.bus()).await, []);
    settled(deployment.bus()).await;
}

/// Returns a pipeline of two stages with a deadline of 5 s, of which the second stage takes at least 3 s.
fn hurried() -> String {
    let stage = |name: &str, more: &str| {
        format!("[[proof.stage]]\nname = \"{name}\"\nkind = \"map\"\ntimeout = \"4s\"\n{more}\n")
    };
    format!(
        "name = \"demo\"\npolicy = \"deadline\"\ndeadline = \"5s\"\nsource = {{ kind = \"external\" }}\n\
         [[proof]]\ntype = \"main\"\nzkvm = \"mock\"\nverify = \"off\"\n{}{}",
        stage("prove", ""),
        stage("wrap", "zkvm = \"wrapper\"\nfastest = \"3s\""),
    )
}

#[tokio::test]
async fn a_block_that_cannot_meet_its_deadline_any_more_frees_its_prover_before_it_passes() {
    let slow = prover("p1").env("PUSH0_MOCK__TIME", "3500ms");
    let deployment = deploy(&hurried(), [slow]).await;
    let submitted_at = Instant::now();
    // The first block runs into the time reserved for its second stage. The other block waits until then, or
    // begins in the moment between the two.
    deployment.submit_blocks(&demo(), 1..=2).await;
    let emissions = deployment.wait_emitted(&demo(), 2, PATIENCE).await;
    let after = submitted_at.elapsed();
    for kept in &emissions {
        assert!(
            matches!(outcome(kept), EmissionOutcome::Abandoned(EndReason::OutOfReach)),
            "{kept:?}"
        );
    }
    assert!(
        (Duration::from_secs(2)..Duration::from_millis(3400)).contains(&after),
        "given up after {after:?}, not 2 s"
    );
    wait_for("a stopped attempt", PATIENCE, async || {
        attempts(deployment.service("p1"), "stopped").await >= 1
    })
    .await;
    settled(deployment.bus()).await;
}
