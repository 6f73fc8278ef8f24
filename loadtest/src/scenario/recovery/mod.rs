//! Time until work resumes: on the tasks of a killed prover, and after the kill of a service.
//!
//! A killed prover stays away for a while, because a restart would be noticed at once. With long tasks,
//! heartbeats show the tasks that the victim ran and the moment at which another prover began them. With
//! short tasks, the victim dies with tasks that no heartbeat ever showed. Their time is measured from the
//! kill until all blocks stored before the kill are emitted, proving included.
//!
//! A killed service is the leader of two and is restarted at once, as by a supervisor. Its time is measured
//! from the kill until a block published after the kill is emitted, less the proving.

mod join;

use crate::{
    monitor::Monitor,
    record::Context,
    stand::{self, Arrivals, Stand},
    stats::{Times, median, round},
};
use push0_bus::{Kept, now};
use push0_domain::{Timestamp, message::Emission};
use std::time::Duration;

const PROVERS: u32 = 3;
/// Time for which a killed prover stays away, and for which it then works.
const AWAY: Duration = Duration::from_millis(1500);

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let kills = context.profile.pick(10, 100);
    let proving = Duration::from_millis(400);
    let mut stand = start(proving).await?;
    let long = kill(&mut stand, context, kills, 8.0).await?;
    let mut record = context
        .record("recovery")
        .with("kills", kills)
        .with("reassign_ms_p50", long.reassigned.ms(0.5))
        .with("reassign_ms_p99", long.reassigned.ms(0.99))
        .with("reassign_ms_max", long.reassigned.ms(1.0))
        .with("reassigned", long.reassigned.len());
    for service in ["collector", "dispatcher", "broker"] {
        let mut took = Vec::new();
        for _ in 0..context.profile.pick(3, 10) {
            took.push(service_recovery(&mut stand, service, proving).await?);
        }
        record = record.with(&format!("{service}_recovery_ms"), round(median(&took)));
    }
    drop(stand);
    let mut stand = start(Duration::from_millis(5)).await?;
    let short = kill(&mut stand, context, kills, 300.0).await?;
    let record = record
        .with("short_ms_p50", short.stalls.ms(0.5))
        .with("short_ms_p99", short.stalls.ms(0.99))
        .with("short_ms_max", short.stalls.ms(1.0))
        .with("short_kills", short.stalls.len());
    drop(stand);
    join::run(context, record).await?.publish()
}

/// Starts three provers with four slots each, whose attempts take this long.
async fn start(proving: Duration) -> anyhow::Result<Stand> {
    let all = (1..=PROVERS).map(|n| stand::prover(&format!("p{n}"), 4, proving));
    let builder = all.fold(stand::services(), |builder, prover| builder.service(prover));
    let mut stand = Stand::start(builder, &stand::single(false)).await?;
    stand.run(20, Arrivals::AtOnce).await?;
    Ok(stand)
}

/// Costs of repeated kills.
struct Costs {
    /// From a kill until another prover began the tasks in the victim's heartbeats.
    reassigned: Times,
    /// From a kill until all blocks stored before it were emitted; kills without such blocks are left out.
    stalls: Times,
}

/// Kills one prover after another at this many blocks a second.
async fn kill(stand: &mut Stand, context: &Context, kills: u32, per_second: f64) -> anyhow::Result<Costs> {
    let monitor = Monitor::listen(stand.bus()).await?;
    let seconds = 2.0 * AWAY.as_secs_f64() * f64::from(kills);
    let numbers = stand.known((seconds * per_second) as u64).await?;
    let listed: Vec<u64> = numbers.clone().collect();
    let arrivals = Arrivals::Rate {
        per_second,
        seed: context.seed,
    };
    let (bus, pipeline) = (stand.bus().clone(), stand.pipeline.clone());
    let deployment = &mut stand.deployment;
    let mut killed_at = Vec::new();
    let killing = async {
        for kill in 0..kills {
            let victim = format!("p{}", kill % PROVERS + 1);
            tokio::time::sleep(AWAY).await;
            monitor.silenced(&victim);
            killed_at.push(now());
            deployment.service(&victim).kill();
            tokio::time::sleep(AWAY).await;
            deployment.service_mut(&victim).restart();
        }
    };
    let work = async { tokio::join!(stand::publish(&bus, &pipeline, &listed, arrivals), killing) };
    let (published, ()) = tokio::select! {
        done = work => done,
        error = monitor.follow() => return Err(error),
    };
    published?;
    let records = stand.emitted(numbers, Duration::from_secs(60)).await?;
    Ok(Costs {
        reassigned: monitor.reassigned(),
        stalls: killed_at
            .into_iter()
            .filter_map(|at| stall(&records, at))
            .collect(),
    })
}

/// Returns the time from `at` until the last block stored before `at` was emitted, in microseconds. Returns
/// `None` if no such block was pending.
fn stall(records: &[Kept<Emission>], at: Timestamp) -> Option<u64> {
    let there = records.iter().filter(|kept| {
        let stored_at = kept.body.as_ref().map(|emission| emission.stored_at);
        stored_at.is_ok_and(|stored_at| stored_at <= at) && kept.stored_at > at
    });
    there.map(|kept| kept.stored_at.0 - at.0).max()
}

async fn service_recovery(stand: &mut Stand, service: &str, proving: Duration) -> anyhow::Result<f64> {
    // The system is settled: the block before is emitted and all services are ready.
    stand.deployment.ready().await;
    stand.run(1, Arrivals::AtOnce).await?;
    let numbers = stand.known(1).await?;
    let victim = match service {
        "broker" => None,
        service => Some(stand.deployment.leader(service).await),
    };
    let killed_at = now();
    match victim {
        None => stand.deployment.nats.restart().await,
        Some(leader) => stand.deployment.service_mut(&leader).restart(),
    }
    stand.publish(&[numbers.start], Arrivals::AtOnce).await?;
    let records = stand.emitted(numbers, Duration::from_secs(60)).await?;
    let passed: Duration = records[0].stored_at.since(killed_at);
    Ok((passed.as_secs_f64() - proving.as_secs_f64()) * 1000.0)
}
