//! The gateway beside a deployment shows events, survives faults, and asks for tokens.

use axum::http::StatusCode;
use push0_harness::{Deployment, DeploymentBuilder, Process, ProcessBuilder, wait_for};
use push0_scenarios::{PATIENCE, demo, prover, single, verifier};
use reqwest::{Client, RequestBuilder};
use serde_json::Value;

const TOKENS: &str = "[[token]]\nname = \"reader\"\nrole = \"read\"\nsecret = \"reads-and-no-more\"\n\
                      [[token]]\nname = \"operator\"\nrole = \"operate\"\nsecret = \"operates-the-whole\"\n";

fn gateway(name: &str) -> ProcessBuilder {
    Process::program("gateway")
        .label(name)
        .env("PUSH0_GATEWAY__LISTEN", "127.0.0.1:0")
}

async fn deploy(gateways: impl IntoIterator<Item = ProcessBuilder>) -> Deployment {
    let builder = Deployment::builder()
        .as_shipped()
        .pipeline(&single("timeout = \"10s\""))
        .service(prover("p1"))
        .service(verifier("v1"));
    gateways
        .into_iter()
        .fold(builder, DeploymentBuilder::service)
        .start()
        .await
}

/// Returns the URL of the page, from the gateway's log.
async fn url(deployment: &Deployment, name: &str) -> String {
    let gateway = deployment.service(name);
    wait_for("the address of the page", PATIENCE, async || {
        let log = gateway.log();
        let line = log.lines().rfind(|line| line.contains("the page is served"))?;
        let start = line.find("http://")?;
        let url: String = line[start..]
            .chars()
            .take_while(|c| !"/\"".contains(*c) || *c == '/')
            .collect();
        Some(url.trim_end_matches(['/', '"', ' ']).to_owned())
    })
    .await
}

async fn json(request: RequestBuilder) -> Result<Value, String> {
    let answer = request.send().await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let body = answer.json().await.map_err(|error| error.to_string())?;
    if status == StatusCode::OK {
        Ok(body)
    } else {
        Err(format!("{status}: {body}"))
    }
}

async fn wait_proved(client: &Client, url: &str, number: u64) -> Value {
    let path = format!("{url}/api/v1/pipelines/demo/blocks/{number}");
    wait_for("a proved block on the page", PATIENCE, async || {
        let block = json(client.get(&path)).await?;
        if block["state"] == "proved" {
            Ok(block)
        } else {
            Err(block.to_string())
        }
    })
    .await
}

#[tokio::test]
async fn blocks_are_shown_while_they_are_proved_and_after_a_restart_of_gateway_and_broker() {
    let mut deployment = deploy([gateway("gateway")]).await;
    let client = Client::new();
    let page = url(&deployment, "gateway").await;
    let mut events = client
        .get(format!("{page}/api/v1/events"))
        .send()
        .await
        .expect("the stream");
    let first = events.chunk().await.expect("a chunk").expect("a first event");
    assert!(
        String::from_utf8_lossy(&first).contains("event: reset"),
        "{first:?}"
    );
    deployment.submit_blocks(&demo(), 1..=5).await;
    deployment.wait_emitted(&demo(), 5, PATIENCE).await;
    let block = wait_proved(&client, &page, 5).await;
    assert_eq!(
        (&block["prover"], &block["proofs"][0]["verifier"]),
        (&"p1".into(), &"v1".into()),
        "{block}"
    );
    let story = block["story"].to_string();
    for told in [
        "was announced",
        "began on p1",
        "was verified by v1",
        "The record was stored with 1 proof.",
    ] {
        assert!(story.contains(told), "{told}: {story}");
    }
    let mut told = String::new();
    while !told.contains("\"state\":\"proved\"") {
        let chunk = events
            .chunk()
            .await
            .expect("a chunk")
            .expect("a stream that goes on");
        told.push_str(&String::from_utf8_lossy(&chunk));
    }
    let proof = client.get(format!("{page}/api/v1/pipelines/demo/blocks/5/proofs/main"));
    assert!(
        !proof
            .send()
            .await
            .expect("an answer")
            .bytes()
            .await
            .expect("bytes")
            .is_empty()
    );

    deployment.service("gateway").kill();
    deployment.service_mut("gateway").restart();
    let before = page;
    let page = wait_for("another address", PATIENCE, async || {
        let page = url(&deployment, "gateway").await;
        (page != before).then_some(page)
    })
    .await;
    wait_proved(&client, &page, 5).await;

    deployment.nats.kill();
    deployment.nats.restart().await;
    deployment.submit_blocks(&demo(), 6..=8).await;
    deployment.wait_emitted(&demo(), 8, PATIENCE).await;
    wait_proved(&client, &page, 8).await;
}

#[tokio::test]
async fn a_token_is_needed_and_only_operators_cancel() {
    let folder = tempfile::TempDir::new().expect("a temporary directory");
    let tokens = folder.path().join("tokens.toml");
    std::fs::write(&tokens, TOKENS).expect("written");
    let gateway = gateway("gateway").env("PUSH0_GATEWAY__TOKENS_FILE", tokens.display());
    let deployment = deploy([gateway]).await;
    let client = Client::new();
    let page = url(&deployment, "gateway").await;
    let snapshot = || client.get(format!("{page}/api/v1/snapshot"));
    let refused = json(snapshot()).await.expect_err("no token");
    assert!(
        refused.starts_with("401") && refused.contains("A token is needed."),
        "{refused}"
    );
    let refused = json(snapshot().bearer_auth("reads-and-no-mor"))
        .await
        .expect_err("a wrong token");
    assert!(refused.starts_with("401"), "{refused}");
    json(snapshot().bearer_auth("reads-and-no-more"))
        .await
        .expect("a snapshot");
    let cancel = |secret: &str| {
        let body = serde_json::json!({ "first": 1, "last": 2, "note": "a trial" });
        let path = format!("{page}/api/v1/pipelines/demo/cancel");
        client.post(path).bearer_auth(secret).json(&body)
    };
    let refused = json(cancel("reads-and-no-more")).await.expect_err("a reader");
    assert!(
        refused.starts_with("403") && refused.contains("operate"),
        "{refused}"
    );
    let done = json(cancel("operates-the-whole")).await.expect("a cancel");
    assert_eq!(
        done["done"],
        "The cancellation of blocks 1 to 2 of demo is stored."
    );
    deployment.submit_blocks(&demo(), 1..=3).await;
    deployment.wait_emitted(&demo(), 3, PATIENCE).await;
}

#[tokio::test]
async fn an_open_address_without_tokens_is_refused_at_once() {
    let gateway = Process::program("gateway")
        .env("PUSH0_GATEWAY__LISTEN", "0.0.0.0:0")
        .start();
    let status = gateway.wait_exit(PATIENCE).await;
    assert_eq!(status.code(), Some(64), "{}", gateway.log());
    assert!(gateway.log().contains("gateway.listen"), "{}", gateway.log());
}
