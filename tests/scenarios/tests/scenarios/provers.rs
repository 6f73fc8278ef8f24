//! Provers that die, freeze, hang, crawl or lie, and healthy provers that are wrongly suspected.

use push0_domain::{
    ProverId,
    message::{Dead, EmissionOutcome, FailureClass, Held},
    subject::{self, Kind},
};
use push0_harness::{Deployment, Process, ProcessBuilder, assert_complete_in_order, wait_for};
use push0_scenarios::{
    MOCK, PATIENCE, attempts, count, count_of, dead_letters, demo, deploy, first_running, heartbeat, outcome,
    proofs, prover, running, runs_elsewhere, settled, single, verifier,
};
use std::time::{Duration, Instant};

/// Time allowed by P5 between the end of a prover and the start of its task on another prover.
const REASSIGNED: Duration = Duration::from_secs(1);

fn slow(name: &str, time: &str) -> ProcessBuilder {
    prover(name).env("PUSH0_MOCK__TIME", time)
}

fn name(text: &str) -> ProverId {
    text.parse().expect("a name")
}

/// Silences a prover by `end`, and measures the time until another prover runs its task.
async fn time_to_reassign(
    deployment: &Deployment,
    label: &str,
    held: &Held,
    end: impl FnOnce(&Process),
) -> Duration {
    let mut heartbeats = deployment
        .bus()
        .listen([subject::all(Kind::Lease)])
        .await
        .expect("listening");
    let (silent, ended_at) = (name(label), Instant::now());
    end(deployment.service(label));
    let lease = heartbeat(&mut heartbeats, "the task runs elsewhere", |lease| {
        runs_elsewhere(lease, held, &silent)
    })
    .await;
    let took = ended_at.elapsed();
    println!(
        "{} took over from {label} in {} ms",
        lease.prover,
        took.as_millis()
    );
    took
}

#[tokio::test]
async fn the_task_of_a_dead_prover_starts_elsewhere_within_a_second() {
    let adapters = [slow("p1", "900ms"), slow("p2", "900ms"), verifier("v1")];
    let mut deployment = deploy(&single("timeout = \"10s\""), adapters).await;
    let pipeline = demo();
    for number in 1..=5_usize {
        deployment
            .submit_blocks(&pipeline, number as u64..=number as u64)
            .await;
        let (dying, held) = first_running(deployment.bus(), &["p1", "p2"], number as u64).await;
        let took = time_to_reassign(&deployment, dying, &held, Process::kill).await;
        assert!(took < REASSIGNED, "{dying}: {took:?}");
        deployment.service_mut(dying).restart();
        deployment.ready().await;
        deployment.wait_emitted(&pipeline, number, PATIENCE).await;
    }
    settled(deployment.bus()).await;
    assert_complete_in_order(&deployment.emissions(&pipeline).await, 1..=5);
}

#[tokio::test]
async fn a_hung_attempt_ends_at_its_timeout_and_another_prover_does_it() {
    let adapters = [
        prover("hangs").env("PUSH0_MOCK__HANG_RATE", 1),
        prover("works"),
        verifier("v1"),
    ];
    let stage = "timeout = \"600ms\"\nattempts = 5";
    let deployment = deploy(&single(stage), adapters).await;
    deployment.submit_blocks(&demo(), 1..=8).await;
    let emissions = deployment.wait_emitted(&demo(), 8, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=8);
    assert!(
        emissions
            .iter()
            .all(|kept| proofs(kept)[0].prover == name("works"))
    );
    settled(deployment.bus()).await;
    assert!(attempts(deployment.service("hangs"), "timed-out").await > 0);
}

