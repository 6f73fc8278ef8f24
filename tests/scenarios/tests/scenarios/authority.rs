//! Reports and leases that are not to be believed change nothing, and are counted.

use push0_bus::{Bus, Message};
use push0_domain::{
    Payload, Payloads, ProverId, Timestamp,
    message::{
        BlockEnded, EndReason, Failure, FailureClass, Held, Lease, Outcome, ProverState, ResultEvent, Role,
        TaskHeader, TaskResult,
    },
    subject::{self, AttemptKey},
    trace::TraceContext,
};
use push0_harness::{assert_complete_in_order, wait_for};
use push0_scenarios::{
    PATIENCE, count_of, dead_letters, demo, deploy, proofs, prover, running, settled, single, verifier,
};
use serde::Serialize;

fn id(name: &str) -> ProverId {
    name.parse().expect("a name")
}

async fn say<T: Serialize>(bus: &Bus, subject: String, body: &T) {
    let message = Message::new(subject, body, &TraceContext::default()).expect("it can be written");
    bus.publish(message).await.expect("it is stored");
}

fn fatal(header: &TaskHeader) -> ResultEvent {
    ResultEvent::Attempt(TaskResult {
        header: header.clone(),
        prover: id("p1"),
        outcome: Outcome::Failed(Failure::new(FailureClass::Fatal, "forged")),
        inputs: None,
        prove_us: 1,
        transfer_us: 0,
        waited_us: 0,
        signature: None,
        verdict: None,
    })
}

/// Returns forged reports on an attempt, each with its subject.
fn forged(header: &TaskHeader) -> Vec<(String, ResultEvent)> {
    let key = header.key();
    let changed = |change: &dyn Fn(&mut TaskHeader)| {
        let mut header = header.clone();
        change(&mut header);
        (subject::result(&id("p1"), &header.key(), None), fatal(&header))
    };
    let mut completed = fatal(header);
    if let ResultEvent::Attempt(result) = &mut completed {
        result.outcome = Outcome::Completed {
            outputs: Payloads::one(Payload::Inline(b"I AM THE PROOF".to_vec())),
        };
    }
    let ended = BlockEnded {
        pipeline: demo(),
        first: 0,
        last: u64::MAX,
        hashes: Vec::new(),
        before: push0_domain::Announcement(u64::MAX),
        reason: EndReason::Reorged,
    };
    let other_zkvm = AttemptKey {
        zkvm: "another".parse().expect("a name"),
        ..key.clone()
    };
    vec![
        changed(&|header| header.context.revision += 1),
        changed(&|header| header.context.parent_hash.0[0] ^= 1),
        changed(&|header| header.check = false),
        changed(&|header| header.zkvm = "another".parse().expect("a name")),
        changed(&|header| header.attempt += 1),
        changed(&|header| header.id.stage.block.number += 1000),
        (subject::result(&id("p2"), &key, None), fatal(header)),
        (subject::result(&id("p1"), &other_zkvm, None), fatal(header)),
        (subject::result_by_watchdog(&key), completed.clone()),
        // Without the signature of the key that it names.
        (subject::result(&id("p1"), &key, Some("UABC")), completed.clone()),
        (subject::verdict(&id("v1"), &key), completed),
        (subject::result(&id("p1"), &key, None), ResultEvent::Ended(ended)),
    ]
}

#[tokio::test]
async fn forged_reports_change_nothing_and_are_counted() {
    let slow = prover("p1").env("PUSH0_MOCK__TIME", "2s");
    let deployment = deploy(&single("timeout = \"20s\""), [slow, verifier("v1")]).await;
    let (bus, pipeline) = (deployment.bus(), demo());
    deployment.submit_blocks(&pipeline, 1..=2).await;
    let held = running(bus, "p1").await;
    let forged = forged(&held.header);
    for (subject, body) in &forged {
        say(bus, subject.clone(), body).await;
    }
    let emissions = deployment.wait_emitted(&pipeline, 2, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=2);
    for kept in &emissions {
        let proof = &proofs(kept)[0];
        assert_eq!((proof.attempt, proof.verifier.clone()), (1, Some(id("v1"))));
    }
    assert_eq!(dead_letters(bus).await, []);
    wait_for("the forged reports to be counted", PATIENCE, async || {
        let refused = count_of(&deployment, "collector", "push0_reports_refused_total").await;
        if refused == forged.len() as u64 {
            Ok(())
        } else {
            Err(refused)
        }
    })
    .await;
    settled(bus).await;
}

#[tokio::test]
async fn forged_leases_take_no_work_away() {
    let slow = prover("p1").env("PUSH0_MOCK__TIME", "3s");
    let deployment = deploy(&single("timeout = \"20s\""), [slow, verifier("v1")]).await;
    let (bus, pipeline) = (deployment.bus(), demo());
    deployment.submit_blocks(&pipeline, 1..=1).await;
    let held = running(bus, "p1").await;
    let late = Held {
        header: TaskHeader {
            give_up_at: Some(Timestamp(1)),
            hedge_after_ms: Some(0),
            timeout_ms: 1,
            ..held.header.clone()
        },
        running_ms: Some(3_600_000),
        ..held.clone()
    };
    let lease = |name: &str, incarnation, held| Lease {
        prover: id(name),
        zkvm: "mock".parse().expect("a name"),
        role: Role::Prover,
        incarnation,
        origin: None,
        beat: 1,
        slots: 1,
        ahead: 0,
        state: ProverState::Active,
        held,
    };
    let zkvm = "mock".parse().expect("a name");
    // In its own name, of work with another header; and in the name of the victim, who seems restarted.
    say(
        bus,
        subject::lease(&zkvm, &id("evil")),
        &lease("evil", 1, vec![late]),
    )
    .await;
    for incarnation in 1..=4 {
        let stolen = lease("p1", incarnation, Vec::new());
        say(bus, subject::lease(&zkvm, &id("evil")), &stolen).await;
    }
    let emissions = deployment.wait_emitted(&pipeline, 1, PATIENCE).await;
    assert_eq!(proofs(&emissions[0])[0].attempt, 1);
    let refused = async |reason: &str| {
        let series = format!("push0_leases_refused_total{{reason=\"{reason}\"");
        count_of(&deployment, "watchdog", &series).await
    };
    assert_eq!((refused("seal").await, refused("speaker").await), (1, 4));
}
