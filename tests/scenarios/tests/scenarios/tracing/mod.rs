//! One trace per block, from its observation to its record, across every process and attempt.

mod receiver;

use push0_harness::{Deployment, ProcessBuilder, assert_complete_in_order, wait_for};
use push0_scenarios::{PATIENCE, demo, prover, settled, single, verifier};
use receiver::{Seen, Spans};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    time::{Duration, Instant},
};
use tempfile::NamedTempFile;

/// Spans in every block's trace: the name of the service and the name of the span.
const EXPECTED: [(&str, &str); 5] = [
    ("push0-ingester", "block"),
    ("push0-dispatcher", "release"),
    ("push0-prover-mock", "prove"),
    ("push0-prover-mock", "verify"),
    ("push0-collector", "emit"),
];

/// Starts a deployment whose blocks 1 to `count` come from a file, with traces sent to `endpoint`.
async fn traced(
    endpoint: &str,
    protocol: &str,
    count: u64,
    stage: &str,
    adapters: impl IntoIterator<Item = ProcessBuilder>,
) -> (Deployment, NamedTempFile) {
    let mut file = NamedTempFile::new().expect("a file");
    for number in 1..=count {
        writeln!(file, "{number}").expect("written");
    }
    let source = format!("{{ kind = \"file\", path = \"{}\" }}", file.path().display());
    let pipeline = single(stage).replace("{ kind = \"external\" }", &source);
    let builder = Deployment::builder().as_shipped().pipeline(&pipeline);
    let builder = adapters
        .into_iter()
        .fold(builder, |builder, adapter| builder.service(adapter));
    let deployment = builder
        .env("PUSH0_TELEMETRY__OTLP_ENDPOINT", endpoint)
        .env("PUSH0_TELEMETRY__OTLP_PROTOCOL", protocol)
        .start()
        .await;
    (deployment, file)
}

/// Returns why these spans do not form one tree with root `block`; `None` if they do.
fn flaw(spans: &[Seen]) -> Option<String> {
    for (service, name) in EXPECTED {
        if !spans
            .iter()
            .any(|span| span.service == service && span.name == name)
        {
            return Some(format!("no span `{name}` of {service}"));
        }
    }
    let ids: BTreeSet<&str> = spans.iter().map(|span| span.id.as_str()).collect();
    let roots: Vec<&Seen> = spans.iter().filter(|span| span.parent.is_empty()).collect();
    if !matches!(roots[..], [root] if root.name == "block") {
        return Some(format!("its roots are {roots:?}"));
    }
    let orphan = spans
        .iter()
        .find(|span| !span.parent.is_empty() && !ids.contains(span.parent.as_str()));
    orphan.map(|orphan| format!("the parent of {orphan:?} was never sent"))
}

/// Waits until `count` traces exist and each is a complete tree, and returns their spans.
async fn whole(spans: &Spans, count: usize) -> Vec<Vec<Seen>> {
    wait_for(&format!("{count} whole traces"), PATIENCE, async || {
        let mut traces: BTreeMap<String, Vec<Seen>> = BTreeMap::new();
        for span in spans.all() {
            traces.entry(span.trace.clone()).or_default().push(span);
        }
        let flaws: Vec<String> = traces.values().filter_map(|spans| flaw(spans)).collect();
        match traces.len() == count && flaws.is_empty() {
            true => Ok(traces.into_values().collect()),
            false => Err(format!(
                "{} traces, {} flawed: {:?}",
                traces.len(),
                flaws.len(),
                flaws.first()
            )),
        }
    })
    .await
}

async fn every_block_is_one_trace(endpoint: &str, protocol: &str, spans: &Spans) {
    let adapters = [prover("p1"), prover("p2"), verifier("v1")];
    let (deployment, _file) = traced(endpoint, protocol, 10, "timeout = \"10s\"", adapters).await;
    let emissions = deployment.wait_emitted(&demo(), 10, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=10);
    for trace in whole(spans, 10).await {
        assert_eq!(trace.len(), EXPECTED.len(), "{trace:?}");
    }
}

#[tokio::test]
async fn a_block_is_one_connected_trace_over_grpc() {
    let spans = Spans::default();
    let endpoint = receiver::over_grpc(&spans).await;
    every_block_is_one_trace(&endpoint, "grpc", &spans).await;
}

#[tokio::test]
async fn a_block_is_one_connected_trace_over_http() {
    let spans = Spans::default();
    let endpoint = receiver::over_http(&spans).await;
    every_block_is_one_trace(&endpoint, "http", &spans).await;
}

#[tokio::test]
async fn failed_attempts_are_in_the_trace_of_their_block() {
    let spans = Spans::default();
    let endpoint = receiver::over_grpc(&spans).await;
    // Half of all attempts fail; the seed decides which.
    let adapters = [prover("p1").env("PUSH0_MOCK__FAILURE_RATE", 0.5), verifier("v1")];
    let (deployment, _file) = traced(
        &endpoint,
        "grpc",
        12,
        "timeout = \"10s\"\nattempts = 12",
        adapters,
    )
    .await;
    let emissions = deployment.wait_emitted(&demo(), 12, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=12);
    let traces = whole(&spans, 12).await;
    let retried = traces.iter().filter(|trace| {
        let ended = |outcome: &str| {
            trace
                .iter()
                .any(|s| s.name == "prove" && s.outcome.as_deref() == Some(outcome))
        };
        ended("retryable") && ended("completed")
    });
    assert!(retried.count() > 0, "{traces:?}");
}

#[tokio::test]
async fn without_a_receiver_the_work_goes_on_at_the_same_pace() {
    // The port was free a moment ago and has no listener.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("port 0 is free");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let (deployment, _file) = traced(
        &endpoint,
        "grpc",
        200,
        "timeout = \"10s\"",
        [prover("p1"), prover("p2"), verifier("v1")],
    )
    .await;
    let began = Instant::now();
    let emissions = deployment.wait_emitted(&demo(), 200, PATIENCE).await;
    let took = began.elapsed();
    println!("200 blocks of 20 ms on two provers took {} ms", took.as_millis());
    assert_complete_in_order(&emissions, 1..=200);
    // The proofs take two seconds; a blocking export would raise the total to five.
    assert!(took < Duration::from_secs(5), "{took:?}");
    settled(deployment.bus()).await;
}
