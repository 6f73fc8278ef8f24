//! Reply subjects: the broker checks the subject of a request and answers to any reply subject with its own rights.
//!
//! The answer stays in the account of the one who asked. So it reaches no stream, no other account, and of its neighbours
//! only those who listen on the very subject; such an answer is marked as a copy of a stored message, or is no order.

use push0_domain::{message::Control, subject::ROOT};
use push0_harness::{Deployment, NatsCluster};
use push0_hostile::{
    Client, MEMBERS, PATIENCE, SOON, blob, brokers, client_of, control, presence, report, verdict,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Every stream with the number of its last message, as the user `test` sees it.
async fn state(test: &mut Client) -> BTreeMap<String, u64> {
    let list = test
        .request("$JS.API.STREAM.LIST", &[], b"", PATIENCE)
        .await
        .expect("an answer");
    let list: Value = serde_json::from_slice(&list.body).expect("JSON");
    let streams = list["streams"].as_array().expect("streams").iter();
    streams
        .map(|stream| {
            let name = stream["config"]["name"].as_str().expect("a name").to_owned();
            (name, stream["state"]["last_seq"].as_u64().expect("a number"))
        })
        .collect()
}

/// Subjects that an attacker would have the broker write to.
fn targets() -> Vec<String> {
    vec![
        format!("{ROOT}.proof.mock.4"),
        format!("{ROOT}.block.mock"),
        format!("{ROOT}.cancel.mock"),
        format!("{ROOT}.stage.mock.x"),
        format!("{ROOT}.ended.mock"),
        format!("{ROOT}.dead.mock.x"),
        format!("{ROOT}.event._.x"),
        format!("{ROOT}.lease.mock.p1"),
        format!("{ROOT}.lease.miden.p2"),
        report("result", "mock", "p1", "_"),
        report("result", "miden", "p2", "_"),
        report("check", "mock", "p1", "_"),
        verdict("mock", "v0"),
        verdict("miden", "v0"),
        control("mock", "p1"),
        control("miden", "p2"),
        presence("mock", "p1"),
        blob("mock", "p1").1,
        "$KV.push0_pipelines.mock.2".into(),
        "$KV.push0_state.leader.dispatcher".into(),
        "$KV.push0_seals.key".into(),
        "$JS.API.STREAM.DELETE.PUSH0_PROOFS".into(),
        "$JS.API.STREAM.PURGE.PUSH0_RESULTS".into(),
        "$JS.ACK.PUSH0_TASKS.prover-mock.1.1.1.1.0".into(),
        "$JS.ACK.PUSH0_TASKS.prover-miden.1.1.1.1.0".into(),
    ]
}

/// Requests that a member of this name may send: kind, subject, body.
fn requests(name: &str, zkvm: &str, is_prover: bool) -> Vec<(&'static str, String, Vec<u8>)> {
    let api = push0_accounts::API_PREFIX;
    let (stream, part) = blob(zkvm, "p0");
    let (tasks, consumer) = if is_prover {
        ("PUSH0_TASKS", format!("prover-{zkvm}"))
    } else {
        ("PUSH0_CHECKS", format!("verifier-{zkvm}"))
    };
    let own = format!("{ROOT}.lease.{zkvm}.{name}");
    let get = json!({ "last_by_subj": part }).to_string();
    vec![
        (
            "a direct get",
            format!("{api}.DIRECT.GET.{stream}.{part}"),
            Vec::new(),
        ),
        (
            "a leader get",
            format!("{api}.STREAM.MSG.GET.{stream}"),
            get.clone().into_bytes(),
        ),
        ("an acknowledged publish", own, b"x".to_vec()),
        (
            "a question about its consumer",
            format!("{api}.CONSUMER.INFO.{tasks}.{consumer}"),
            Vec::new(),
        ),
        (
            "a request for work",
            format!("{api}.CONSUMER.MSG.NEXT.{tasks}.{consumer}"),
            br#"{"batch":1,"expires":100000000,"group":"work"}"#.to_vec(),
        ),
    ]
}

/// Stores a part of a blob whose content is an order.
async fn store_an_order(deployment: &Deployment<NatsCluster>) {
    let mut test = client_of(deployment, "test", 0).await;
    let (_, part) = blob("mock", "p0");
    let order = serde_json::to_vec(&Control::Drain).expect("JSON");
    let stored = test
        .request(&part, &[("Push0-Encoding", "json")], &order, PATIENCE)
        .await;
    assert!(
        stored.is_some_and(|stored| stored.text().contains("\"seq\"")),
        "the part is stored"
    );
}

async fn no_answer_reaches_another(count: usize) {
    let deployment = brokers(count).await;
    store_an_order(&deployment).await;
    let mut test = client_of(&deployment, "test", 0).await;
    let victim = deployment.bus_as("p1").await;
    let subjects = [control("mock", "p1"), presence("mock", "p1")];
    let mut victim = victim.listen(subjects).await.expect("it listens");
    for (at, (name, role, zkvm)) in MEMBERS
        .into_iter()
        .enumerate()
        .filter(|(_, (name, ..))| *name != "p1")
    {
        let mut attacker = client_of(&deployment, name, at).await;
        let is_prover = role == push0_domain::message::Role::Prover;
        let before = state(&mut test).await;
        for target in targets() {
            for (what, subject, body) in requests(name, zkvm, is_prover) {
                let refused = attacker.publish(&subject, &target, &[], &body).await;
                let is_ack = target.starts_with("$JS.ACK");
                assert_eq!(
                    refused.is_empty(),
                    !is_ack,
                    "{name}: {what} with the reply {target}: {refused:?}"
                );
            }
        }
        // A request whose answer the attacker gets comes after all others of its connection.
        let (_, last, _) = requests(name, zkvm, is_prover).swap_remove(3);
        assert!(
            attacker.request(&last, &[], b"", PATIENCE).await.is_some(),
            "{name} is served"
        );
        let mut after = state(&mut test).await;
        // The attacker's own lease is the message whose acknowledgement was used.
        after.insert("PUSH0_LEASES".into(), before["PUSH0_LEASES"]);
        assert_eq!(before, after, "{name}: a stream has another message, or is gone");
    }
    let lease = format!("{ROOT}.lease.mock.p1");
    let get = json!({ "last_by_subj": lease }).to_string();
    let stored = test
        .request(
            "$JS.API.STREAM.MSG.GET.PUSH0_LEASES",
            &[],
            get.as_bytes(),
            PATIENCE,
        )
        .await;
    let stored = stored.expect("an answer").text();
    assert!(
        stored.contains("no message found"),
        "the lease of p1 was written: {stored}"
    );
    loop {
        let Ok(heard) = tokio::time::timeout(SOON, victim.next()).await else {
            break;
        };
        let heard = heard.expect("a message");
        assert!(
            heard.body::<Control>().is_err(),
            "the victim gets an order: {:?}",
            heard.body::<Control>()
        );
    }
    deployment.expect_refusals();
}

#[tokio::test]
async fn no_reply_subject_makes_the_broker_write_for_a_member() {
    no_answer_reaches_another(1).await;
}

#[tokio::test]
async fn no_reply_subject_makes_the_broker_write_for_a_member_on_three_brokers() {
    no_answer_reaches_another(3).await;
}
