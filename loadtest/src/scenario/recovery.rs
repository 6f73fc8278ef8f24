//! How long until work goes on: on what a killed prover held, and after a killed service.
//!
//! A killed prover stays away for a while: a restart would be noticed at once. A killed service is
//! started again at once, as a supervisor does; the time is from the kill until a block that was
//! published after it is emitted, less its proving.

use crate::{
    monitor::Monitor,
    record::Context,
    stand::{self, Arrivals, Stand},
    stats::median,
};
use push0_bus::now;
use std::time::Duration;

const PROVERS: u32 = 3;

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let proving = Duration::from_millis(400);
    let all = (1..=PROVERS).map(|n| stand::prover(&format!("p{n}"), 4, proving));
    let builder = all.fold(stand::services(), |builder, prover| builder.service(prover));
    let mut stand = Stand::start(builder, &stand::single(false)).await?;
    stand.run(20, Arrivals::AtOnce).await?;

    let kills = context.profile.pick(10, 100);
    let monitor = Monitor::listen(stand.bus()).await?;
    let pause = Duration::from_secs(2);
    let count = 8 * 2 * u64::from(kills) * pause.as_secs();
    let numbers = stand.known(count).await?;
    let listed: Vec<u64> = numbers.clone().collect();
    let arrivals = Arrivals::Rate {
        per_second: 8.0,
        seed: context.seed,
    };
    let (bus, pipeline) = (stand.bus().clone(), stand.pipeline.clone());
    let deployment = &mut stand.deployment;
    let killing = async {
        for kill in 0..kills {
            let victim = format!("p{}", kill % PROVERS + 1);
            tokio::time::sleep(pause).await;
            monitor.killed(&victim);
            deployment.service(&victim).kill();
            tokio::time::sleep(pause).await;
            deployment.service_mut(&victim).restart();
        }
    };
    let work = async { tokio::join!(stand::publish(&bus, &pipeline, &listed, arrivals), killing) };
    let (published, ()) = tokio::select! {
        done = work => done,
        error = monitor.follow() => return Err(error),
    };
    published?;
    stand.emitted(numbers, Duration::from_secs(60)).await?;

    let times = monitor.reassigned();
    let mut record = context
        .record("recovery")
        .with("reassign_ms_p50", times.ms(0.5))
        .with("reassign_ms_p99", times.ms(0.99))
        .with("reassign_ms_max", times.ms(1.0))
        .with("reassigned", times.len())
        .with("kills", kills);
    for service in ["collector", "dispatcher", "broker"] {
        let mut took = Vec::new();
        for _ in 0..context.profile.pick(3, 10) {
            took.push(service_recovery(&mut stand, service, proving).await?);
        }
        record = record.with(&format!("{service}_recovery_ms"), median(&took));
    }
    record.publish()
}

async fn service_recovery(stand: &mut Stand, service: &str, proving: Duration) -> anyhow::Result<f64> {
    // Settled: the one before is emitted and all services are ready.
    stand.deployment.ready().await;
    stand.run(1, Arrivals::AtOnce).await?;
    let numbers = stand.known(1).await?;
    let killed_at = now();
    if service == "broker" {
        stand.deployment.nats.restart().await;
    } else {
        stand.deployment.service_mut(service).restart();
    }
    stand.publish(&[numbers.start], Arrivals::AtOnce).await?;
    let records = stand.emitted(numbers, Duration::from_secs(60)).await?;
    let passed: Duration = records[0].stored_at.since(killed_at);
    Ok((passed.as_secs_f64() - proving.as_secs_f64()) * 1000.0)
}
