//! Empty blocks a second, against the floor, with all blocks published at once.

use crate::{
    floor::{self, Floor},
    record::Context,
    stand::{self, Arrivals, Stand},
    stats::{median, spread, steady_rate},
    usage::Meter,
};
use std::time::Duration;

/// How long the blocks of one window may take.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let builder = stand::services().service(stand::prover("p1", 256, Duration::ZERO));
    let mut stand = Stand::start(builder, &stand::single(false)).await?;
    stand.run(500, Arrivals::AtOnce).await?;
    let sizes = floor::sizes(&mut stand, false).await?;
    let mut floor = Floor::start(&stand, &sizes).await?;
    let count = context.profile.pick(5_000, 20_000);
    let (mut ours, mut bare, mut record) = (Vec::new(), Vec::new(), context.record("throughput"));
    for _ in 0..context.profile.pick(3, 5) {
        let numbers = stand.known(count).await?;
        let meter = Meter::start(&stand, &["p1".into()]).await;
        let listed: Vec<u64> = numbers.clone().collect();
        stand.publish(&listed, Arrivals::AtOnce).await?;
        stand::wait_emitted(stand.bus(), &stand.pipeline.name, numbers.end - 1, PATIENCE).await?;
        // The meter ends before the records are read: each is a request, and costs the broker as much as a hop.
        record = meter.put(&stand, count, record).await;
        let records = stand.emitted(numbers, PATIENCE).await?;
        ours.push(steady_rate(&stand::stored_times(&records)));
        let passed = floor.run(count, Arrivals::AtOnce).await?;
        let mut last: Vec<u64> = passed.iter().map(|passed| passed.last).collect();
        last.sort_unstable();
        bare.push(steady_rate(&last));
    }
    record
        .with("blocks_per_s", median(&ours).round())
        .with("floor_blocks_per_s", median(&bare).round())
        .ratio("ratio", "blocks_per_s", "floor_blocks_per_s")
        .with("spread", spread(&ours).to_vec())
        .with("floor_spread", spread(&bare).to_vec())
        .with("blocks", count)
        .publish()
}
