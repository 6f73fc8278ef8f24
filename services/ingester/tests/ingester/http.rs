//! Tests of blocks posted by HTTP.

use crate::observed::{PATIENCE, deploy, numbers, outcome, pipeline, published_up_to};
use push0_domain::BlockHash;
use push0_harness::{Deployment, Process, wait_for};
use serde_json::{Value, json};
use std::time::Duration;

/// Returns the address for submissions to this process, taken from the log.
async fn address(process: &Process) -> String {
    wait_for("the address for blocks", PATIENCE, async || {
        let log = process.log();
        let line = log
            .lines()
            .rfind(|line| line.contains("listening for blocks"))?
            .to_owned();
        line.split("address=")
            .nth(1)
            .map(|address| address.trim().to_owned())
    })
    .await
}

pub(crate) async fn submit(deployment: &Deployment, pipeline: &str, body: &str) -> (u16, Value) {
    let url = format!(
        "http://{}/v1/pipelines/{pipeline}/blocks",
        address(deployment.service("ingester")).await
    );
    let sent = reqwest::Client::new()
        .post(url)
        .body(body.to_owned())
        .send()
        .await;
    let Ok(response) = sent else {
        // The process does not listen yet, or its log names an address from before a restart.
        return (0, Value::Null);
    };
    let status = response.status().as_u16();
    if status == 503 {
        assert_eq!(response.headers()["retry-after"], "1");
    }
    (status, response.json().await.unwrap_or_default())
}

/// Submits once the pipeline has a leader.
pub(crate) async fn submit_patiently(deployment: &Deployment, pipeline: &str, body: &str) -> (u16, Value) {
    wait_for("a leader", PATIENCE, async || {
        match submit(deployment, pipeline, body).await {
            (0 | 503 | 404, body) => Err(body),
            answer => Ok(answer),
        }
    })
    .await
}

#[tokio::test]
async fn submitted_blocks_are_stored_before_they_are_accepted() {
    let mut deployment = deploy(&[pipeline("posts", "kind = \"http\"")]).await;
    let (status, body) = submit_patiently(&deployment, "posts", "7").await;
    assert_eq!((status, body), (202, json!({ "accepted": 1 })));
    let many: Vec<u64> = (8..=507).collect();
    let (status, body) = submit(&deployment, "posts", &json!(many).to_string()).await;
    assert_eq!((status, body), (202, json!({ "accepted": 500 })));
    assert_eq!(
        numbers(&crate::observed::events(&deployment, "posts").await),
        (7..=507).collect::<Vec<_>>()
    );
    deployment.service_mut("ingester").restart();
    // Accepted blocks may be sent again, together with the next one.
    let (status, body) = submit_patiently(&deployment, "posts", "[506, 507, 508]").await;
    assert_eq!((status, body), (202, json!({ "accepted": 3 })));
    let published = published_up_to(&deployment, "posts", 508).await;
    assert_eq!(published.len(), 502);
}

#[tokio::test]
async fn a_refused_submission_says_what_was_expected() {
    let more = pipeline("lines", "kind = \"file\"\npath = \"nowhere\"");
    let deployment = deploy(&[pipeline("posts", "kind = \"http\"")]).await;
    deployment.apply(&more).await;
    assert_eq!(submit_patiently(&deployment, "posts", "1").await.0, 202);
    let too_many = json!((2..=1002).collect::<Vec<u64>>()).to_string();
    for (pipeline, body, status, said) in [
        (
            "posts",
            "[2, {\"number\": \"x\"}]",
            400,
            "blocks[1]: invalid type",
        ),
        (
            "posts",
            "nothing",
            400,
            "`nothing` is no block: expected a block number",
        ),
        ("posts", "", 400, "is no block"),
        ("posts", "[]", 400, "0 blocks: expected 1 to 1000"),
        ("posts", too_many.as_str(), 400, "1001 blocks"),
        (
            "posts",
            "[2, 4]",
            409,
            "blocks[1]: block 4 does not follow: expected 3",
        ),
        ("posts", "0", 409, "block 0 does not follow: expected 2"),
        ("lines", "1", 404, "no pipeline `lines` takes blocks by HTTP"),
        ("nobody", "1", 404, "no pipeline `nobody`"),
        ("No.body", "1", 404, "no pipeline"),
    ] {
        let (answered, body) = submit(&deployment, pipeline, body).await;
        let error = body["error"].as_str().unwrap_or_default();
        assert!(answered == status && error.contains(said), "{answered}: {body}");
    }
    let huge = " ".repeat(17 * 1024 * 1024);
    assert_eq!(submit(&deployment, "posts", &huge).await.0, 413);
    assert_eq!(
        numbers(&crate::observed::events(&deployment, "posts").await),
        [1],
        "all or none"
    );
}

#[tokio::test]
async fn another_hash_replaces_and_cancels() {
    let deployment = deploy(&[pipeline("posts", "kind = \"http\"")]).await;
    assert_eq!(submit_patiently(&deployment, "posts", "[1, 2, 3]").await.0, 202);
    let hash = BlockHash([9; 32]);
    let other = json!({ "number": 2, "hash": hash.to_string(), "input": "0xff" }).to_string();
    assert_eq!(submit(&deployment, "posts", &other).await.0, 202);
    let orphan = json!({ "number": 3, "parent_hash": BlockHash([8; 32]).to_string() }).to_string();
    let (status, body) = submit(&deployment, "posts", &orphan).await;
    assert!(
        status == 409
            && body["error"]
                .as_str()
                .is_some_and(|e| e.contains("has the parent")),
        "{body}"
    );
    let (wanted, cancels) = outcome(&crate::observed::events(&deployment, "posts").await);
    assert_eq!(wanted.last().map(|block| block.block.hash), Some(hash));
    assert_eq!(
        cancels.iter().map(|c| (c.first, c.last)).collect::<Vec<_>>(),
        [(2, 3)]
    );
}

