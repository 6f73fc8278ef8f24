//! push0 beside simple queues that could replace it: latency of a block, utilisation of provers, priority of
//! the most urgent block, and reassignment of a dead prover's work.

use crate::{
    baseline::{Kind, Queue, Worker},
    record::Context,
    scenario::priority,
    stand::Arrivals,
    stats::{Times, Windows, round},
};
use push0_bus::now;
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use std::time::Duration;

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let mut failed = None;
    for kind in Kind::ALL {
        // A queue that is not installed must not prevent the other comparisons.
        if let Err(error) = measure(context, kind).await {
            failed = Some(error.context(kind.name()));
        }
    }
    failed.map_or(Ok(()), Err)
}

async fn measure(context: &Context, kind: Kind) -> anyhow::Result<()> {
    latency(context, kind).await?;
    efficiency(context, kind).await?;
    order(context, kind).await?;
    reassignment(context, kind).await
}

fn workers(count: u32, slots: u32, time: Duration) -> Vec<Worker> {
    let worker = |n| Worker {
        id: format!("p{n}"),
        slots,
        time,
    };
    (1..=count).map(worker).collect()
}

async fn latency(context: &Context, kind: Kind) -> anyhow::Result<()> {
    let mut queue = Queue::start(kind, &workers(1, 64, Duration::ZERO)).await?;
    for rate in [20.0, 100.0] {
        let mut overhead = Windows::default();
        for window in 0..context.profile.pick(2, 5) {
            let arrivals = Arrivals::Rate {
                per_second: rate,
                seed: context.seed.wrapping_add(window),
            };
            let count = (rate * context.profile.pick(4.0, 15.0)) as u64;
            let numbers = queue.known(count).await?;
            let done = queue.run(numbers, arrivals).await?;
            overhead.push(done.iter().map(|done| done.overhead()));
        }
        let record = context.record("baseline").with("queue", kind.name());
        overhead
            .put("", record.with("rate", rate))
            .with("blocks", overhead.len())
            .publish()?;
    }
    Ok(())
}

async fn efficiency(context: &Context, kind: Kind) -> anyhow::Result<()> {
    let (provers, time) = (32, Duration::from_millis(100));
    let mut queue = Queue::start(kind, &workers(provers, 1, time)).await?;
    let numbers = queue
        .known(u64::from(provers) * context.profile.pick(30, 150))
        .await?;
    let done = queue.run(numbers, Arrivals::AtOnce).await?;
    let first = done.iter().map(|done| done.stored_us).min().unwrap_or_default();
    let last = done.iter().map(|done| done.done_us).max().unwrap_or_default();
    let busy: u64 = done.iter().map(|done| done.busy_us).sum();
    let places = (last.saturating_sub(first)) as f64 * f64::from(provers);
    context
        .record("baseline")
        .with("queue", kind.name())
        .with("provers", provers)
        .with("prove_ms", u64::try_from(time.as_millis())?)
        .with("efficiency", round(busy as f64 / places))
        .with("blocks", done.len())
        .publish()
}

/// Stores blocks in a random order before any worker exists. Then a worker with one slot takes the blocks.
async fn order(context: &Context, kind: Kind) -> anyhow::Result<()> {
    let mut queue = Queue::start(kind, &[]).await?;
    let numbers = queue.known(context.profile.pick(300, 3_000)).await?;
    let mut shuffled: Vec<u64> = numbers.clone().collect();
    shuffled.shuffle(&mut StdRng::seed_from_u64(context.seed));
    queue.publish(&shuffled, Arrivals::AtOnce).await?;
    workers(1, 1, Duration::from_millis(2))
        .iter()
        .for_each(|worker| queue.add(worker));
    let mut done = queue.done(numbers).await?;
    done.sort_by_key(|done| done.began_us);
    let order: Vec<u64> = done.iter().map(|done| done.number).collect();
    context
        .record("baseline")
        .with("queue", kind.name())
        .with("blocks", order.len())
        .with("inversions", priority::inversions(&order))
        .publish()
}

/// Kills a worker while other workers have room, and measures the time until its blocks start again.
async fn reassignment(context: &Context, kind: Kind) -> anyhow::Result<()> {
    let all = workers(3, 4, Duration::from_millis(400));
    let mut waited = Times::default();
    for kill in 0..context.profile.pick(1, 5) {
        let mut queue = Queue::start(kind, &all).await?;
        let numbers = queue.known(24).await?;
        let listed: Vec<u64> = numbers.clone().collect();
        let victim = format!("p{}", kill % 3 + 1);
        let killed_at = {
            let work = queue.publish(
                &listed,
                Arrivals::Rate {
                    per_second: 20.0,
                    seed: context.seed,
                },
            );
            let kill = async {
                tokio::time::sleep(Duration::from_millis(900)).await;
                queue.kill(&victim);
                now()
            };
            let (published, killed_at) = tokio::join!(work, kill);
            published?;
            killed_at
        };
        let done = queue.done(numbers).await?;
        let again = done
            .iter()
            .filter(|done| done.attempt > 1 && done.began_us > killed_at.0);
        again.for_each(|done| waited.add(done.began_us - killed_at.0));
    }
    context
        .record("baseline")
        .with("queue", kind.name())
        .with("reassign_ms_p50", waited.ms(0.5))
        .with("reassign_ms_max", waited.ms(1.0))
        .with("reassigned", waited.len())
        .publish()
}
