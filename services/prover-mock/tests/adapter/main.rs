//! Behaviour common to all adapters, tested with the mock on a real broker.
#![expect(clippy::panic, reason = "a failing test panics, in its helpers as well")]

#[path = "../rig/mod.rs"]
mod rig;
mod verifying;

use push0_bus::{Bus, Limits, NatsConfig, Stream};
use push0_domain::{
    message::{Control, FailureClass, ProverState, ResultEvent, Role, StageKind},
    subject::{self, Kind},
};
use push0_harness::{NatsOptions, Process, ProcessBuilder, wait_for};
use rig::{PATIENCE, Rig, class, failure, held, is_idle, key, output};
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

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
    let blobs = rig.bus().blobs();
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

/// One task has the slot, one waits for it in the prover, and one waits in the stream first.
#[tokio::test]
async fn a_result_tells_how_long_its_task_waited_for_a_slot() {
    let prover = mock("a")
        .env("PUSH0_MOCK__TIME", "400ms")
        .env("PUSH0_PROVER__AHEAD", "always");
    let rig = rig([prover]).await;
    let tasks = [rig.task(1), rig.task(2), rig.task(3)];
    for task in &tasks {
        rig.publish(task).await;
    }
    let mut waited_ms = Vec::new();
    for task in &tasks {
        waited_ms.push(rig.result(task).await.waited_us / 1000);
    }
    let [first, second, third] = waited_ms[..] else {
        unreachable!("three results")
    };
    let told = first < 200 && (300..700).contains(&second) && (700..1_500).contains(&third);
    assert!(told, "{waited_ms:?}");
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
        ("surroundings", FailureClass::Surroundings),
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

fn never_stored(bytes: &[u8]) -> push0_domain::BlobRef {
    let place = push0_domain::BlobPlace {
        zkvm: None,
        writer: "ingester".parse().expect("a name"),
        pipeline: "demo".parse().expect("a name"),
        number: 1,
    };
    push0_domain::BlobRef::of(place, bytes)
}

#[tokio::test]
async fn an_input_that_is_not_in_the_store_is_a_failure_of_the_surroundings() {
    let rig = rig([mock("a")]).await;
    let mut task = rig.task(1);
    let missing = never_stored(b"never stored");
    task.inputs = push0_domain::Payloads::one(push0_domain::Payload::Blob(missing));
    rig.publish(&task).await;
    let result = rig.result(&task).await;
    assert_eq!(class(&result), FailureClass::Surroundings);
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

/// Returns the results in a spool.
fn spooled(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    paths
        .filter(|path| path.extension().is_some_and(|e| e == "result"))
        .collect()
}

#[tokio::test]
async fn a_result_that_the_broker_cannot_take_outlives_its_adapter() {
    let folder = tempfile::tempdir().expect("a folder");
    let spool = folder.path().join("spool");
    let with_spool = |name: &str| mock(name).env("PUSH0_PROVER__SPOOL", spool.display());
    let prover = with_spool("a")
        .env("PUSH0_MOCK__TIME", "1s")
        .env("PUSH0_MOCK__OUTPUT_BYTES", 200_000);
    let mut rig = rig([prover]).await;
    let task = rig.task(1);
    rig.publish(&task).await;
    rig.running("a", &task).await;
    rig.deployment.nats.pause();
    wait_for("a result in the spool", PATIENCE, async || {
        !spooled(&spool).is_empty()
    })
    .await;
    rig.deployment.service("a").kill();
    rig.deployment.service("a").wait_exit(PATIENCE).await;
    rig.deployment.nats.resume();
    rig.deployment.start_service(with_spool("b"));
    let result = rig.result(&task).await;
    assert_eq!(
        result.prover.as_str(),
        "b",
        "a process speaks in its own name only"
    );
    assert_eq!(output(rig.bus(), &result).await.len(), 200_000);
    // The task comes to the new prover as well, which knows that it is done.
    rig.acknowledged(&task).await;
    let subject = subject::reports_of_attempt(Kind::Result, &key(&task));
    let results = rig.bus().scan::<ResultEvent>(Stream::Results, &subject, 1, 10);
    assert_eq!(results.await.expect("read").len(), 1);
    wait_for("an empty spool", PATIENCE, async || spooled(&spool).is_empty()).await;
}

#[tokio::test]
async fn storing_an_output_is_transfer_and_no_running_time() {
    let prover = mock("a")
        .env("PUSH0_MOCK__TIME", "300ms")
        .env("PUSH0_MOCK__OUTPUT_BYTES", 200_000);
    let rig = rig([prover]).await;
    let mut task = rig.task(1);
    task.header.timeout_ms = 1_000;
    rig.publish(&task).await;
    rig.running("a", &task).await;
    rig.deployment.nats.pause();
    let began = Instant::now();
    // wait: the broker must stand still for longer than the stage's timeout
    tokio::time::sleep(Duration::from_secs(2)).await;
    rig.deployment.nats.resume();
    let stood = began.elapsed();
    let result = rig.result(&task).await;
    assert_eq!(output(rig.bus(), &result).await.len(), 200_000);
    assert!(result.prove_us < 1_000_000, "{result:?}");
    assert!(
        result.transfer_us > 1_000_000,
        "{result:?} while the broker stood still for {stood:?}"
    );
}

#[tokio::test]
async fn a_prover_whose_heartbeats_are_refused_is_not_ready() {
    let leases = subject::all(Kind::Lease);
    let users = format!(
        "authorization {{ users: [\n\
         {{ user: all, password: secret }}\n\
         {{ user: mute, password: secret, permissions: {{ publish: {{ deny: [\"{leases}\"] }} }} }}\n\
         ] }}"
    );
    let broker = NatsOptions::default().with_config(&users).start().await;
    let url = |user: &str| broker.url().replace("nats://", &format!("nats://{user}:secret@"));
    let config = NatsConfig {
        url: url("all"),
        ..NatsConfig::default()
    };
    let bus = Bus::connect(&config, "test").await.expect("a valid URL");
    let limits = Limits {
        store_bytes: 1 << 30,
        ..Limits::default()
    };
    bus.provision(&limits).await.expect("provisioned");
    let zkvm = "mock".parse().expect("a name");
    bus.provision_zkvm(&zkvm).await.expect("provisioned");
    let heard = mock("heard").env("PUSH0_NATS__URL", url("all"));
    let unheard = mock("unheard").env("PUSH0_NATS__URL", url("mute"));
    let [heard, unheard] = [heard, unheard].map(|p| p.env("PUSH0_HTTP__LISTEN", "127.0.0.1:0").start());
    heard.ready(PATIENCE).await;
    unheard.not_ready("heartbeat.permissions", PATIENCE).await;
}
