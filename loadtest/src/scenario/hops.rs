//! Where the time of a block goes: from message to message, as they pass.

use crate::{
    record::Context,
    stand::{self, Arrivals, Stand},
    stats::Times,
};
use push0_domain::{
    message::{BlockEvent, Emission, ResultEvent, Task},
    subject::{self, Kind},
};
use std::{
    collections::HashMap,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// The messages of a block in order.
const PATH: [Kind; 4] = [Kind::Block, Kind::Task, Kind::Result, Kind::Proof];

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let builder = stand::services().service(stand::prover("p1", 64, Duration::ZERO));
    let mut stand = Stand::start(builder, &stand::single(false)).await?;
    stand.run(200, Arrivals::AtOnce).await?;
    for rate in [20.0, 100.0] {
        at_rate(context, &mut stand, rate).await?;
    }
    Ok(())
}

async fn at_rate(context: &Context, stand: &mut Stand, rate: f64) -> anyhow::Result<()> {
    let signals = stand.deployment.another_bus().await;
    let mut signals = signals.listen(PATH.map(subject::all)).await?;
    let count = (rate * context.profile.pick(10.0, 30.0)) as u64;
    let numbers = stand.known(count).await?;
    let listed: Vec<u64> = numbers.clone().collect();
    let arrivals = Arrivals::Rate {
        per_second: rate,
        seed: context.seed,
    };
    let mut passed: HashMap<u64, [Option<Instant>; 4]> = HashMap::new();
    let emitted = AtomicU64::new(0);
    let follow = async {
        while emitted.load(Ordering::Relaxed) < count {
            let signal = signals.next().await?;
            let at = Instant::now();
            let (hop, number) = match Kind::of(signal.subject()) {
                Some(Kind::Block) => match signal.body()? {
                    BlockEvent::Observed(block) => (0, block.block.number),
                    BlockEvent::Cancelled(_) => continue,
                },
                Some(Kind::Task) => (1, signal.body::<Task>()?.header.id.stage.block.number),
                Some(Kind::Result) => match signal.body()? {
                    ResultEvent::Attempt(result) => (2, result.header.id.stage.block.number),
                    ResultEvent::Ended(_) => continue,
                },
                _ => {
                    emitted.fetch_add(1, Ordering::Relaxed);
                    (3, signal.body::<Emission>()?.first.number)
                }
            };
            passed.entry(number).or_default()[hop].get_or_insert(at);
        }
        anyhow::Ok(())
    };
    let (followed, published) = tokio::join!(follow, stand.publish(&listed, arrivals));
    followed?;
    published?;
    let between = |from: usize| -> Times {
        let each = passed
            .values()
            .filter_map(|at| Some(at[from + 1]?.duration_since(at[from]?)));
        each.map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
            .collect()
    };
    let mut record = context
        .record("hops")
        .with("rate", rate)
        .with("blocks", passed.len());
    for (from, name) in ["dispatch", "prove", "collect"].into_iter().enumerate() {
        let times = between(from);
        record = record
            .with(&format!("{name}_p50_ms"), times.ms(0.5))
            .with(&format!("{name}_p99_ms"), times.ms(0.99));
    }
    record.publish()
}