#[tokio::test]
async fn the_process_that_leads_takes_blocks_and_the_other_one_says_so() {
    let mut deployment = deploy(&[pipeline("posts", "kind = \"http\"")]).await;
    assert_eq!(submit_patiently(&deployment, "posts", "1").await.0, 202);
    let standby = Process::program("ingester").label("standby");
    deployment.start_service(standby.env("PUSH0_SUBMIT__LISTEN", "127.0.0.1:0"));
    deployment.ready().await;
    let mut urls = Vec::new();
    for label in ["ingester", "standby"] {
        let address = address(deployment.service(label)).await;
        urls.push(format!("http://{address}/v1/pipelines/posts/blocks"));
    }
    let client = reqwest::Client::new();
    let leads = async |url: &str| {
        client
            .get(url)
            .send()
            .await
            .map(|answer| answer.status().as_u16())
    };
    assert_eq!(leads(&urls[0]).await.expect("an answer"), 200);
    assert_eq!(leads(&urls[1]).await.expect("an answer"), 503);
    let answer = client.post(&urls[1]).body("2").send().await.expect("an answer");
    // On another connection, the next attempt may reach the leader.
    assert_eq!(
        (
            answer.status().as_u16(),
            &answer.headers()["retry-after"],
            &answer.headers()["connection"]
        ),
        (
            503,
            &"1".parse().expect("a value"),
            &"close".parse().expect("a value")
        )
    );
    deployment.service("ingester").kill();
    wait_for("the standby's lead", PATIENCE, async || {
        leads(&urls[1]).await.ok() == Some(200)
    })
    .await;
    let answer = client
        .post(&urls[1])
        .body("[1, 2]")
        .send()
        .await
        .expect("an answer");
    assert_eq!(answer.status().as_u16(), 202);
    assert_eq!(numbers(&published_up_to(&deployment, "posts", 2).await), [1, 2]);
}

#[tokio::test]
async fn strangers_and_pages_of_other_origins_are_refused() {
    let token = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(token.path(), "secret\n").expect("written");
    let ingester = Process::program("ingester")
        .env("PUSH0_SUBMIT__LISTEN", "127.0.0.1:0")
        .env("PUSH0_SUBMIT__TOKEN_FILE", token.path().display());
    let builder = Deployment::builder().pipeline(&pipeline("posts", "kind = \"http\""));
    let deployment = builder.service(ingester).start().await;
    let address = address(deployment.service("ingester")).await;
    let url = format!("http://{address}/v1/pipelines/posts/blocks");
    let client = reqwest::Client::new();
    let post = async |headers: &[(&'static str, &str)], body: &str| {
        let request = client.post(&url).body(body.to_owned());
        let request = headers
            .iter()
            .fold(request, |request, (name, value)| request.header(*name, *value));
        request.send().await.expect("an answer").status().as_u16()
    };
    let good = ("authorization", "Bearer secret");
    wait_for("a leader", PATIENCE, async || post(&[good], "1").await == 202).await;
    assert_eq!(post(&[], "2").await, 401);
    assert_eq!(post(&[("authorization", "Bearer other")], "2").await, 401);
    assert_eq!(post(&[good, ("origin", "http://evil.example")], "2").await, 403);
    assert_eq!(post(&[good, ("content-type", "text/plain")], "2").await, 415);
    // 2^53 + 1 would be 2^53 for many a reader.
    assert_eq!(post(&[good], "9007199254740993").await, 400);
    let own = format!("http://{address}");
    assert_eq!(post(&[good, ("origin", &own)], "2").await, 202);
}

#[tokio::test]
async fn silent_clients_and_slow_bodies_keep_nobody_waiting() {
    use tokio::{io::AsyncWriteExt, net::TcpStream};
    let deployment = deploy(&[pipeline("posts", "kind = \"http\"")]).await;
    assert_eq!(submit_patiently(&deployment, "posts", "1").await.0, 202);
    let address = address(deployment.service("ingester")).await;
    let mut clients = Vec::new();
    for number in 0..100 {
        let mut client = TcpStream::connect(&address).await.expect("it connects");
        // A head without an end, and a body that holds a quarter of the room.
        let sent = match number % 2 {
            0 => "POST /v1/pipelines/posts/blocks HTTP/1.1\r\nHost: x\r\n",
            _ => "POST /v1/pipelines/posts/blocks HTTP/1.1\r\nHost: x\r\nContent-Length: 4194304\r\n\r\n[",
        };
        client.write_all(sent.as_bytes()).await.expect("sent");
        clients.push(client);
    }
    let large = json!([{ "number": 2, "input": format!("0x{}", "00".repeat(100_000)) }]).to_string();
    let submitted = tokio::time::timeout(Duration::from_secs(15), submit(&deployment, "posts", &large));
    assert_eq!(submitted.await.expect("an answer in time").0, 202);
}
