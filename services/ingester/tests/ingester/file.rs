//! Tests of blocks from a file.

use crate::observed::{PATIENCE, deploy, events, not_ready, numbers, outcome, pipeline, published_up_to};
use push0_bus::{Limits, Stream};
use push0_domain::{BlockHash, Payload, subject};
use push0_harness::{Deployment, Process, synthetic_hash, wait_for};
use std::{fs::OpenOptions, io::Write, path::Path};

fn append(path: &Path, text: &str) {
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.expect("a file").write_all(text.as_bytes()).expect("written");
}

fn source(path: &Path) -> String {
    pipeline(
        "lines",
        &format!("kind = \"file\"\npath = \"{}\"", path.display()),
    )
}

#[tokio::test]
async fn a_growing_file_is_followed_across_restarts() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("blocks.jsonl");
    append(&path, "5\n6\n");
    let mut deployment = deploy(&[source(&path)]).await;
    published_up_to(&deployment, "lines", 6).await;
    let numbered: String = (7..=100).map(|number| format!("{number}\n")).collect();
    append(&path, &numbered);
    published_up_to(&deployment, "lines", 100).await;
    deployment.service("ingester").kill();
    // The last line is still incomplete.
    append(&path, "101\n{\"number\": 102, \"input\": \"0x0102\"}\n10");
    deployment.service_mut("ingester").restart();
    published_up_to(&deployment, "lines", 102).await;
    append(&path, "3\n");
    let published = published_up_to(&deployment, "lines", 103).await;
    assert_eq!(numbers(&published), (5..=103).collect::<Vec<_>>());
    let (wanted, _) = outcome(&published);
    let name = crate::observed::id("lines");
    assert!(
        wanted
            .iter()
            .all(|b| b.block.hash == synthetic_hash(&name, b.block.number))
    );
    assert_eq!(wanted[0].input, Payload::Inline(b"5".to_vec()));
    assert_eq!(wanted[97].input, Payload::Inline(vec![1, 2]));
}

#[tokio::test]
async fn a_bad_line_stops_there_until_the_file_changes() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("blocks.jsonl");
    let deployment = deploy(&[]).await;
    deployment.apply(&source(&path)).await;
    not_ready(&deployment, "No such file").await;
    append(&path, "1\n2\nthree\n4\n");
    not_ready(&deployment, "blocks.jsonl:3: `three` is no block").await;
    assert_eq!(numbers(&events(&deployment, "lines").await), [1, 2]);
    std::fs::write(&path, "1\n2\n4\n4\n").expect("written");
    not_ready(&deployment, "blocks.jsonl:3: block 4 does not follow: expected 3").await;
    std::fs::write(&path, "1\n2\n3\n4\n").expect("written");
    published_up_to(&deployment, "lines", 4).await;
    deployment.ready().await;
    std::fs::write(&path, "1\n").expect("written");
    not_ready(&deployment, "expected a file that only grows").await;
}

#[tokio::test]
async fn a_line_may_replace_blocks() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("blocks.jsonl");
    let other = BlockHash([7; 32]);
    append(
        &path,
        &format!("1\n2\n3\n{{\"number\": 2, \"hash\": \"{other}\"}}\n3\n"),
    );
    let deployment = deploy(&[source(&path)]).await;
    let events = wait_for("the second block 3", PATIENCE, async || {
        let events = events(&deployment, "lines").await;
        if events.len() == 6 {
            Ok(events)
        } else {
            Err(events.len())
        }
    })
    .await;
    let (wanted, cancels) = outcome(&events);
    assert_eq!(numbers(&events), [1, 2, 3]);
    assert_eq!(wanted[1].block.hash, other);
    assert_eq!(
        (cancels[0].first, cancels[0].last, cancels[0].hashes.len()),
        (2, 3, 2)
    );
}

#[tokio::test]
async fn a_full_stream_stops_ingestion_and_nothing_is_skipped() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("blocks.jsonl");
    let input = "ab".repeat(50_000);
    let lines: String = (1..=20)
        .map(|n| format!("{{\"number\": {n}, \"input\": \"0x{input}\"}}\n"))
        .collect();
    append(&path, "");
    // The stream's share is 15 % of the store: room for about eighteen of these blocks. The blobs' share has room for the
    // witnesses of all of them, and nothing removes any here.
    let limits = Limits {
        store_bytes: 6 << 20,
        ..Limits::default()
    };
    let ingester = Process::program("ingester");
    let deployment = Deployment::builder()
        .limits(limits)
        .pipeline(&source(&path))
        .service(ingester);
    let deployment = deployment.start().await;
    append(&path, &lines);
    not_ready(&deployment, "the store is full").await;
    let metrics = deployment.service("ingester").metrics().await;
    assert!(metrics.contains("push0_ingester_store_retries_total{pipeline=\"lines\",reason=\"full\"}"));
    let mut ingested = events(&deployment, "lines").await;
    let first = ingested.len();
    let subject = subject::block(&crate::observed::id("lines"));
    let purged = deployment.bus().purge(Stream::Blocks, &subject).await;
    assert_eq!(
        purged.expect("purged"),
        first as u64,
        "nothing comes while it is full"
    );
    let rest = wait_for("the rest", PATIENCE, async || {
        let there = events(&deployment, "lines").await;
        if there.len() + first == 20 {
            Ok(there)
        } else {
            Err(there.len())
        }
    })
    .await;
    ingested.extend(rest);
    assert_eq!(numbers(&ingested), (1..=20).collect::<Vec<_>>());
    deployment.ready().await;
    let log = deployment.service("ingester").log();
    assert!(
        log.matches("the store is full").count() == 1,
        "a change of state is one line:\n{log}"
    );
}