#[tokio::test]
async fn a_prover_that_comes_back_late_is_heard_once() {
    let adapters = [slow("p1", "1500ms"), slow("p2", "1500ms"), verifier("v1")];
    let deployment = deploy(&single("timeout = \"10s\""), adapters).await;
    deployment.submit_blocks(&demo(), 1..=1).await;
    let (frozen, held) = first_running(deployment.bus(), &["p1", "p2"], 1).await;
    let took = time_to_reassign(&deployment, frozen, &held, Process::pause).await;
    assert!(took < REASSIGNED, "{frozen}: {took:?}");
    deployment.service(frozen).resume();
    deployment.submit_blocks(&demo(), 2..=4).await;
    deployment.wait_emitted(&demo(), 4, PATIENCE).await;
    settled(deployment.bus()).await;
    assert_complete_in_order(&deployment.emissions(&demo()).await, 1..=4);
    assert_eq!(dead_letters(deployment.bus()).await, []);
}

#[tokio::test]
async fn a_late_valid_proof_is_accepted_and_the_attempt_that_replaced_it_is_stopped() {
    let mut deployment = deploy(&single("timeout = \"30s\""), [slow("p1", "5s"), verifier("v1")]).await;
    deployment.submit_blocks(&demo(), 1..=1).await;
    let held = running(deployment.bus(), "p1").await;
    deployment.start_service(slow("endless", "25s"));
    deployment.ready().await;
    time_to_reassign(&deployment, "p1", &held, Process::pause).await;
    deployment.service("p1").resume();
    let emissions = deployment.wait_emitted(&demo(), 1, PATIENCE).await;
    assert_eq!(proofs(&emissions[0])[0].prover, name("p1"));
    settled(deployment.bus()).await;
    assert_eq!(attempts(deployment.service("endless"), "stopped").await, 1);
    assert_eq!(deployment.emissions(&demo()).await.len(), 1);
}

#[tokio::test]
async fn a_late_failure_of_an_attempt_that_was_replaced_is_ignored() {
    // A second counted failure would use up the two attempts.
    let failing = slow("p1", "5s").env("PUSH0_MOCK__FAILURE_RATE", 1);
    let stage = single("timeout = \"30s\"\nattempts = 2");
    let mut deployment = deploy(&stage, [failing, verifier("v1")]).await;
    deployment.submit_blocks(&demo(), 1..=1).await;
    let held = running(deployment.bus(), "p1").await;
    deployment.start_service(slow("p2", "8s"));
    deployment.ready().await;
    time_to_reassign(&deployment, "p1", &held, Process::pause).await;
    deployment.service("p1").resume();
    wait_for("the late failure", PATIENCE, async || {
        attempts(deployment.service("p1"), "retryable").await == 1
    })
    .await;
    let emissions = deployment.wait_emitted(&demo(), 1, PATIENCE).await;
    let proof = &proofs(&emissions[0])[0];
    assert_eq!((&proof.prover, proof.attempt), (&name("p2"), 2));
    settled(deployment.bus()).await;
    assert_eq!(attempts(deployment.service("p2"), "completed").await, 1);
    assert_eq!(dead_letters(deployment.bus()).await, []);
}

/// Returns a prover whose attempts run this shell script; `$1` is the input file and `$2` the output file.
fn script(name: &str, text: &str) -> ProcessBuilder {
    let config = format!(
        "[exec]\nprogram = '/bin/sh'\nargs = ['-c', '''{text}''', 'script', '{{input}}', '{{output}}']\n"
    );
    Process::program("prover-exec")
        .label(name)
        .env("PUSH0_PROVER__ID", name)
        .env("PUSH0_PROVER__ZKVM", MOCK)
        .config(&config)
}

/// Returns [`single`] with verification off, for outputs that no verifier can check.
fn unverified(stage: &str) -> String {
    single(stage).replace("zkvm = \"mock\"", "zkvm = \"mock\"\nverify = \"off\"")
}

