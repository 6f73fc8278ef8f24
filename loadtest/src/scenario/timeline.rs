//! A picture of a recovery: the number of running attempts on each prover around the kill of a
//! prover, from heartbeats.

use crate::{
    record::Context,
    stand::{self, Arrivals, Stand},
};
use push0_bus::Signals;
use push0_domain::{
    message::{Lease, Role},
    subject::{self, Kind},
};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::Instant;

const PROVERS: u32 = 4;
const SLOTS: u32 = 4;
const PROVE: Duration = Duration::from_millis(600);
/// Blocks a second. Without the killed prover, the other provers are just full.
const RATE: f64 = 20.0;
const LENGTH: Duration = Duration::from_secs(8);
const KILLED_AT: Duration = Duration::from_secs(3);
const BACK_AT: Duration = Duration::from_secs(6);
const VICTIM: &str = "p2";

/// Steps of a prover: milliseconds since the start, and the number of attempts that run from then on.
type Steps = Vec<(u64, usize)>;

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let all = (1..=PROVERS).map(|n| stand::prover(&format!("p{n}"), SLOTS, PROVE));
    let builder = all.fold(stand::services(), |builder, prover| builder.service(prover));
    let mut stand = Stand::start(builder, &stand::single(false)).await?;
    stand.run(20, Arrivals::AtOnce).await?;
    let numbers = stand.known((RATE * LENGTH.as_secs_f64()) as u64).await?;
    let listed: Vec<u64> = numbers.clone().collect();
    let (bus, pipeline) = (stand.bus().clone(), stand.pipeline.clone());
    let signals = bus.listen([subject::all(Kind::Lease)]).await?;
    let start = Instant::now();
    let deployment = &mut stand.deployment;
    let kill = async {
        tokio::time::sleep_until(start + KILLED_AT).await;
        deployment.service(VICTIM).kill();
        tokio::time::sleep_until(start + BACK_AT).await;
        deployment.service_mut(VICTIM).restart();
    };
    let arrivals = Arrivals::Rate {
        per_second: RATE,
        seed: context.seed,
    };
    let publish = stand::publish(&bus, &pipeline, &listed, arrivals);
    let emitted = stand::wait_emitted(&bus, &pipeline.name, numbers.end - 1, LENGTH * 5);
    let mut series = BTreeMap::<String, Steps>::new();
    let work = async {
        let (published, emitted, ()) = tokio::join!(publish, emitted, kill);
        published.and(emitted)
    };
    tokio::select! {
        done = work => done?,
        ended = follow(signals, start, &mut series) => return ended,
    }
    let victim = series.entry(VICTIM.into()).or_default();
    let killed_ms = u64::try_from(KILLED_AT.as_millis())?;
    let at = victim.partition_point(|(at, _)| *at < killed_ms);
    victim.insert(at, (killed_ms, 0));
    context
        .record("timeline")
        .with("killed", VICTIM)
        .with("killed_ms", killed_ms)
        .with("back_ms", u64::try_from(BACK_AT.as_millis())?)
        .with("slots", SLOTS)
        .with("series", json!(series))
        .publish()
}

/// Records every change of a prover's running attempts; returns only with an error.
async fn follow(
    mut signals: Signals,
    start: Instant,
    series: &mut BTreeMap<String, Steps>,
) -> anyhow::Result<()> {
    loop {
        let lease: Lease = signals.next().await?.body()?;
        if lease.role != Role::Prover {
            continue;
        }
        let at = u64::try_from(start.elapsed().as_millis())?;
        let running = lease.held.iter().filter(|held| held.running_ms.is_some()).count();
        let steps = series.entry(lease.prover.to_string()).or_default();
        if steps.last().is_none_or(|(_, before)| *before != running) {
            steps.push((at, running));
        }
    }
}
