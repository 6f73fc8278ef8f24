//! A misbehaving node: a proxy in front of anvil that changes the answers as a test asks.

use crate::observed::{deploy, ethereum, not_ready, numbers, published_up_to};
use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use push0_harness::{Anvil, Deployment};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tokio::task::JoinSet;

const SECRET: &str = "0123456789abcdef";

/// Change made by the proxy to the node's answer.
#[derive(Clone, Copy, Debug)]
enum Manner {
    Honest,
    Status(u16),
    Error(i64),
    AnotherRoot,
    AnotherNumber,
    Huge,
    Prose,
}

#[derive(Clone)]
struct Proxy {
    node: String,
    manner: Arc<Mutex<Manner>>,
}

async fn answer(State(proxy): State<Proxy>, body: Bytes) -> (StatusCode, String) {
    let manner = *proxy.manner.lock().expect("not poisoned");
    let asked = reqwest::Client::new()
        .post(&proxy.node)
        .header("content-type", "application/json");
    let text = asked
        .body(body)
        .send()
        .await
        .expect("anvil answers")
        .text()
        .await
        .expect("all of it");
    let mut answer: Value = serde_json::from_str(&text).expect("JSON");
    match manner {
        Manner::Honest => return (StatusCode::OK, text),
        Manner::Status(code) => return (StatusCode::from_u16(code).expect("a status"), text),
        Manner::Error(code) => {
            let message = format!("the key {SECRET} is used up");
            answer = json!({ "jsonrpc": "2.0", "id": 1, "error": { "code": code, "message": message } });
        }
        Manner::AnotherRoot => answer["result"]["stateRoot"] = json!(format!("0x{}", "11".repeat(32))),
        Manner::AnotherNumber => answer["result"]["number"] = json!("0x3e8"),
        Manner::Huge => answer["result"]["extra"] = json!("x".repeat(33 * 1024 * 1024)),
        Manner::Prose => return (StatusCode::OK, "come back later".to_owned()),
    }
    (StatusCode::OK, answer.to_string())
}

/// Returns the number of connections opened by the ingester to the node.
async fn opened(deployment: &Deployment) -> u64 {
    let metrics = deployment.service("ingester").metrics().await;
    let series = "push0_ingester_connections_opened_total{pipeline=\"demo\"} ";
    let value = metrics.lines().find_map(|line| line.strip_prefix(series));
    value.expect("the metric").parse().expect("a number")
}

#[tokio::test]
async fn nonsense_and_refusals_are_waited_out_and_keys_are_never_shown() {
    let anvil = Anvil::start(None).await;
    anvil.mine(1).await;
    let manner = Arc::new(Mutex::new(Manner::Honest));
    let proxy = Proxy {
        node: anvil.url().to_owned(),
        manner: Arc::clone(&manner),
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let address = listener.local_addr().expect("an address");
    let router = Router::new().route("/v3/{key}", post(answer)).with_state(proxy);
    let mut servers = JoinSet::new();
    servers.spawn(async move { axum::serve(listener, router).await });
    let url = format!("http://user:{SECRET}2@{address}/v3/{SECRET}");
    let deployment = deploy(&[ethereum("demo", &url, "start = 1")]).await;
    published_up_to(&deployment, "demo", 1).await;
    let expected = [
        (Manner::Status(429), "too many requests for this node"),
        (Manner::Status(502), "answered with HTTP status 502"),
        (Manner::Error(-32005), "too many requests for this node"),
        (Manner::Error(-32000), "the key *** is used up"),
        (Manner::AnotherRoot, "but its header hashes to"),
        (Manner::AnotherNumber, "a nonsense answer: block"),
        (Manner::Prose, "a nonsense answer: not JSON-RPC"),
        // The last case, because it costs its connection: the answer is not read to its end.
        (
            Manner::Huge,
            "an answer of more than 32 MiB, the limit source.answer_max_mib",
        ),
    ];
    for (number, (bad, said)) in (2..).zip(expected) {
        let opened = opened(&deployment).await;
        assert!(opened <= 4, "{opened} connections before {bad:?}");
        *manner.lock().expect("not poisoned") = bad;
        anvil.mine(1).await;
        not_ready(&deployment, said).await;
        *manner.lock().expect("not poisoned") = Manner::Honest;
        let published = published_up_to(&deployment, "demo", number).await;
        assert_eq!(numbers(&published), (1..=number).collect::<Vec<_>>());
        deployment.ready().await;
    }
    let log = deployment.service("ingester").log();
    assert!(!log.contains(SECRET), "{log}");
    assert!(
        log.contains(&format!("http://{address}: ")),
        "the node is named without its secrets:\n{log}"
    );
}
