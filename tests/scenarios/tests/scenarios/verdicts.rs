//! A finished proof is never thrown away: not for a verifier that cannot work, nor for a queue without room.

use push0_bus::{Bus, Limits, Signals, Stream};
use push0_domain::{
    message::{Happening, Held, Lease, Role},
    subject::{self, Kind},
};
use push0_harness::{
    Deployment, DeploymentBuilder, Process, ProcessBuilder, assert_complete_in_order, wait_for,
};
use push0_scenarios::{
    PATIENCE, count_of, dead_letters, demo, deploy, happening, heartbeat, lease, proofs, prover, push0,
    settled_within, single, verifier,
};
use std::{fs, path::Path, time::Duration};

/// Longer than the longest pause between two tries of a verifier.
const LONG: Duration = Duration::from_secs(60);

/// Returns a prover or verifier whose programs are shell scripts. A run of the proving program leaves a line in
/// `runs`. The verifying program cannot work while the file `down` is there.
fn exec(name: &str, folder: &Path) -> ProcessBuilder {
    proving(name, folder, "$1")
}

/// Returns a prover whose proofs are no text that the verifying program can read.
fn unreadable(name: &str, folder: &Path) -> ProcessBuilder {
    proving(name, folder, "/dev/null")
}

fn proving(name: &str, folder: &Path, proof: &str) -> ProcessBuilder {
    let folder = folder.display();
    let config = format!(
        r#"
        [exec]
        program = "/bin/sh"
        args = ["-c", 'echo "$3" >> {folder}/runs; cat "{proof}" > "$2"; echo >> "$2"', "x", "{{input}}", "{{output}}", "{{block_number}}"]
        verify_program = "/bin/sh"
        verify_args = ["-c", '[ ! -e {folder}/down ] || {{ echo "no key" >&2; exit 1; }}; proof=$(cat "$1"); [ -n "$proof" ] || exit 2; [ "$proof" = "$2" ] || {{ echo push0: invalid: another block; exit 65; }}', "x", "{{proof}}", "{{block_number}}"]
        "#
    );
    Process::program("prover-exec")
        .label(name)
        .config(&config)
        .env("PUSH0_PROVER__ID", name)
        .env("PUSH0_PROVER__ZKVM", "mock")
}

/// Waits for a delivery of a check that comes far behind the first ones.
async fn tried_often(signals: &mut Signals) {
    let often = |what: &Happening| match what {
        Happening::CheckUnverified { deliveries, .. } | Happening::CheckPaused { deliveries, .. } => {
            *deliveries >= 8
        }
        _ => false,
    };
    happening(signals, "a check that was tried often", often).await;
}

/// Waits until the active watchdog shows this number of checks without a verdict.
async fn unverified(deployment: &Deployment, obstacle: &str, wanted: u64) {
    let series = format!("push0_checks_unverified{{obstacle=\"{obstacle}\"");
    wait_for("the metric of the watchdog", PATIENCE, async || {
        let shown = count_of(deployment, "watchdog", &series).await;
        (shown == wanted).then_some(()).ok_or(shown)
    })
    .await;
}

async fn assert_proved_once(deployment: &Deployment, last: u64) {
    let emissions = deployment.emissions(&demo()).await;
    assert_complete_in_order(&emissions, 1..=last);
    for emission in &emissions {
        let proof = &proofs(emission)[0];
        assert_eq!(proof.attempt, 1, "{proof:?}");
        assert!(proof.verifier.is_some(), "{proof:?}");
    }
    assert!(dead_letters(deployment.bus()).await.is_empty());
}

#[tokio::test]
async fn a_verifier_that_cannot_work_costs_time_and_no_proof() {
    let folder = tempfile::tempdir().expect("a folder");
    let adapters = [
        exec("p1", folder.path()),
        exec("p2", folder.path()),
        exec("p3", folder.path()),
        exec("v1", folder.path()).arg("--verify"),
    ];
    let deployment = deploy(&single("timeout = \"10s\""), adapters).await;
    let mut events = deployment
        .bus()
        .listen([subject::all(Kind::Notice)])
        .await
        .expect("listening");
    fs::write(folder.path().join("down"), "").expect("written");
    deployment.submit_blocks(&demo(), 1..=3).await;
    tried_often(&mut events).await;
    unverified(&deployment, "verifier", 3).await;
    let status = deployment.command().arg("status").start();
    status.wait_exit(PATIENCE).await;
    assert!(status.log().contains("no key"), "{}", status.log());

    fs::remove_file(folder.path().join("down")).expect("removed");
    // A check that nothing is wrong with does not wait behind the others.
    deployment.submit_blocks(&demo(), 4..=4).await;
    deployment.wait_emitted(&demo(), 4, LONG).await;
    assert_proved_once(&deployment, 4).await;
    let runs = fs::read_to_string(folder.path().join("runs")).expect("read");
    let mut runs: Vec<&str> = runs.lines().collect();
    runs.sort_unstable();
    assert_eq!(runs, ["1", "2", "3", "4"]);
    unverified(&deployment, "verifier", 0).await;
}

