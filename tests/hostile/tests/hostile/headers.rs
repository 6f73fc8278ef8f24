//! Headers: permissions know none, so every user sends every guard of the broker to every stream that it may write, on
//! three copies. No stream loses a message or dies.

use push0_domain::subject::ROOT;
use push0_hostile::{ATTEMPT, Client, PATIENCE, blob, brokers, client_of, key_of, report, verdict};
use serde_json::Value;

/// Sets of headers, each of them one attack.
const ATTACKS: [&[(&str, &str)]; 18] = [
    &[("Nats-Expected-Last-Msg-Id", "nope")],
    &[("Nats-Expected-Stream", "nope")],
    &[("Nats-Expected-Last-Sequence", "4711")],
    &[("Nats-Expected-Last-Sequence", "x")],
    &[("Nats-Expected-Last-Subject-Sequence", "4711")],
    &[
        ("Nats-Expected-Last-Subject-Sequence", "1"),
        ("Nats-Expected-Last-Subject-Sequence-Subject", ">"),
    ],
    &[("Nats-Rollup", "all")],
    &[("Nats-Rollup", "sub")],
    &[("Nats-Rollup", "x")],
    &[("Nats-TTL", "1s")],
    &[("Nats-TTL", "-1")],
    &[("Nats-Incr", "1")],
    &[("Nats-Marker-Reason", "MaxAge")],
    &[
        ("Nats-Schedule", "@every 1s"),
        ("Nats-Schedule-Target", "$KV.push0_state.leader.dispatcher"),
    ],
    &[
        ("Nats-Schedule", "@at 2020-01-01T00:00:00Z"),
        ("Nats-Schedule-Target", "x"),
    ],
    &[("Nats-Batch-Id", "b"), ("Nats-Batch-Sequence", "1")],
    &[
        ("Nats-Batch-Id", "b"),
        ("Nats-Batch-Sequence", "1"),
        ("Nats-Batch-Commit", "1"),
        ("Nats-Expected-Last-Msg-Id", "x"),
    ],
    &[("KV-Operation", "PURGE"), ("Nats-Rollup", "sub")],
];

/// A subject of each stream that a user may write: user, stream, subject.
fn writable(key_of: impl Fn(&str) -> String) -> Vec<(&'static str, &'static str, String)> {
    let blobs = blob("mock", "p0");
    vec![
        (
            "p0",
            "PUSH0_RESULTS",
            report("result", "mock", "p0", &key_of("p0")),
        ),
        ("p0", "PUSH0_CHECKS", report("check", "mock", "p0", &key_of("p0"))),
        ("p0", "PUSH0_LEASES", format!("{ROOT}.lease.mock.p0")),
        ("p0", blobs.0, blobs.1),
        (
            "p2",
            "PUSH0_RESULTS",
            report("result", "miden", "p2", &key_of("p2")),
        ),
        ("v0", "PUSH0_RESULTS", verdict("mock", "v0")),
        ("v0", "PUSH0_LEASES", format!("{ROOT}.lease.mock.v0")),
        ("ingester", "PUSH0_BLOCKS", format!("{ROOT}.block.mock")),
        (
            "ingester",
            "KV_push0_blocks",
            "$KV.push0_blocks.mock.7.00000000".into(),
        ),
        ("dispatcher", "PUSH0_TASKS", format!("{ROOT}.task.mock.{ATTEMPT}")),
        ("dispatcher", "PUSH0_DEAD", format!("{ROOT}.dead.mock.x")),
        (
            "collector",
            "PUSH0_STAGES",
            format!("{ROOT}.stage.mock.{ATTEMPT}"),
        ),
        ("collector", "PUSH0_PROOFS", format!("{ROOT}.proof.mock.7")),
        (
            "watchdog",
            "KV_push0_state",
            "$KV.push0_state.quarantine.mock.p0".into(),
        ),
        ("watchdog", "PUSH0_EVENTS", format!("{ROOT}.event._.prover-lost")),
        (
            "operator",
            "KV_push0_pipelines",
            "$KV.push0_pipelines.mock.9".into(),
        ),
    ]
}

async fn messages(test: &mut Client, stream: &str) -> u64 {
    let subject = format!("$JS.API.STREAM.INFO.{stream}");
    let info = test
        .request(&subject, &[], b"", PATIENCE)
        .await
        .expect("an answer");
    let info: Value = serde_json::from_slice(&info.body).expect("JSON");
    info["state"]["messages"]
        .as_u64()
        .unwrap_or_else(|| unreachable!("{stream}: {info}"))
}

async fn no_header_harms_a_stream(count: usize) {
    let deployment = brokers(count).await;
    let mut test = client_of(&deployment, "test", 0).await;
    for (at, (user, stream, subject)) in writable(|user| key_of(&deployment, user)).into_iter().enumerate() {
        // A message of another, which must stay.
        let other = if stream.starts_with("KV_") || stream.starts_with("OBJ_") {
            format!("{subject}-other")
        } else {
            let (head, _) = subject.rsplit_once('.').expect("a subject");
            format!("{head}.99")
        };
        let stored = test
            .request(&other, &[], b"precious", PATIENCE)
            .await
            .expect("an answer")
            .text();
        assert!(stored.contains("\"seq\""), "{other}: {stored}");
        let before = messages(&mut test, stream).await;
        let mut attacker = client_of(&deployment, user, at).await;
        for headers in ATTACKS {
            attacker.publish(&subject, "", headers, b"x").await;
        }
        // The stream still takes messages, from the one who attacked and from others, and lost none.
        for (who, client) in [("the attacker", &mut attacker), ("another", &mut test)] {
            let answer = client.request(&subject, &[], b"y", PATIENCE).await;
            let answer = answer
                .unwrap_or_else(|| unreachable!("{stream} does not answer {who}"))
                .text();
            let is_alive =
                answer.contains("\"seq\"") || answer.contains("maximum messages per subject exceeded");
            assert!(
                is_alive,
                "{stream} takes nothing of {who} after the attacks of {user}: {answer}"
            );
        }
        let after = messages(&mut test, stream).await;
        // A key of a bucket is deleted by a rollup, so a writer of keys can empty the bucket: only control services write them.
        // The same holds for the object store, until a plain stream replaces it.
        let takes_rollups = stream.starts_with("KV_") || stream.starts_with("OBJ_");
        assert!(
            takes_rollups || after >= before,
            "{stream}: {user} removed {} messages",
            before - after
        );
    }
    deployment.expect_refusals();
}

#[tokio::test]
async fn no_header_of_any_user_harms_a_stream() {
    no_header_harms_a_stream(1).await;
}

#[tokio::test]
async fn no_header_of_any_user_harms_a_stream_of_three_copies() {
    no_header_harms_a_stream(3).await;
}
