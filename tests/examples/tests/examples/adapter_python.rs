//! `examples/adapter-python`: the adapter keeps the rules of docs/protocol.md.

use crate::{PATIENCE, demo, operate, pipeline, run, services, stamp, verifier};
use push0_bus::{Bucket, Message, Stream};
use push0_domain::{
    Participant, Payload,
    codec::Encoding,
    message::{Control, EmissionOutcome, HeldQueue, Lease, ProverState},
    subject::{self, AttemptKey},
    trace::TraceContext,
};
use push0_examples::python;
use push0_harness::{Deployment, ProcessBuilder, assert_complete_in_order, synthetic_block, wait_for};

const ADAPTER: &str = "adapter-python/adapter.py";

/// Returns the adapter with four slots, whose proofs take this many seconds.
fn adapter(name: &str, seconds: f32) -> ProcessBuilder {
    python(name, ADAPTER)
        .arg("stamp")
        .arg(name)
        .env("PUSH0_PROVER__SLOTS", 4)
        .env("STAMP_SECONDS", seconds)
}

async fn lease(deployment: &Deployment, prover: &str) -> Option<Lease> {
    let subject = subject::lease(
        &"stamp".parse().expect("a name"),
        &prover.parse().expect("a name"),
    );
    let kept = deployment.bus().last::<Lease>(Stream::Leases, &subject).await;
    kept.expect("the leases are read")?.body.ok()
}

/// Waits until the adapter's lease shows at least `count` running attempts.
async fn wait_running(deployment: &Deployment, prover: &str, count: usize) {
    wait_for("running attempts", PATIENCE, async || {
        let held = lease(deployment, prover)
            .await
            .map(|lease| lease.held)
            .unwrap_or_default();
        let running = held.iter().filter(|held| held.running_ms.is_some()).count();
        if running >= count { Ok(()) } else { Err(running) }
    })
    .await;
}

#[tokio::test]
async fn the_adapter_in_python_fills_its_slots_and_stores_large_proofs() {
    let mut deployment = services(&pipeline("external", "timeout = \"20s\""))
        .service(verifier())
        .start()
        .await;
    // 70,400 bytes, above the limit of inline payloads.
    deployment.start_service(adapter("py1", 0.5).env("STAMP_TIMES", 2200));
    deployment.submit_blocks(&demo(), 1..=8).await;
    wait_running(&deployment, "py1", 4).await;
    let emissions = deployment.wait_emitted(&demo(), 8, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=8);
    for kept in &emissions {
        let record = kept.body.as_ref().expect("a readable record");
        let EmissionOutcome::Proved(proofs) = &record.outcome else {
            unreachable!("{record:?}")
        };
        assert!(matches!(proofs[0].payload, Payload::Blob(_)) && proofs[0].verifier.is_some());
        assert_eq!(proofs[0].attempt, 1, "no attempt was lost");
    }
}

#[tokio::test]
async fn nothing_is_lost_when_the_adapter_in_python_or_its_broker_is_killed() {
    let mut deployment = services(&pipeline("external", "timeout = \"20s\""))
        .service(verifier())
        .start()
        .await;
    deployment.start_service(adapter("py1", 0.2));
    deployment.submit_blocks(&demo(), 1..=20).await;
    wait_running(&deployment, "py1", 1).await;
    deployment.service_mut("py1").restart();
    deployment.wait_emitted(&demo(), 8, PATIENCE).await;
    deployment.nats.kill();
    deployment.nats.restart().await;
    deployment.submit_blocks(&demo(), 21..=24).await;
    let emissions = deployment.wait_emitted(&demo(), 24, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=24);
}

#[tokio::test]
async fn the_adapter_in_python_obeys_a_stop_order() {
    let mut deployment = services(&pipeline("external", "timeout = \"1h\""))
        .service(verifier())
        .start()
        .await;
    deployment.start_service(adapter("py1", 3600.0));
    deployment.submit_blocks(&demo(), 1..=1).await;
    wait_running(&deployment, "py1", 1).await;
    run(operate(&deployment, &["cancel", "1", "--note", "not needed"])).await;
    wait_for("an empty lease", PATIENCE, async || {
        let lease = lease(&deployment, "py1").await;
        lease.is_some_and(|lease| lease.held.is_empty())
    })
    .await;
    let emissions = deployment.wait_emitted(&demo(), 1, PATIENCE).await;
    let record = emissions[0].body.as_ref().expect("a readable record");
    assert!(
        matches!(record.outcome, EmissionOutcome::Abandoned(_)),
        "{record:?}"
    );
}

