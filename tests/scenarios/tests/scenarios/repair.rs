//! Stored state that cannot be read: its pipeline stands still and says so, all others go on, and `push0 repair`
//! mends it.

use push0_bus::{Bucket, Message};
use push0_domain::{PipelineId, codec::Encoding, subject, trace::TraceContext};
use push0_harness::{Broker, Deployment, assert_complete_in_order, wait_for};
use push0_scenarios::{PATIENCE, demo, prover, push0, single, verifier};
use serde_json::{Value, json};
use std::{fmt::Write as _, path::Path};

fn named(name: &str) -> (PipelineId, String) {
    let text = single("timeout = \"10s\"").replace("name = \"demo\"", &format!("name = \"{name}\""));
    (name.parse().expect("a name"), text)
}

/// Waits until a process of a program names a reason for which it is not ready.
async fn stands<B: Broker>(deployment: &Deployment<B>, program: &str, reason: &str) {
    let leader = deployment.leader(program).await;
    deployment.service(&leader).not_ready(reason, PATIENCE).await;
}

fn write_blocks(path: &Path, last: u64) {
    let lines = (1..=last).fold(String::new(), |mut lines, number| {
        writeln!(lines, "{number}").expect("it can be written");
        lines
    });
    std::fs::write(path, lines).expect("the file is written");
}

#[tokio::test]
async fn unreadable_state_stops_its_pipeline_alone_until_it_is_mended() {
    let folder = tempfile::tempdir().expect("a directory");
    let blocks = folder.path().join("blocks.jsonl");
    write_blocks(&blocks, 5);
    let (steady, steady_text) = named("steady");
    let (lines, lines_text) = named("lines");
    let source = format!("{{ kind = \"file\", path = {:?} }}", blocks.display().to_string());
    let lines_text = lines_text.replace("{ kind = \"external\" }", &source);
    let (_, demo_text) = named("demo");
    let builder = Deployment::builder().as_shipped();
    let builder = [&steady_text, &lines_text, &demo_text]
        .into_iter()
        .fold(builder, |builder, text| builder.pipeline(text));
    let deployment = builder
        .service(prover("p1"))
        .service(verifier("v1"))
        .start()
        .await;
    let (bus, demo) = (deployment.bus(), demo());
    for pipeline in [&steady, &demo] {
        deployment.submit_blocks(pipeline, 1..=5).await;
    }
    for pipeline in [&steady, &demo, &lines] {
        deployment.wait_emitted(pipeline, 5, PATIENCE).await;
    }

    let none = TraceContext::default();
    let damaged = subject::proof(&demo, 6);
    let record = Message::encoded(damaged.clone(), &json!({}), &none, Encoding::Json);
    bus.publish(record.expect("it can be written"))
        .await
        .expect("stored");
    let facts = bus.facts::<Value>(Bucket::State).await.expect("a bucket");
    for key in [
        "cursor.ingester.lines",
        "leader.dispatcher",
        "leader.collector.steady",
        "leader.collector.demo",
        "quarantine.mock.p9",
    ] {
        facts.put(key, &json!({})).await.expect("stored");
    }
    // A dispatcher with work for a pipeline reads the pipeline's output, and forgets the output with its lead.
    wait_for("a leader that wrote over the garbage", PATIENCE, async || {
        let fact = facts
            .get("leader.dispatcher")
            .await
            .map_err(|error| error.to_string())?;
        match fact.and_then(|fact| fact.value) {
            Some(holder) if holder != json!({}) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    deployment.submit_blocks(&demo, 6..=8).await;
    stands(&deployment, "collector", &damaged).await;
    stands(&deployment, "dispatcher", &damaged).await;
    let definitions = bus.facts::<Value>(Bucket::Pipelines).await.expect("a bucket");
    definitions.put("demo.current", &json!({})).await.expect("stored");
    write_blocks(&blocks, 8);
    stands(&deployment, "collector", "push0_pipelines/demo.current").await;
    for ingester in deployment.instances("ingester") {
        ingester.not_ready("push0_pipelines/demo.current", PATIENCE).await;
    }
    deployment.submit_blocks(&steady, 6..=20).await;
    let emitted = deployment.wait_emitted(&steady, 20, PATIENCE).await;
    assert_complete_in_order(&emitted, 1..=20);

    let shown = push0(&deployment, &["blocks", "--pipeline", "demo"]).await;
    assert!(shown.contains(&*damaged), "{shown}");
    let kept = folder.path().join("kept.jsonl");
    let kept_text = kept.display().to_string();
    push0(&deployment, &["repair", "--apply", "--keep", &kept_text]).await;
    let kept = std::fs::read_to_string(&kept).expect("the removed bytes");
    for name in [
        &damaged,
        "demo.current",
        "cursor.ingester.lines",
        "quarantine.mock.p9",
    ] {
        assert!(kept.contains(name), "{name} is not in {kept}");
    }
    for (pipeline, last) in [(&demo, 8), (&lines, 8)] {
        let emitted = deployment.wait_emitted(pipeline, 8, PATIENCE).await;
        assert_complete_in_order(&emitted, 1..=last);
    }
    deployment.ready().await;
    push0(&deployment, &["repair"]).await;
}
