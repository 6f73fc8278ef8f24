//! A queue that is there at once, and how long it takes until its last block is emitted.

use crate::{
    record::Context,
    stand::{self, Arrivals, Stand},
    stats::{median, round, spread},
};
use std::time::Duration;

const SLOTS: u32 = 10;
const PROVE: Duration = Duration::from_millis(100);

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let builder = stand::services().service(stand::prover("p1", SLOTS, PROVE));
    let mut stand = Stand::start(builder, &stand::single(false)).await?;
    stand.run(100, Arrivals::AtOnce).await?;
    let sizes: &[u64] = context.profile.pick(&[300], &[300, 3000]);
    for queued in sizes {
        let mut took = Vec::new();
        for _ in 0..3 {
            let records = stand.run(*queued, Arrivals::AtOnce).await?;
            let mut first = u64::MAX;
            for kept in &records {
                first = first.min(stand::proved(kept)?.stored_at.0);
            }
            let last = stand::stored_times(&records).last().copied().unwrap_or_default();
            took.push(round(last.saturating_sub(first) as f64 / 1e6));
        }
        context
            .record("burst")
            .with("queued", *queued)
            .with("drain_s", median(&took))
            .with(
                "ideal_s",
                round(*queued as f64 * PROVE.as_secs_f64() / f64::from(SLOTS)),
            )
            .with("spread_s", spread(&took).to_vec())
            .publish()?;
    }
    Ok(())
}