#[tokio::test]
async fn proofs_that_no_verifier_can_judge_are_made_once_more_elsewhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let adapters = [
        unreadable("hostile", folder.path()),
        exec("p1", folder.path()),
        exec("p2", folder.path()),
        exec("v1", folder.path()).arg("--verify"),
    ];
    let deployment = deploy(&single("timeout = \"10s\""), adapters).await;
    let bus = deployment.another_bus().await;
    let mut events = bus.listen([subject::all(Kind::Notice)]).await.expect("listening");
    deployment.submit_blocks(&demo(), 1..=9).await;
    tried_often(&mut events).await;
    deployment.submit_blocks(&demo(), 10..=18).await;
    deployment.wait_emitted(&demo(), 18, 2 * LONG).await;
    let emissions = deployment.emissions(&demo()).await;
    assert_complete_in_order(&emissions, 1..=18);
    let honest = |emission| proofs(emission)[0].prover.as_str() != "hostile";
    assert!(emissions.iter().all(honest), "{emissions:?}");
    assert!(dead_letters(deployment.bus()).await.is_empty());
    let doubted = "push0_watchdog_acts_total{act=\"doubted\"}";
    assert!(count_of(&deployment, "watchdog", doubted).await > 0);
}

#[tokio::test]
async fn a_proof_that_kills_its_verifiers_is_tried_ever_more_seldom_until_it_is_cancelled() {
    let verifier = verifier("v1").env("PUSH0_MOCK__VERIFY_TIME", "60s");
    let mut deployment = deploy(&single("timeout = \"60s\""), [prover("p1"), verifier]).await;
    let bus = deployment.another_bus().await;
    let mut events = bus.listen([subject::all(Kind::Notice)]).await.expect("listening");
    let mut leases = bus.listen([subject::all(Kind::Lease)]).await.expect("listening");
    deployment.submit_blocks(&demo(), 1..=1).await;
    // The verifier dies of each try and is started again, until it makes the check wait in place of a try.
    let paused = |what: &Happening| matches!(what, Happening::CheckPaused { .. });
    let mut pause = Box::pin(happening(&mut events, "a pause", paused));
    let (mut starts, mut dead) = (1, None);
    loop {
        let tries = |lease: &Lease| {
            let is_new = lease.role == Role::Verifier && Some(lease.incarnation) != dead;
            is_new && lease.held.iter().any(|held| held.running_ms.is_some())
        };
        dead = tokio::select! {
            _ = &mut pause => break,
            lease = heartbeat(&mut leases, "a try", tries) => Some(lease.incarnation),
        };
        deployment.service("v1").kill();
        deployment.service("v1").wait_exit(PATIENCE).await;
        deployment.service_mut("v1").restart();
        starts += 1;
    }
    drop(pause);
    assert!((3..=6).contains(&starts), "{starts} starts");
    unverified(&deployment, "killed", 1).await;
    push0(&deployment, &["cancel", "1", "--note", "kills verifiers"]).await;
    settled_within(&bus, LONG).await;
    assert_eq!(
        count_of(
            &deployment,
            "watchdog",
            "push0_watchdog_acts_total{act=\"removed\"}"
        )
        .await,
        1
    );
}

/// Returns a store in which CHECKS has room for some 60 outputs of 60 kB.
fn small() -> DeploymentBuilder {
    let limits = Limits {
        store_bytes: 50_000_000,
        ..Limits::default()
    };
    Deployment::builder().as_shipped().limits(limits)
}

/// Returns a delivery of a prover whose attempt has ended and whose result is not stored.
fn unstored(held: &[Held]) -> bool {
    held.iter().any(|held| held.running_ms.is_none())
}

async fn is_full(bus: &Bus, stream: Stream) {
    wait_for("a full stream", PATIENCE, async || {
        let level = bus.level(stream).await.map_err(|e| e.to_string())?;
        (level.bytes + 70_000 > level.bytes_max)
            .then_some(())
            .ok_or(format!("{level:?}"))
    })
    .await;
}

#[tokio::test]
async fn without_a_verifier_results_wait_and_no_attempt_is_hung() {
    let builder = small().pipeline(&single("timeout = \"1s\"")).service(
        prover("p1")
                .env("PUSH0_MOCK__OUTPUT_BYTES", 60_000)
                // Running attempts alone must fill the room that is left when the dispatcher stops releasing.
                .env("PUSH0_PROVER__SLOTS", 16),
    );
    let mut deployment = builder.start().await;
    let bus = deployment.another_bus().await;
    let mut leases = bus.listen([subject::all(Kind::Lease)]).await.expect("listening");
    deployment.submit_blocks(&demo(), 1..=90).await;
    is_full(&bus, Stream::Checks).await;
    let first = heartbeat(&mut leases, "a result that waits", |lease| unstored(&lease.held)).await;
    // Twelve heartbeats are three seconds: far more than the timeout and the watchdog's grace.
    let later = heartbeat(&mut leases, "three seconds more", |lease| {
        lease.beat >= first.beat + 12
    })
    .await;
    assert!(unstored(&later.held), "{later:?}");
    let timed_out = "push0_watchdog_acts_total{act=\"timed-out\"}";
    assert_eq!(count_of(&deployment, "watchdog", timed_out).await, 0);
    assert!(lease(&bus, "p1").await.is_some());

    deployment.start_service(verifier("v1"));
    deployment.wait_emitted(&demo(), 90, LONG).await;
    assert_proved_once(&deployment, 90).await;
    assert_eq!(count_of(&deployment, "watchdog", timed_out).await, 0);
}
