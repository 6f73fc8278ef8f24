//! Time to drain a queue that is full from the start, until its last block is emitted.

use crate::{
    record::Context,
    stand::{self, Arrivals, Stand},
    stats::{median, round, spread},
};
use std::time::Duration;

const PROVE: Duration = Duration::from_millis(100);
/// Queued blocks and slots: ideally 3 and 10 seconds of work.
const BURSTS: [(u64, u32); 2] = [(300, 10), (10_000, 100)];

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    for (queued, slots) in BURSTS {
        let builder = stand::services().service(stand::prover("p1", slots, PROVE));
        let mut stand = Stand::start(builder, &stand::single(false)).await?;
        stand.run(u64::from(slots) * 3, Arrivals::AtOnce).await?;
        let mut took = Vec::new();
        for _ in 0..context.profile.pick(if queued > 1_000 { 1 } else { 3 }, 5) {
            let records = stand.run(queued, Arrivals::AtOnce).await?;
            took.push(round(stand::drained_s(&records)?));
        }
        let ideal = queued as f64 * PROVE.as_secs_f64() / f64::from(slots);
        context
            .record("burst")
            .with("queued", queued)
            .with("drain_s", median(&took))
            .with("ideal_s", round(ideal))
            .with("spread_s", spread(&took).to_vec())
            .with("provers", slots)
            .publish()?;
    }
    Ok(())
}