#[tokio::test]
async fn a_prover_that_uses_every_core_is_not_declared_dead() {
    // Eight busy loops are four times the cores of a small machine, and 3 s are four times the 750 ms of
    // silence after which the watchdog declares a prover dead.
    let busy =
        "for i in 1 2 3 4 5 6 7 8; do timeout 3 sh -c 'while :; do :; done' & done; wait; cp \"$1\" \"$2\"";
    let deployment = deploy(
        &unverified("timeout = \"20s\""),
        [script("busy", &busy.replace('\'', "\""))],
    )
    .await;
    deployment.submit_blocks(&demo(), 1..=1).await;
    let emissions = deployment.wait_emitted(&demo(), 1, PATIENCE).await;
    let [proof] = proofs(&emissions[0]) else {
        unreachable!("one proof is wanted")
    };
    assert_eq!(proof.attempt, 1);
    assert!(
        proof.prove_us > 2_500_000,
        "it was busy for {} us",
        proof.prove_us
    );
    for act in ["died", "given-back"] {
        let acts = format!("push0_watchdog_acts_total{{act=\"{act}\"}}");
        assert_eq!(count_of(&deployment, "watchdog", &acts).await, 0, "{act}");
    }
}

#[tokio::test]
async fn a_straggler_gets_a_second_copy_elsewhere() {
    let adapters = [slow("slow", "20s"), prover("quick"), verifier("v1")];
    let deployment = deploy(&single("timeout = \"25s\"\nhedge_after = \"400ms\""), adapters).await;
    let started_at = Instant::now();
    deployment.submit_blocks(&demo(), 1..=6).await;
    let emissions = deployment.wait_emitted(&demo(), 6, PATIENCE).await;
    assert!(
        started_at.elapsed() < Duration::from_secs(15),
        "the output waited for the straggler"
    );
    assert_complete_in_order(&emissions, 1..=6);
    settled(deployment.bus()).await;
    assert!(attempts(deployment.service("slow"), "stopped").await > 0);
    let hedged = "push0_watchdog_acts_total{act=\"hedged\"}";
    assert!(count_of(&deployment, "watchdog", hedged).await > 0);
    assert_eq!(dead_letters(deployment.bus()).await, []);
}

#[tokio::test]
async fn a_task_that_kills_three_provers_is_a_dead_letter_and_the_chain_goes_on() {
    poisoned("sleep 0.3").await;
}

#[tokio::test]
async fn a_task_that_kills_at_once_is_a_dead_letter_and_the_chain_goes_on() {
    poisoned("true").await;
}

