//! Memory of an ingester is bounded in bytes for every input.

use crate::observed::{ethereum, pipeline, published_up_to};
use axum::{Router, body::Bytes, extract::State, routing::post};
use push0_bus::Limits;
use push0_harness::{Anvil, Deployment, Process, wait_for};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::task::JoinSet;

const MIB: usize = 1024 * 1024;
/// Limit of the memory, within the 64 MiB of a container: its pages and sockets count too.
const RESIDENT_MAX_MB: u64 = 40;
const PATIENCE: Duration = Duration::from_secs(30);

/// Returns the peak resident memory of the ingester, in MB.
fn resident_mb(deployment: &Deployment) -> u64 {
    let pid = deployment.service("ingester").pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
    let peak: u64 = peak.expect("the peak").parse().expect("a number");
    peak * 1024 / 1_000_000
}

async fn deploy(pipelines: &[String]) -> Deployment {
    let builder = Deployment::builder().limits(Limits {
        store_bytes: 4 << 30,
        ..Limits::default()
    });
    let builder = pipelines
        .iter()
        .fold(builder, |builder, toml| builder.pipeline(toml));
    let ingester = Process::program("ingester").env("PUSH0_SUBMIT__LISTEN", "127.0.0.1:0");
    builder.service(ingester).start().await
}

#[derive(Clone)]
struct Node {
    url: String,
    client: reqwest::Client,
}

/// Returns anvil's answers with padding that depends on the block's number: first just below the
/// limit for several answers at once, then as large as the largest block of Ethereum, 8 MiB of RLP
/// as hex digits.
async fn answer(State(node): State<Node>, body: Bytes) -> String {
    let asked = node
        .client
        .post(&node.url)
        .header("content-type", "application/json");
    let answer = asked.body(body.clone()).send().await.expect("anvil answers");
    let mut answer: Value = answer.json().await.expect("JSON");
    let asked: Value = serde_json::from_slice(&body).expect("JSON");
    if asked["params"][1] == json!(true) {
        let number = answer["result"]["number"].as_str().expect("a number").to_owned();
        let number = u64::from_str_radix(number.trim_start_matches("0x"), 16).expect("a number");
        let more = if number <= 20 { MIB - 10_000 } else { 17 * MIB };
        answer["result"]["extra"] = json!("x".repeat(more));
    }
    answer.to_string()
}

#[tokio::test]
async fn the_largest_blocks_are_held_one_at_a_time() {
    let anvil = Anvil::of_blocks(24).await;
    let node = Node {
        url: anvil.url().to_owned(),
        client: reqwest::Client::new(),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let mut servers = JoinSet::new();
    let router = Router::new().route("/", post(answer)).with_state(node);
    servers.spawn(async move { axum::serve(listener, router).await });
    let of = |name| ethereum(name, &url, "start = 1\nwitness = \"block\"");
    let deployment = deploy(&[of("one"), of("two")]).await;
    for name in ["one", "two"] {
        published_up_to(&deployment, name, 24).await;
    }
    let resident = resident_mb(&deployment);
    println!("{resident} MB");
    assert!(resident <= RESIDENT_MAX_MB, "{resident} MB");
}

/// Deploys a pipeline that takes blocks, and returns the address for its blocks once it has a leader.
async fn deploy_for_posts(client: &reqwest::Client) -> (Deployment, String) {
    let deployment = deploy(&[pipeline("posts", "kind = \"http\"")]).await;
    let address = wait_for("the address for blocks", PATIENCE, async || {
        let log = deployment.service("ingester").log();
        let line = log.lines().rfind(|line| line.contains("listening for blocks"))?;
        line.split("address=")
            .nth(1)
            .map(|address| address.trim().to_owned())
    })
    .await;
    let url = format!("http://{address}/v1/pipelines/posts/blocks");
    wait_for("a leader", PATIENCE, async || {
        let answer = client.get(&url).send().await.map_err(|error| error.to_string())?;
        if answer.status() == 200 {
            Ok(())
        } else {
            Err(answer.status().to_string())
        }
    })
    .await;
    (deployment, url)
}

#[tokio::test]
async fn large_submissions_wait_for_room() {
    let client = reqwest::Client::new();
    let (deployment, url) = deploy_for_posts(&client).await;
    // Eight submitters send the same block at once. Each body is read, and each one is accepted.
    let input = format!("0x{}", "ab".repeat(7 * MIB));
    let body = json!({ "number": 1, "input": input }).to_string();
    let posts = (0..8).map(|_| client.post(&url).body(body.clone()).send());
    for answer in futures::future::join_all(posts).await {
        assert_eq!(answer.expect("an answer").status().as_u16(), 202);
    }
    let resident = resident_mb(&deployment);
    println!("{resident} MB");
    assert!(resident <= RESIDENT_MAX_MB, "{resident} MB");
}

#[tokio::test]
async fn a_refused_body_takes_no_more_memory_than_an_accepted_one() {
    let client = reqwest::Client::new();
    let (deployment, url) = deploy_for_posts(&client).await;
    let text = "x".repeat(15 * MIB);
    for body in [
        // A list of elements of two bytes.
        format!("[{}0]", "0,".repeat(7 * MIB)),
        format!("{{\"{text}\": 1}}"),
        format!("{{\"number\": \"{text}\"}}"),
        format!("[1, {{\"{text}\": 1}}]"),
    ] {
        let answer = client.post(&url).body(body).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 400);
        let said = answer.text().await.expect("a reason");
        assert!(said.len() < 1000, "{} bytes", said.len());
    }
    let resident = resident_mb(&deployment);
    println!("{resident} MB");
    assert!(resident <= RESIDENT_MAX_MB, "{resident} MB");
}
