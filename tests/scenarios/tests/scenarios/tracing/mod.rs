//! One trace per block, from its observation to its record, across every process and attempt.

mod in_jaeger;
mod jaeger;
mod receiver;
mod tree;

use jaeger::Jaeger;
use push0_domain::message::EmissionOutcome;
use push0_harness::{Deployment, Process, ProcessBuilder, assert_complete_in_order, wait_for};
use push0_scenarios::{PATIENCE, demo, first_running, outcome, prover, settled, single, verifier};
use receiver::Spans;
use serde_json::json;
use std::{
    collections::BTreeSet,
    io::Write,
    time::{Duration, Instant},
};
use tempfile::NamedTempFile;
use tree::{Seen, Tree};

/// Where the traces of a test go.
enum Eyes {
    Receiver(Spans, String),
    Jaeger(Jaeger),
}

impl Eyes {
    async fn grpc() -> Self {
        let spans = Spans::default();
        let endpoint = receiver::over_grpc(&spans).await;
        Self::Receiver(spans, endpoint)
    }

    fn endpoint(&self) -> &str {
        match self {
            Self::Receiver(_, endpoint) => endpoint,
            Self::Jaeger(jaeger) => &jaeger.endpoint,
        }
    }

    /// Returns the traces whose root has this name and tells of this number.
    async fn traces(&self, root: &str, number: u64) -> Result<Vec<Tree>, String> {
        let traces = match self {
            Self::Receiver(spans, _) => {
                let all = spans.all();
                let ids: BTreeSet<&String> = all.iter().map(|span| &span.trace).collect();
                let of = |id: &String| -> Vec<Seen> {
                    all.iter().filter(|span| span.trace == *id).cloned().collect()
                };
                ids.into_iter().map(of).collect()
            }
            Self::Jaeger(jaeger) => {
                jaeger
                    .find(&json!({ "block.number": number.to_string() }))
                    .await?
            }
        };
        let number = number.to_string();
        let is_wanted = |spans: &Vec<Seen>| {
            spans.iter().any(|span| {
                let told = span.attribute("block.number");
                span.parent.is_empty() && span.name == root && told == Some(&*number)
            })
        };
        Ok(traces.into_iter().filter(is_wanted).map(Tree).collect())
    }

    /// Waits until the trace of a block or range is whole and has all spans that are expected, and returns it. Each
    /// process sends its spans when it likes.
    async fn whole(&self, root: &str, number: u64, has_all: impl Fn(&Tree) -> bool) -> Tree {
        wait_for(
            &format!("a whole trace of {root} {number}"),
            PATIENCE,
            async || {
                let traces = self.traces(root, number).await?;
                let [tree] = &traces[..] else {
                    return Err(format!("{} traces", traces.len()));
                };
                match has_all(tree) {
                    false => Err(format!("spans are missing: {:#?}", tree.lines())),
                    true => tree.flaw().map_or_else(|| Ok(tree.clone()), Err),
                }
            },
        )
        .await
    }
}