/// Checks a deadly task: block 5 kills its adapter, after the shell command `first`.
async fn poisoned(first: &str) {
    // The parent of the script is its keeper, and the parent of the keeper is the adapter.
    let poison = &format!(
        "if [ \"$(cat \"$1\")\" = 5 ]; then {first}; kill -9 $(cut -d\" \" -f4 /proc/$PPID/stat); sleep 5; fi; cp \"$1\" \"$2\""
    );
    let names = ["p1", "p2", "p3", "p4"];
    let deployment = deploy(
        &unverified("timeout = \"10s\"\ndeaths = 3"),
        names.map(|name| script(name, poison)),
    )
    .await;
    deployment.submit_blocks(&demo(), 1..=10).await;
    let emissions = deployment.wait_emitted(&demo(), 10, PATIENCE).await;
    settled(deployment.bus()).await;
    let letters = dead_letters(deployment.bus()).await;
    let [letter] = &letters[..] else {
        unreachable!("one dead letter: {letters:?}")
    };
    let Dead::Task { history, .. } = &letter.what else {
        unreachable!("of a task: {letter:?}")
    };
    assert_eq!(history.iter().map(|r| r.attempt).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(
        history.iter().all(|r| r.failure.class == FailureClass::Died),
        "{history:?}"
    );
    let mut killed: Vec<_> = history.iter().map(|r| r.prover.clone()).collect();
    killed.sort();
    killed.dedup();
    assert_eq!(killed.len(), 3, "three provers died of it: {killed:?}");
    for (kept, number) in emissions.iter().zip(1..) {
        assert_eq!(kept.body.as_ref().expect("readable").first.number, number);
        match outcome(kept) {
            EmissionOutcome::Dead { dead_letter, .. } => assert_eq!((dead_letter, number), (&letter.id, 5)),
            proved => assert!(
                matches!(proved, EmissionOutcome::Proved(_)) && number != 5,
                "{proved:?}"
            ),
        }
    }
    let alive = names
        .iter()
        .filter(|name| deployment.service(name).is_running())
        .count();
    assert_eq!(alive, 1);
}

#[tokio::test]
async fn a_false_proof_is_never_emitted_and_made_again_by_another_prover() {
    let adapters = [
        prover("liar")
            .env("PUSH0_MOCK__FALSE_RATE", 1)
            .env("PUSH0_MOCK__TIME", "1ms"),
        prover("honest").env("PUSH0_PROVER__SLOTS", 2),
        verifier("v1"),
    ];
    let deployment = deploy(&single("timeout = \"10s\"\nattempts = 8"), adapters).await;
    deployment.submit_blocks(&demo(), 1..=20).await;
    let emissions = deployment.wait_emitted(&demo(), 20, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=20);
    settled(deployment.bus()).await;
    assert!(
        emissions
            .iter()
            .all(|kept| proofs(kept)[0].prover == name("honest"))
    );
    assert!(
        emissions.iter().any(|kept| proofs(kept)[0].attempt > 1),
        "the liar was asked"
    );
    assert!(
        count(
            deployment.service("v1"),
            "push0_verdicts_total{verdict=\"invalid\"}"
        )
        .await
            > 0
    );
}

#[tokio::test]
async fn a_prover_that_is_asked_to_stop_finishes_its_task_and_hands_back_what_waits() {
    let leaving = slow("leaving", "1200ms").env("PUSH0_PROVER__AHEAD", "always");
    let mut deployment = deploy(&single("timeout = \"10s\""), [leaving, verifier("v1")]).await;
    deployment.submit_blocks(&demo(), 1..=2).await;
    let held = running(deployment.bus(), "leaving").await;
    assert_eq!(held.header.id.stage.block.number, 1);
    wait_for("a task that waits", PATIENCE, async || {
        push0_scenarios::lease(deployment.bus(), "leaving")
            .await
            .is_some_and(|l| l.held.len() == 2)
    })
    .await;
    deployment.service("leaving").terminate();
    deployment.start_service(prover("staying"));
    let status = deployment.service("leaving").wait_exit(PATIENCE).await;
    assert!(status.success(), "{status}");
    let emissions = deployment.wait_emitted(&demo(), 2, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=2);
    for (kept, by) in emissions.iter().zip(["leaving", "staying"]) {
        let proof = &proofs(kept)[0];
        assert_eq!(
            (&proof.prover, proof.attempt),
            (&name(by), 1),
            "no attempt was lost"
        );
    }
    settled(deployment.bus()).await;
}

#[tokio::test]
async fn a_task_that_ran_out_of_memory_goes_to_the_provers_that_have_more() {
    let small = prover("small")
        .env("PUSH0_MOCK__FAILURE_RATE", "1")
        .env("PUSH0_MOCK__FAILURE_CLASS", "out-of-memory");
    let on_large = |adapter: ProcessBuilder| adapter.env("PUSH0_PROVER__ZKVM", "mock-large");
    let adapters = [
        small,
        verifier("v1"),
        on_large(prover("large")),
        on_large(verifier("v2")),
    ];
    let deployment = deploy(
        &single("timeout = \"10s\"\nattempts = 2\nmore_memory = \"mock-large\""),
        adapters,
    )
    .await;
    deployment.submit_blocks(&demo(), 1..=3).await;
    let emissions = deployment.wait_emitted(&demo(), 3, PATIENCE).await;
    assert_complete_in_order(&emissions, 1..=3);
    for kept in &emissions {
        let [proof] = proofs(kept) else {
            unreachable!("one proof is wanted: {kept:?}")
        };
        // The numbers 2 and 3 belong to copies on provers of the same size.
        assert_eq!((proof.prover.as_str(), proof.attempt), ("large", 4));
    }
    assert_eq!(attempts(deployment.service("small"), "out-of-memory").await, 3);
    settled(deployment.bus()).await;
}
