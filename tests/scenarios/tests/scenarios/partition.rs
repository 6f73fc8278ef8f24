//! Connections that stay open and carry nothing: like a pulled cable, neither side is told.

use push0_domain::subject::{self, Kind};
use push0_harness::{Deployment, Process, ProcessBuilder, Proxy, assert_complete_in_order, wait_for};
use push0_scenarios::{
    PATIENCE, dead_letters, demo, deploy, first_running, heartbeat, prover, runs_elsewhere, settled, single,
    verifier,
};
use std::time::{Duration, Instant};

const STAGE: &str = "timeout = \"20s\"\nattempts = 5";

fn through(wire: &Proxy, service: ProcessBuilder) -> ProcessBuilder {
    service.env("PUSH0_NATS__URL", wire.url())
}

async fn assert_all_came(deployment: &Deployment, last: u64) {
    let count = usize::try_from(last).expect("a small number");
    deployment.wait_emitted(&demo(), count, PATIENCE).await;
    settled(deployment.bus()).await;
    assert_complete_in_order(&deployment.emissions(&demo()).await, 1..=last);
    assert_eq!(dead_letters(deployment.bus()).await, []);
}

#[tokio::test]
async fn the_task_of_a_prover_that_is_cut_off_starts_elsewhere_within_a_second() {
    let mut deployment = deploy(&single(STAGE), [verifier("v1")]).await;
    let wire = Proxy::to(&deployment.nats.first().url());
    // Long enough for the other prover to start meanwhile.
    let slow = |name: &str| prover(name).env("PUSH0_MOCK__TIME", "4s");
    deployment.start_service(through(&wire, slow("far")));
    deployment.ready().await;
    deployment.submit_blocks(&demo(), 1..=1).await;
    let (_, held) = first_running(deployment.bus(), &["far"], 1).await;
    deployment.start_service(slow("near"));
    deployment.ready().await;
    let listening = deployment.bus().listen([subject::all(Kind::Lease)]).await;
    let mut heartbeats = listening.expect("listening");
    let cut_at = Instant::now();
    wire.cut();
    let far = "far".parse().expect("a name");
    heartbeat(&mut heartbeats, "the task runs elsewhere", |lease| {
        runs_elsewhere(lease, &held, &far)
    })
    .await;
    let took = cut_at.elapsed();
    println!("reassigned {} ms after the cut", took.as_millis());
    assert!(took < Duration::from_secs(1), "{took:?}");
    deployment.wait_emitted(&demo(), 1, PATIENCE).await;
    // Messages held back by the cut arrive now, and the prover works again.
    wire.heal();
    deployment.submit_blocks(&demo(), 2..=2).await;
    deployment.service("near").kill();
    deployment.submit_blocks(&demo(), 3..=6).await;
    assert_all_came(&deployment, 6).await;
}

#[tokio::test]
async fn a_service_that_is_cut_off_loses_its_role_and_does_no_harm_when_it_is_back() {
    let mut deployment = deploy(&single(STAGE), [prover("p1"), prover("p2"), verifier("v1")]).await;
    let wire = Proxy::to(&deployment.nats.first().url());
    let mut emitted = 0;
    for service in ["dispatcher", "collector", "watchdog"] {
        // The far instance leads when the wire is cut, and the near ones stand by.
        let far = format!("far-{service}");
        let near = [format!("{service}-1"), format!("{service}-2")];
        for label in &near {
            deployment.service(label).terminate();
            deployment.service(label).wait_exit(PATIENCE).await;
        }
        deployment.start_service(through(&wire, Process::program(service).label(&far)));
        deployment.ready().await;
        deployment.submit_blocks(&demo(), emitted + 1..=emitted + 1).await;
        deployment
            .wait_emitted(&demo(), usize::try_from(emitted).expect("small") + 1, PATIENCE)
            .await;
        for label in &near {
            deployment.service_mut(label).restart();
        }
        deployment.ready().await;

        deployment
            .submit_blocks(&demo(), emitted + 2..=emitted + 30)
            .await;
        wire.cut();
        let cut_at = Instant::now();
        emitted += 30;
        deployment
            .wait_emitted(&demo(), usize::try_from(emitted).expect("small"), PATIENCE)
            .await;
        println!(
            "{service}: all came {} ms after the cut",
            cut_at.elapsed().as_millis()
        );
        wire.heal();
        deployment
            .submit_blocks(&demo(), emitted + 1..=emitted + 10)
            .await;
        emitted += 10;
        deployment
            .wait_emitted(&demo(), usize::try_from(emitted).expect("small"), PATIENCE)
            .await;
        deployment.service(&far).terminate();
        deployment.service(&far).wait_exit(PATIENCE).await;
    }
    assert_all_came(&deployment, emitted).await;
}

#[tokio::test]
async fn a_wire_that_is_cut_for_everybody_costs_no_block() {
    let builder = Deployment::builder()
        .as_shipped()
        .pipeline(&single(STAGE))
        .proxied();
    let deployment = [prover("p1"), prover("p2"), verifier("v1")]
        .into_iter()
        .fold(builder, |b, adapter| b.service(adapter))
        .start()
        .await;
    deployment.submit_blocks(&demo(), 1..=60).await;
    for (round, emitted, reset) in [(1, 5, false), (2, 20, true)] {
        deployment.wait_emitted(&demo(), emitted, PATIENCE).await;
        deployment.proxy().cut();
        if reset {
            deployment.proxy().reset();
        }
        let control = ["ingester", "dispatcher", "collector", "watchdog"];
        let control = control.iter().flat_map(|program| deployment.instances(program));
        let adapters = ["p1", "p2", "v1"].map(|label| deployment.service(label));
        for service in control.chain(adapters) {
            let what = format!("the loss that {} notices", service.label());
            wait_for(&what, PATIENCE, async || {
                service.log().matches("lost the broker").count() >= round
            })
            .await;
        }
        deployment.proxy().heal();
    }
    assert_all_came(&deployment, 60).await;
}
