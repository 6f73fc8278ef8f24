//! Behaviour common to all adapters, tested with the mock on a real broker.
#![expect(clippy::panic, reason = "a failing test panics, in its helpers as well")]

mod rig;

use push0_bus::Stream;
use push0_domain::{
    message::{Control, FailureClass, Lease, ProverState, Role, StageKind},
    subject,
};
use push0_harness::{Process, ProcessBuilder, wait_for};
use rig::{PATIENCE, Rig, class, failure, held, is_idle, key, output};
use std::time::Duration;

fn mock(label: &str) -> ProcessBuilder {
    untimed(label).env("PUSH0_MOCK__TIME", "0s")
}

fn untimed(label: &str) -> ProcessBuilder {
    Process::program("prover-mock")
        .label(label)
        .env("PUSH0_PROVER__ID", label)
}

async fn rig(provers: impl IntoIterator<Item = ProcessBuilder>) -> Rig {
    Rig::start("mock", provers.into_iter().collect()).await
}

#[tokio::test]
async fn a_task_is_proved_stored_and_acknowledged() {
    let rig = rig([mock("a").env("PUSH0_MOCK__OUTPUT_BYTES", 100_000)]).await;
    let task = rig.task(7);
    rig.publish(&task).await;
    let result = rig.result(&task).await;
    assert_eq!(
        (result.header.id.clone(), result.prover.as_str()),
        (task.header.id.clone(), "a")
    );
    let proof = output(rig.bus(), &result).await;
    assert_eq!(proof.len(), 100_000);
    assert!(proof.starts_with(br#"{"block":7,"proof":"0x"#));
    rig.acknowledged(&task).await;
    rig.lease("a", "an idle lease", is_idle).await;
}

#[tokio::test]
async fn a_split_has_many_outputs() {
    let rig = rig([mock("a").env("PUSH0_MOCK__SPLIT", 1000)]).await;
    let mut task = rig.task(7);
    task.header.kind = StageKind::Split;
    rig.publish(&task).await;
    let result = rig.result(&task).await;
    let push0_domain::message::Outcome::Completed { outputs } = result.outcome else {
        panic!("{result:?}")
    };
    assert_eq!(outputs.count(), 1000);
    let blobs = rig.bus().blobs().await.expect("the blob store");
    let last = blobs
        .resolve(&outputs.get(999).expect("there"))
        .await
        .expect("stored");
    assert!(last.starts_with(br#"{"block":7,"step_id":999,"#));
}

#[tokio::test]
async fn the_lease_shows_what_is_running_and_what_waits() {
    let prover = mock("a")
        .env("PUSH0_MOCK__HANG_RATE", "1")
        .env("PUSH0_PROVER__AHEAD", "always");
    let rig = rig([prover]).await;
    let (first, second) = (rig.task(1), rig.task(2));
    rig.publish(&first).await;
    rig.running("a", &first).await;
    rig.publish(&second).await;
    rig.lease("a", "both tasks", |lease| {
        assert_eq!((lease.slots, lease.ahead, lease.role), (1, 1, Role::Prover));
        let (running, waiting) = (held(lease, &first)?, held(lease, &second)?);
        (running.running_ms? > 300 && waiting.running_ms.is_none()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_task_is_taken_ahead_of_the_end_that_the_last_ones_foretell() {
    let prover = mock("a")
        .env("PUSH0_MOCK__TIME", "2s")
        .env("PUSH0_PROVER__AHEAD_BELOW", "1s");
    let rig = rig([prover]).await;
    for task in [rig.task(1), rig.task(2)] {
        rig.publish(&task).await;
        rig.result(&task).await;
    }
    let (third, fourth) = (rig.task(3), rig.task(4));
    rig.publish(&third).await;
    rig.publish(&fourth).await;
    rig.lease("a", "the third alone", |lease| {
        assert!(held(lease, &fourth).is_none(), "{lease:?}");
        (!held(lease, &third)?.ends_soon).then_some(())
    })
    .await;
    rig.lease("a", "both tasks", |lease| {
        let (running, waiting) = (held(lease, &third)?, held(lease, &fourth)?);
        assert_eq!((running.ends_soon, waiting.running_ms), (true, None));
        Some(())
    })
    .await;
}

#[tokio::test]
async fn what_waits_behind_a_slow_attempt_is_handed_to_another() {
    // One millisecond per unit of gas.
    let by_gas = |label| untimed(label).env("PUSH0_MOCK__PER_GAS", "1000000");
    let mut rig = rig([by_gas("a")]).await;
    let taking = |number: u64, gas_used: u64| {
        let mut task = rig.task(number);
        task.header.context.facts.gas_used = gas_used;
        task
    };
    let (short, slow, waits) = (taking(1, 50), taking(2, 8000), taking(3, 50));
    rig.publish(&short).await;
    rig.result(&short).await;
    rig.publish(&slow).await;
    rig.running("a", &slow).await;
    rig.publish(&waits).await;
    rig.lease("a", "the task that waits", |lease| {
        held(lease, &waits).map(|_| ())
    })
    .await;
    rig.deployment.start_service(by_gas("b"));
    assert_eq!(rig.result(&waits).await.prover.as_str(), "b");
    assert_eq!(rig.result(&slow).await.prover.as_str(), "a");
}

#[tokio::test]
async fn heartbeats_come_four_times_a_second_while_it_proves() {
    let rig = rig([mock("a").env("PUSH0_MOCK__HANG_RATE", "1")]).await;
    let task = rig.task(1);
    rig.publish(&task).await;
    rig.running("a", &task).await;
    let beat = rig.lease("a", "a lease", |lease| Some(lease.beat)).await;
    let begun = std::time::Instant::now();
    rig.lease("a", "8 more beats", |lease| {
        (lease.beat >= beat + 8).then_some(())
    })
    .await;
    let took = begun.elapsed();
    assert!(
        took > Duration::from_millis(1400) && took < Duration::from_millis(3000),
        "{took:?}"
    );
}

#[tokio::test]
async fn failures_arrive_with_their_class() {
    for (said, expected) in [
        ("retryable", FailureClass::Retryable),
        ("fatal", FailureClass::Fatal),
        ("out-of-memory", FailureClass::OutOfMemory),
    ] {
        let prover = mock("a")
            .env("PUSH0_MOCK__FAILURE_RATE", "1")
            .env("PUSH0_MOCK__FAILURE_CLASS", said);
        let rig = rig([prover]).await;
        let task = rig.task(1);
        rig.publish(&task).await;
        let result = rig.result(&task).await;
        assert_eq!(class(&result), expected);
        // The failure carries all data for the next attempt.
        assert_eq!(result.inputs, Some(task.inputs.clone()));
        rig.acknowledged(&task).await;
    }
}

#[tokio::test]
async fn a_panic_is_a_failure_and_the_prover_goes_on() {
    let rig = rig([mock("a").env("PUSH0_MOCK__PANIC_RATE", "1")]).await;
    for task in [rig.task(1), rig.task(2)] {
        rig.publish(&task).await;
        let result = rig.result(&task).await;
        assert_eq!(class(&result), FailureClass::Retryable);
        assert!(
            failure(&result).message.contains("panicked as configured"),
            "{result:?}"
        );
    }
    assert!(rig.deployment.service("a").is_running());
}

#[tokio::test]
async fn a_hung_attempt_ends_at_its_timeout() {
    let rig = rig([mock("a").env("PUSH0_MOCK__HANG_RATE", "1")]).await;
    let mut task = rig.task(1);
    task.header.timeout_ms = 300;
    rig.publish(&task).await;
    let result = rig.result(&task).await;
    assert_eq!(class(&result), FailureClass::TimedOut);
    assert!(
        (300_000..1_000_000).contains(&result.prove_us),
        "{}",
        result.prove_us
    );
    rig.lease("a", "an idle lease", is_idle).await;
}

#[tokio::test]
async fn a_stop_order_ends_attempts_that_run_and_that_wait() {
    let prover = mock("a")
        .env("PUSH0_MOCK__HANG_RATE", "1")
        .env("PUSH0_PROVER__AHEAD", "always");
    let rig = rig([prover]).await;
    let (first, second) = (rig.task(1), rig.task(2));
    rig.publish(&first).await;
    rig.running("a", &first).await;
    rig.publish(&second).await;
    rig.lease("a", "the task that waits", |lease| {
        held(lease, &second).map(|_| ())
    })
    .await;
    for task in [&second, &first] {
        let order = Control::Stop {
            attempt: task.header.attempt_id(),
            reason: "superseded".into(),
        };
        rig.order("a", &order).await;
        assert_eq!(class(&rig.result(task).await), FailureClass::Stopped);
        rig.acknowledged(task).await;
    }
    rig.lease("a", "an idle lease", is_idle).await;
}

#[tokio::test]
async fn an_input_that_is_not_in_the_store_is_a_failure() {
    let rig = rig([mock("a")]).await;
    let mut task = rig.task(1);
    let missing = push0_domain::BlobRef::of(b"never stored");
    task.inputs = push0_domain::Payloads::one(push0_domain::Payload::Blob(missing));
    rig.publish(&task).await;
    let result = rig.result(&task).await;
    assert_eq!(class(&result), FailureClass::Retryable);
    assert!(
        failure(&result).message.contains("not in the store"),
        "{result:?}"
    );
}

#[tokio::test]
async fn a_crashed_prover_leaves_its_task_to_another() {
    let rig = rig([mock("a").env("PUSH0_MOCK__CRASH_RATE", "1")]).await;
    let task = rig.task(1);
    rig.publish(&task).await;
    rig.deployment.service("a").wait_exit(PATIENCE).await;
    // No watchdog runs in this test, so only the broker's ack wait makes the task available again.
    let mut rig = rig;
    rig.deployment.start_service(mock("b"));
    assert_eq!(rig.result(&task).await.prover.as_str(), "b");
}

#[tokio::test]
async fn sigterm_finishes_what_runs_and_hands_back_what_waits() {
    let leaving = mock("a")
        .env("PUSH0_MOCK__TIME", "1500ms")
        .env("PUSH0_PROVER__AHEAD", "always");
    let mut rig = rig([leaving]).await;
    let (first, second) = (rig.task(1), rig.task(2));
    rig.publish(&first).await;
    rig.running("a", &first).await;
    rig.publish(&second).await;
    rig.lease("a", "the task that waits", |lease| {
        held(lease, &second).map(|_| ())
    })
    .await;
    rig.deployment.service("a").terminate();
    rig.deployment.start_service(mock("b"));
    let taken_over = rig.result(&second).await;
    assert_eq!(taken_over.prover.as_str(), "b");
    let status = rig.deployment.service("a").wait_exit(PATIENCE).await;
    assert!(status.success(), "{status}");
    let finished = rig.result(&first).await;
    assert_eq!(finished.prover.as_str(), "a");
    output(rig.bus(), &finished).await;
    rig.acknowledged(&first).await;
    rig.lease("a", "a last lease", |lease| {
        (lease.state == ProverState::Draining && lease.held.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_does_not_end_in_the_grace_is_handed_back_not_given_up() {
    let leaving = mock("a")
        .env("PUSH0_MOCK__HANG_RATE", "1")
        .env("PUSH0_PROVER__GRACE", "300ms");
    let mut rig = rig([leaving]).await;
    let task = rig.task(1);
    rig.publish(&task).await;
    rig.running("a", &task).await;
    rig.deployment.service("a").terminate();
    let status = rig.deployment.service("a").wait_exit(PATIENCE).await;
    assert!(status.success(), "{status}");
    let handed_back = std::time::Instant::now();
    rig.deployment.start_service(mock("b"));
    let result = rig.result(&task).await;
    assert_eq!(result.prover.as_str(), "b");
    output(rig.bus(), &result).await;
    assert!(
        handed_back.elapsed() < Duration::from_secs(4),
        "only the ack wait brought it back"
    );
}

#[tokio::test]
async fn a_drained_prover_takes_nothing_and_leaves_the_task_as_it_was() {
    let mut rig = rig([mock("a")]).await;
    rig.order("a", &Control::Drain).await;
    rig.lease("a", "draining", |lease| {
        (lease.state == ProverState::Draining).then_some(())
    })
    .await;
    let task = rig.task(1);
    rig.publish(&task).await;
    rig.deployment.start_service(mock("b"));
    // A task redelivered again and again would count as one that kills its provers.
    let result = rig.result(&task).await;
    assert_eq!(result.prover.as_str(), "b");
    output(rig.bus(), &result).await;
}

#[tokio::test]
async fn a_quarantined_prover_takes_work_again_when_it_is_over() {
    let rig = rig([mock("a")]).await;
    let order = Control::Quarantine {
        for_ms: 1500,
        reason: "it failed".into(),
    };
    rig.order("a", &order).await;
    rig.lease("a", "quarantine", |lease| {
        (lease.state == ProverState::Quarantined).then_some(())
    })
    .await;
    rig.lease("a", "its end", is_idle).await;
    let task = rig.task(1);
    rig.publish(&task).await;
    rig.result(&task).await;
}

#[tokio::test]
async fn a_prover_survives_a_restart_of_the_broker() {
    let mut rig = rig([mock("a").env("PUSH0_MOCK__TIME", "1s")]).await;
    let (first, second) = (rig.task(1), rig.task(2));
    rig.publish(&first).await;
    rig.running("a", &first).await;
    rig.deployment.nats.kill();
    rig.deployment.nats.restart().await;
    rig.publish(&second).await;
    for task in [&first, &second] {
        output(rig.bus(), &rig.result(task).await).await;
        rig.acknowledged(task).await;
    }
}

#[tokio::test]
async fn a_true_proof_is_verified_and_a_false_one_refused() {
    let rig = rig([
        mock("honest").env("PUSH0_MOCK__FALSE_RATE", "0"),
        mock("verifier").arg("--verify"),
    ])
    .await;
    let mut task = rig.task(1);
    task.header.check = true;
    rig.publish(&task).await;
    let verdict = rig.result(&task).await.verdict.expect("verified");
    assert_eq!((verdict.verifier.as_str(), verdict.invalid), ("verifier", None));
    let lease: Lease = rig
        .lease("verifier", "a lease", |lease| Some(lease.clone()))
        .await;
    assert_eq!(lease.role, Role::Verifier);

    rig.deployment.service("honest").terminate();
    rig.deployment.service("honest").wait_exit(PATIENCE).await;
    let mut rig = rig;
    rig.deployment
        .start_service(mock("liar").env("PUSH0_MOCK__FALSE_RATE", "1"));
    let mut task = rig.task(2);
    task.header.check = true;
    rig.publish(&task).await;
    let verdict = rig.result(&task).await.verdict.expect("verified");
    let reason = verdict.invalid.expect("refused");
    assert!(reason.contains("not a proof of block"), "{reason}");
    wait_for("CHECKS to be empty", PATIENCE, async || {
        let subjects = subject::checks_of_zkvm(&rig.zkvm);
        rig.bus()
            .subjects(Stream::Checks, &subjects)
            .await
            .expect("answered")
            .is_empty()
    })
    .await;
}

#[tokio::test]
async fn a_proof_about_a_block_that_nobody_observed_is_refused() {
    let rig = rig([mock("a"), mock("verifier").arg("--verify")]).await;
    let mut unknown = rig.task(51);
    unknown.header.check = true;
    let mut other_parent = rig.task(1);
    other_parent.header.check = true;
    other_parent.header.context.parent_hash.0[0] ^= 1;
    for (task, why) in [(unknown, "never observed"), (other_parent, "has parent")] {
        rig.publish(&task).await;
        let verdict = rig.result(&task).await.verdict.expect("a verdict");
        let reason = verdict.invalid.expect("refused");
        assert!(reason.contains(why), "{reason}");
        assert_eq!(key(&task).zkvm, rig.zkvm);
    }
}
