//! Bad provers are quarantined; a bad task quarantines no prover.

use push0_bus::now;
use push0_domain::{
    ProverId,
    message::{Dead, FailureClass, Happening, ProverState},
    subject::{self, Kind},
};
use push0_harness::{
    Deployment, DeploymentBuilder, Process, ProcessBuilder, assert_complete_in_order, wait_for,
};
use push0_scenarios::{
    PATIENCE, attempts, count_of, dead_letters, demo, happening, lease, prover, settled, single, verifier,
};

/// Enough attempts for tasks that fail first on a bad prover.
const STAGE: &str = "timeout = \"10s\"\nattempts = 8";

/// Starts a deployment whose quarantines last for `lasts`.
async fn deploy(lasts: &str, adapters: impl IntoIterator<Item = ProcessBuilder>) -> Deployment {
    let builder = Deployment::builder()
        .as_shipped()
        .pipeline(&single(STAGE))
        .env_of("watchdog", "PUSH0_QUARANTINE__FIRST", lasts)
        .env_of("watchdog", "PUSH0_QUARANTINE__LONGEST", lasts);
    let builder = adapters.into_iter().fold(builder, DeploymentBuilder::service);
    builder.start().await
}

fn failing(name: &str) -> ProcessBuilder {
    prover(name)
        .env("PUSH0_MOCK__FAILURE_RATE", 1)
        .env("PUSH0_MOCK__TIME", "1ms")
}

#[tokio::test]
async fn a_prover_that_always_fails_rests_until_its_time_is_over() {
    let adapters = [failing("bad"), prover("g1"), prover("g2"), verifier("v1")];
    let deployment = deploy("3s", adapters).await;
    let bus = deployment.bus();
    let mut events = bus.listen([subject::all(Kind::Event)]).await.expect("listening");
    let bad: ProverId = "bad".parse().expect("a name");
    let begun =
        |what: &Happening| matches!(what, Happening::QuarantineBegun { prover, .. } if *prover == bad);
    let ended =
        |what: &Happening| matches!(what, Happening::QuarantineEnded { prover, .. } if *prover == bad);

    deployment.submit_blocks(&demo(), 1..=20).await;
    let Happening::QuarantineBegun { until, times, .. } = happening(&mut events, "a quarantine", begun).await
    else {
        unreachable!("asked for")
    };
    assert_eq!(times, 1);
    wait_for("rest", PATIENCE, async || {
        let lease = lease(bus, "bad").await;
        lease.is_some_and(|l| l.state == ProverState::Quarantined && l.held.is_empty())
    })
    .await;
    let failed = attempts(deployment.service("bad"), "retryable").await;
    // Without the quarantine, the prover would fail many of these blocks.
    deployment.submit_blocks(&demo(), 21..=80).await;
    deployment.wait_emitted(&demo(), 80, PATIENCE).await;
    assert!(now() < until, "the chain went on at pace");
    assert_eq!(
        count_of(&deployment, "watchdog", "push0_provers_quarantined").await,
        1
    );
    assert_eq!(attempts(deployment.service("bad"), "retryable").await, failed);

    happening(&mut events, "the end of the quarantine", ended).await;
    assert!(now() >= until);
    deployment.submit_blocks(&demo(), 81..=120).await;
    let again = happening(&mut events, "the next quarantine", begun).await;
    assert!(
        matches!(again, Happening::QuarantineBegun { times: 2, .. }),
        "{again:?}"
    );
    deployment.wait_emitted(&demo(), 120, PATIENCE).await;
    settled(bus).await;
    assert_complete_in_order(&deployment.emissions(&demo()).await, 1..=120);
}

#[tokio::test]
async fn tasks_that_every_prover_fails_make_nobody_rest() {
    // Both provers fail blocks 1 to 5 and prove all others. A quarantine would last longer than the test.
    let picky = |name: &str| {
        let script = "[ \"$(cat \"$1\")\" -gt 5 ] && cp \"$1\" \"$2\"";
        Process::program("prover-exec")
            .label(name)
            .env("PUSH0_PROVER__ID", name)
            .env("PUSH0_PROVER__ZKVM", push0_scenarios::MOCK)
            .config(&format!(
                "[exec]\nprogram = '/bin/sh'\nargs = ['-c', '''{script}''', 'script', '{{input}}', '{{output}}']\n"
            ))
    };
    let stage = "timeout = \"10s\"\nattempts = 4\nretry = { first = \"20ms\", longest = \"100ms\" }";
    let pipeline = single(stage).replace("zkvm = \"mock\"", "zkvm = \"mock\"\nverify = \"off\"");
    let builder = Deployment::builder().as_shipped().pipeline(&pipeline);
    let deployment = [picky("p1"), picky("p2")]
        .into_iter()
        .fold(builder, DeploymentBuilder::service)
        .start()
        .await;
    let mut last = 0;
    let letters = wait_for("five dead letters", PATIENCE, async || {
        // Only the success of other blocks shows that the failing ones are at fault.
        last += 1;
        deployment.submit_blocks(&demo(), last..=last).await;
        let letters = dead_letters(deployment.bus()).await;
        (letters.len() == 5).then_some(letters)
    })
    .await;
    deployment.wait_emitted(&demo(), last as usize, PATIENCE).await;
    settled(deployment.bus()).await;
    for letter in letters {
        let Dead::Task { history, .. } = &letter.what else {
            unreachable!("of a task: {letter:?}")
        };
        assert!(
            history.iter().all(|r| r.failure.class == FailureClass::Retryable),
            "{history:?}"
        );
    }
    assert_eq!(
        count_of(&deployment, "watchdog", "push0_provers_quarantined").await,
        0
    );
}