#[tokio::test]
async fn the_adapter_in_python_obeys_a_quarantine_and_its_end() {
    let mut deployment = services(&pipeline("external", "timeout = \"20s\""))
        .service(verifier())
        .start()
        .await;
    deployment.start_service(adapter("py1", 0.1));
    wait_for("a heartbeat", PATIENCE, async || lease(&deployment, "py1").await).await;
    let heartbeats = subject::lease(&"stamp".parse().expect("a name"), &"py1".parse().expect("a name"));
    let mut heartbeats = deployment
        .bus()
        .listen([heartbeats])
        .await
        .expect("a subscription");
    // Listening misses no state. The watchdog may end the quarantine at once, because it knows of none.
    order_rest(&deployment, 3_600_000).await;
    for state in [ProverState::Quarantined, ProverState::Active] {
        let seen = async {
            while heartbeats
                .next()
                .await
                .expect("heartbeats come")
                .body::<Lease>()
                .expect("a lease")
                .state
                != state
            {}
        };
        let seen = tokio::time::timeout(PATIENCE, seen).await;
        seen.unwrap_or_else(|_| unreachable!("never {state:?}"));
        order_rest(&deployment, 0).await;
    }
    deployment.submit_blocks(&demo(), 1..=4).await;
    let emissions = deployment.wait_emitted(&demo(), 4, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=4);
}

/// Orders the adapter `py1` to rest for this many milliseconds.
async fn order_rest(deployment: &Deployment, for_ms: u64) {
    let order = Control::Quarantine {
        for_ms,
        reason: "a test".into(),
    };
    let subject = subject::control(&Participant {
        zkvm: "stamp".parse().expect("a name"),
        name: "py1".parse().expect("a name"),
    });
    let message = Message::new(subject, &order, &TraceContext::default()).expect("it can be written");
    deployment
        .bus()
        .publish(message)
        .await
        .expect("the order is stored");
}

#[tokio::test]
async fn the_adapter_in_python_gives_tasks_back_that_it_cannot_read() {
    let mut deployment = services(&pipeline("external", "timeout = \"20s\""))
        .service(verifier())
        .start()
        .await;
    deployment.start_service(adapter("py1", 0.1));
    let none = TraceContext::default();
    let subject = |attempt| {
        subject::task(&AttemptKey {
            zkvm: "stamp".parse().expect("a name"),
            pipeline: demo(),
            block: synthetic_block(&demo(), 9).key(),
            proof_type: "main".parse().expect("a name"),
            stage: "prove".parse().expect("a name"),
            index: 0,
            attempt,
        })
    };
    let noise = Message::encoded(subject(1), &[0xff_u8; 32], &none, Encoding::Bincode);
    let foreign = Message::encoded(subject(2), &[["not a task"]], &none, Encoding::Json);
    for message in [noise, foreign] {
        let stored = deployment
            .bus()
            .publish(message.expect("it can be written"))
            .await;
        stored.expect("the message is stored");
    }
    wait_for("two refusals in the log", PATIENCE, async || {
        deployment
            .service("py1")
            .log()
            .matches("cannot read a task")
            .count()
            >= 2
    })
    .await;
    deployment.submit_blocks(&demo(), 1..=4).await;
    let emissions = deployment.wait_emitted(&demo(), 4, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=4);
}

#[tokio::test]
async fn an_attempt_of_the_adapter_in_python_ends_at_its_timeout() {
    let stage = "timeout = \"300ms\"\nattempts = 2";
    let mut deployment = services(&pipeline("external", stage))
        .service(verifier())
        .start()
        .await;
    let bus = deployment.bus();
    let held = bus.facts::<HeldQueue>(Bucket::State).await.expect("facts");
    deployment.start_service(adapter("py1", 3600.0));
    deployment.submit_blocks(&demo(), 1..=1).await;
    // No attempt succeeds, so the queue is held, with the last error.
    let held = wait_for("a held queue", PATIENCE, async || {
        held.list(&subject::facts::holds()).await.ok()?.pop()?.value
    })
    .await;
    assert!(held.error.contains("not done within 300 ms"), "{}", held.error);
}

#[tokio::test]
async fn the_adapter_in_python_hands_back_what_it_cannot_finish() {
    let mut deployment = services(&pipeline("external", "timeout = \"1h\"\nattempts = 1"))
        .service(verifier())
        .start()
        .await;
    deployment.start_service(adapter("py1", 3600.0).env("PUSH0_PROVER__GRACE", 0));
    deployment.submit_blocks(&demo(), 1..=4).await;
    wait_running(&deployment, "py1", 4).await;
    deployment.start_service(stamp("p2"));
    deployment.service("py1").terminate();
    let status = deployment.service("py1").wait_exit(PATIENCE).await;
    assert!(status.success(), "{status}: {}", deployment.service("py1").log());
    let last = lease(&deployment, "py1").await.expect("a last heartbeat");
    assert!(
        last.state == ProverState::Draining && last.held.is_empty(),
        "{last:?}"
    );
    // With one attempt per task, a lost attempt would be a dead block.
    let emissions = deployment.wait_emitted(&demo(), 4, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=4);
}
