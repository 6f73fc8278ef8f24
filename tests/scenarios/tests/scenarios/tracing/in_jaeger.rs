//! The same traces as a real Jaeger shows them, and the traces that the shipped one keeps.

use super::{Eyes, Tree, dead, healthy, hedged, jaeger::Jaeger, killed, range, retried, slow, traced};
use push0_domain::message::EmissionOutcome;
use push0_scenarios::{PATIENCE, demo, outcome, single, verifier};
use std::collections::BTreeSet;

#[tokio::test]
async fn jaeger_shows_a_healthy_block_without_a_warning() {
    if let Some(jaeger) = Jaeger::start().await {
        healthy(&Eyes::Jaeger(jaeger), "grpc").await;
    }
}

#[tokio::test]
async fn jaeger_shows_failed_attempts() {
    if let Some(jaeger) = Jaeger::start().await {
        retried(&Eyes::Jaeger(jaeger)).await;
    }
}

#[tokio::test]
async fn jaeger_shows_both_copies_of_a_slow_attempt() {
    if let Some(jaeger) = Jaeger::start().await {
        hedged(&Eyes::Jaeger(jaeger)).await;
    }
}

#[tokio::test]
async fn jaeger_shows_the_attempt_of_a_killed_prover() {
    if let Some(jaeger) = Jaeger::start().await {
        killed(&Eyes::Jaeger(jaeger)).await;
    }
}

#[tokio::test]
async fn jaeger_finds_a_dead_block_by_its_error() {
    if let Some(jaeger) = Jaeger::start().await {
        dead(&Eyes::Jaeger(jaeger)).await;
    }
}

#[tokio::test]
async fn jaeger_shows_a_range_and_its_blocks() {
    if let Some(jaeger) = Jaeger::start().await {
        range(&Eyes::Jaeger(jaeger)).await;
    }
}

/// Half of all attempts fail. The blocks with a failed attempt are kept whole, all others go.
#[tokio::test]
async fn the_shipped_jaeger_keeps_the_blocks_in_which_something_failed() {
    let Some(jaeger) = Jaeger::as_shipped().await else {
        return;
    };
    let eyes = Eyes::Jaeger(jaeger);
    let adapters = [
        slow("p1", "20ms").env("PUSH0_MOCK__FAILURE_RATE", 0.5),
        verifier("v1"),
    ];
    let pipeline = single("timeout = \"10s\"\nattempts = 12");
    let (deployment, _file) = traced(eyes.endpoint(), "grpc", 12, &pipeline, adapters).await;
    let emissions = deployment.wait_emitted(&demo(), 12, PATIENCE).await;
    let numbers = (1..=12).zip(&emissions);
    let failed: BTreeSet<u64> = numbers
        .filter(|(_, record)| match outcome(record) {
            EmissionOutcome::Proved(proofs) => proofs.iter().any(|proof| proof.attempt > 1),
            _ => false,
        })
        .map(|(number, _)| number)
        .collect();
    let last = *failed.last().expect("an attempt failed");
    for number in &failed {
        let has_all = |tree: &Tree| tree.has(&[("publish", 1), ("check prove", 1)]);
        let tree = eyes.whole("block", *number, has_all).await;
        assert!(
            tree.named("attempt prove").any(|span| span.is_error),
            "{:#?}",
            tree.lines()
        );
    }
    // Jaeger decides in the order in which blocks began, so these are decided.
    let mut gone = 0;
    for number in (1..last).filter(|number| !failed.contains(number)) {
        let kept = eyes.traces("block", number).await.expect("an answer");
        assert!(
            kept.is_empty(),
            "block {number}: {:#?}",
            kept.iter().map(Tree::lines).collect::<Vec<_>>()
        );
        gone += 1;
    }
    assert!(gone > 0, "an attempt of every block failed: {failed:?}");
}