/// Starts a deployment whose blocks 1 to `count` come from a file, with traces sent to `endpoint`.
async fn traced(
    endpoint: &str,
    protocol: &str,
    count: u64,
    pipeline: &str,
    adapters: impl IntoIterator<Item = ProcessBuilder>,
) -> (Deployment, NamedTempFile) {
    let mut file = NamedTempFile::new().expect("a file");
    for number in 1..=count {
        writeln!(file, "{number}").expect("written");
    }
    let source = format!("{{ kind = \"file\", path = \"{}\" }}", file.path().display());
    let pipeline = pipeline.replace("{ kind = \"external\" }", &source);
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

fn slow(name: &str, time: &str) -> ProcessBuilder {
    prover(name).env("PUSH0_MOCK__TIME", time)
}

/// The paths of a healthy block's spans, with the service that writes each.
const HEALTHY: [(&str, &str); 12] = [
    ("block", "push0-collector"),
    ("block > publish", "push0-ingester"),
    ("block > proof main", "push0-collector"),
    ("block > proof main > stage prove", "push0-collector"),
    ("block > proof main > stage prove > task prove", "push0-collector"),
    (
        "block > proof main > stage prove > task prove > attempt prove",
        "push0-prover-mock",
    ),
    (
        "block > proof main > stage prove > task prove > attempt prove > queue wait",
        "push0-prover-mock",
    ),
    (
        "block > proof main > stage prove > task prove > attempt prove > prove",
        "push0-prover-mock",
    ),
    (
        "block > proof main > stage prove > task prove > check prove",
        "push0-prover-mock",
    ),
    (
        "block > proof main > stage prove > task prove > check prove > check wait",
        "push0-prover-mock",
    ),
    (
        "block > proof main > stage prove > task prove > check prove > verify",
        "push0-prover-mock",
    ),
    ("block > order wait", "push0-collector"),
];

fn assert_is_healthy(tree: &Tree) {
    let paths: BTreeSet<(String, &str)> = tree
        .0
        .iter()
        .map(|span| (tree.path(span), &*span.service))
        .collect();
    for (path, service) in HEALTHY {
        assert!(
            paths.contains(&(path.to_owned(), service)),
            "{path} in {:#?}",
            tree.lines()
        );
    }
    assert_eq!(tree.root().attribute("outcome"), Some("proved"));
    assert!(tree.0.iter().all(|span| !span.is_error), "{:#?}", tree.lines());
    let attempt = tree.one("attempt prove");
    assert_eq!(attempt.attribute("messaging.system"), Some("nats"));
    assert_eq!(attempt.attribute("outcome"), Some("completed"));
}

async fn healthy(eyes: &Eyes, protocol: &str) {
    let adapters = [slow("p1", "200ms"), slow("p2", "200ms"), verifier("v1")];
    let pipeline = single("timeout = \"10s\"");
    let (deployment, _file) = traced(eyes.endpoint(), protocol, 6, &pipeline, adapters).await;
    let emissions = deployment.wait_emitted(&demo(), 6, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=6);
    for number in 1..=6 {
        let has_all = |tree: &Tree| tree.has(&[("publish", 1), ("attempt prove", 1), ("check prove", 1)]);
        assert_is_healthy(&eyes.whole("block", number, has_all).await);
    }
}

/// Half of all attempts fail; the seed decides which. A failed attempt is in the trace of its block, as an error, and
/// the next one points to its predecessor.
async fn retried(eyes: &Eyes) {
    let adapters = [
        slow("p1", "50ms").env("PUSH0_MOCK__FAILURE_RATE", 0.5),
        verifier("v1"),
    ];
    let pipeline = single("timeout = \"10s\"\nattempts = 12");
    let (deployment, _file) = traced(eyes.endpoint(), "grpc", 6, &pipeline, adapters).await;
    deployment.wait_emitted(&demo(), 6, PATIENCE).await;
    let mut retries = 0;
    for number in 1..=6 {
        let is_completed = |span: &Seen| span.attribute("outcome") == Some("completed");
        let has_all = |tree: &Tree| {
            tree.has(&[("publish", 1), ("check prove", 1)]) && tree.named("attempt prove").any(is_completed)
        };
        let tree = eyes.whole("block", number, has_all).await;
        assert_eq!(tree.root().attribute("outcome"), Some("proved"));
        for failed in tree.named("attempt prove").filter(|span| span.is_error) {
            assert_eq!(failed.attribute("outcome"), Some("retryable"));
            assert!(
                failed.events.iter().any(|event| event == "exception"),
                "{failed:?}"
            );
            let follows = |span: &&Seen| span.links.iter().any(|(_, id)| *id == failed.id);
            assert_eq!(tree.named("attempt prove").filter(follows).count(), 1);
            retries += 1;
        }
    }
    assert!(retries > 0, "no attempt failed");
}

/// A slow attempt has a copy, which says so and wins. The slow one is stopped, and is in the tree too.
async fn hedged(eyes: &Eyes) {
    let adapters = [slow("slow", "20s"), verifier("v1")];
    let pipeline = single("timeout = \"25s\"\nhedge_after = \"500ms\"");
    let (mut deployment, _file) = traced(eyes.endpoint(), "grpc", 1, &pipeline, adapters).await;
    first_running(deployment.bus(), &["slow"], 1).await;
    let endpoint = eyes.endpoint().to_owned();
    let fast = slow("fast", "500ms").env("PUSH0_TELEMETRY__OTLP_ENDPOINT", endpoint);
    deployment.start_service(fast);
    deployment.wait_emitted(&demo(), 1, PATIENCE).await;
    settled(deployment.bus()).await;
    let has_all = |tree: &Tree| tree.has(&[("attempt prove", 1), ("copy prove", 1), ("check prove", 1)]);
    let tree = eyes.whole("block", 1, has_all).await;
    let (first, copy) = (tree.one("attempt prove"), tree.one("copy prove"));
    assert_eq!(copy.links, [(copy.trace.clone(), first.id.clone())]);
    assert_eq!(copy.attribute("attempt.copy_of"), Some("1"));
    assert_eq!(first.attribute("outcome"), Some("stopped"));
    assert!(!first.is_error, "nothing is wrong with a copy that is not needed");
}

/// The attempt of a killed prover is told by the watchdog, and the copy elsewhere points to it.
async fn killed(eyes: &Eyes) {
    let adapters = [slow("p1", "2s"), slow("p2", "2s"), verifier("v1")];
    let pipeline = single("timeout = \"10s\"");
    let (deployment, _file) = traced(eyes.endpoint(), "grpc", 1, &pipeline, adapters).await;
    let (dying, _) = first_running(deployment.bus(), &["p1", "p2"], 1).await;
    Process::kill(deployment.service(dying));
    deployment.wait_emitted(&demo(), 1, PATIENCE).await;
    let has_all = |tree: &Tree| tree.has(&[("attempt prove", 1), ("copy prove", 1), ("check prove", 1)]);
    let tree = eyes.whole("block", 1, has_all).await;
    let (died, copy) = (tree.one("attempt prove"), tree.one("copy prove"));
    assert_eq!(
        (&*died.service, died.attribute("outcome")),
        ("push0-watchdog", Some("died"))
    );
    assert!(died.is_error);
    assert_eq!(copy.links, [(died.trace.clone(), died.id.clone())]);
    assert_eq!(
        tree.path(tree.one("silence")),
        format!("{} > silence", tree.path(died))
    );
    assert_eq!(tree.root().attribute("outcome"), Some("proved"));
}

/// A block whose task died is found as an error, from the root down to the attempts.
async fn dead(eyes: &Eyes) {
    let fails = |name| {
        slow(name, "100ms")
            .env("PUSH0_MOCK__FAILURE_RATE", 1)
            .env("PUSH0_MOCK__FAILURE_CLASS", "fatal")
    };
    let pipeline = single("timeout = \"10s\"\nattempts = 2");
    let adapters = [fails("p1"), fails("p2"), verifier("v1")];
    let (deployment, _file) = traced(eyes.endpoint(), "grpc", 1, &pipeline, adapters).await;
    let emissions = deployment.wait_emitted(&demo(), 1, PATIENCE).await;
    assert!(matches!(outcome(&emissions[0]), EmissionOutcome::Dead { .. }));
    let tree = eyes
        .whole("block", 1, |tree| tree.has(&[("attempt prove", 2)]))
        .await;
    assert_eq!(tree.root().attribute("outcome"), Some("dead"));
    for name in [
        "block",
        "proof main",
        "stage prove",
        "task prove",
        "attempt prove",
    ] {
        assert!(
            tree.named(name).all(|span| span.is_error),
            "{name} in {:#?}",
            tree.lines()
        );
    }
    assert!(tree.named("attempt prove").count() >= 2, "{:#?}", tree.lines());
    let told = format!("\"trace_id\":\"{}\"", tree.root().trace);
    for (message, services) in [
        ("attempt failed", ["p1", "p2"]),
        ("given up", ["collector-1", "collector-2"]),
    ] {
        let logs = services.map(|name| deployment.service(name).log());
        let mut lines = logs.iter().flat_map(|log| log.lines());
        assert!(
            lines.any(|line| line.contains(message) && line.contains(&told)),
            "no line `{message}` with {told} in {logs:#?}"
        );
    }
    if let Eyes::Jaeger(jaeger) = eyes {
        let found = jaeger.find(&json!({ "error": "true" })).await.expect("an answer");
        let ids: BTreeSet<&str> = found.iter().flatten().map(|span| &*span.trace).collect();
        assert_eq!(ids, BTreeSet::from([&*tree.root().trace]), "found as an error");
    }
}

const ROLLUP: &str = r#"
name = "demo"
source = { kind = "external" }
[[proof]]
type = "main"
zkvm = "mock"
verify = "off"
[[proof.stage]]
name = "prove"
kind = "map"
timeout = "20s"
[[proof.stage]]
name = "aggregate"
kind = "range"
every = 4
close_after = "20s"
arity = 2
timeout = "20s"
[[proof.stage]]
name = "wrap"
kind = "map"
timeout = "20s"
"#;

/// A range has a trace of its own, which points to its blocks, as they point to it.
async fn range(eyes: &Eyes) {
    let adapters = [slow("p1", "150ms"), slow("p2", "150ms")];
    let (deployment, _file) = traced(eyes.endpoint(), "grpc", 7, ROLLUP, adapters).await;
    deployment.wait_emitted(&demo(), 2, PATIENCE).await;
    let has_all = |tree: &Tree| tree.has(&[("attempt aggregate", 3), ("attempt wrap", 1)]);
    let tree = eyes.whole("range", 7, has_all).await;
    let range = tree.root();
    assert_eq!(range.attribute("range.first"), Some("4"));
    for (name, count) in [
        ("stage aggregate", 1),
        ("task aggregate", 3),
        ("stage wrap", 1),
        ("range wait", 1),
    ] {
        assert_eq!(tree.named(name).count(), count, "{name} in {:#?}", tree.lines());
    }
    let mut blocks = BTreeSet::new();
    for number in 4..=7 {
        let has_all = |tree: &Tree| tree.has(&[("publish", 1), ("attempt prove", 1)]);
        let block = eyes.whole("block", number, has_all).await;
        let root = block.root();
        blocks.insert((root.trace.clone(), root.id.clone()));
        assert_eq!(
            block.one("range").links,
            [(range.trace.clone(), range.id.clone())]
        );
        assert_eq!(
            block.path(block.one("stage prove")),
            "block > proof main > stage prove"
        );
    }
    assert_eq!(range.links.iter().cloned().collect::<BTreeSet<_>>(), blocks);
}

#[tokio::test]
async fn a_block_is_one_connected_trace_over_grpc() {
    healthy(&Eyes::grpc().await, "grpc").await;
}

#[tokio::test]
async fn a_block_is_one_connected_trace_over_http() {
    let spans = Spans::default();
    let endpoint = receiver::over_http(&spans).await;
    healthy(&Eyes::Receiver(spans, endpoint), "http").await;
}

#[tokio::test]
async fn failed_attempts_are_in_the_trace_of_their_block() {
    retried(&Eyes::grpc().await).await;
}

#[tokio::test]
async fn both_copies_of_a_slow_attempt_are_in_the_trace() {
    hedged(&Eyes::grpc().await).await;
}

#[tokio::test]
async fn the_attempt_of_a_killed_prover_is_in_the_trace() {
    killed(&Eyes::grpc().await).await;
}

#[tokio::test]
async fn a_dead_block_is_an_error_from_its_root_down() {
    dead(&Eyes::grpc().await).await;
}

#[tokio::test]
async fn a_range_and_its_blocks_point_to_each_other() {
    range(&Eyes::grpc().await).await;
}

#[tokio::test]
async fn without_a_receiver_the_work_goes_on_at_the_same_pace_and_nobody_shouts() {
    // The port was free a moment ago and has no listener.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("port 0 is free");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    drop(listener);
    let adapters = [prover("p1"), prover("p2"), verifier("v1")];
    let (deployment, _file) = traced(&endpoint, "grpc", 200, &single("timeout = \"10s\""), adapters).await;
    let began = Instant::now();
    let emissions = deployment.wait_emitted(&demo(), 200, PATIENCE).await;
    let took = began.elapsed();
    println!("200 blocks of 20 ms on two provers took {} ms", took.as_millis());
    assert_complete_in_order(&emissions, 1..=200);
    // The proofs take two seconds; a blocking export would raise the total to five.
    assert!(took < Duration::from_secs(5), "{took:?}");
    settled(deployment.bus()).await;
    for label in ["p1", "p2", "v1"] {
        let log = deployment.service(label).log();
        let told: Vec<&str> = log.lines().filter(|line| line.contains("traces")).collect();
        assert!(told.len() <= 1, "one remark: {told:?}");
        assert!(
            told.iter().all(|line| line.contains("INFO")),
            "no alarm: {told:?}"
        );
    }
}
