//! Whether a more urgent block ever waits for a less urgent one.
//!
//! Blocks are stored in a random order before there is any prover; then one prover with one place
//! takes them. Whatever it ends before a lower number is an inversion. The baseline is the order in
//! which a plain work queue delivers: that of storage.

use crate::{
    record::Context,
    stand::{self, Arrivals, Stand},
};
use push0_bus::{Stream, now};
use push0_domain::{
    message::{BlockEvent, ResultEvent},
    subject::{self, Kind},
};
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use std::time::Duration;

pub(crate) async fn run(context: &Context) -> anyhow::Result<()> {
    let mut stand = Stand::start(stand::services(), &stand::single(false)).await?;
    let count = context.profile.pick(300, 3_000);
    let mut numbers: Vec<u64> = stand.known(count).await?.collect();
    numbers.shuffle(&mut StdRng::seed_from_u64(context.seed));
    stand.publish(&numbers, Arrivals::AtOnce).await?;
    let stored = stand
        .bus()
        .scan::<BlockEvent>(Stream::Blocks, &subject::all(Kind::Block), 1, usize::MAX)
        .await?;
    let stored = stored.into_iter().filter_map(|kept| match kept.body {
        Ok(BlockEvent::Observed(block)) => Some(block.block.number),
        _ => None,
    });
    let fifo = inversions(&stored.collect::<Vec<_>>());
    let mut signals = stand.bus().listen([subject::all(Kind::Result)]).await?;
    let prover = stand::prover("p1", 1, Duration::from_millis(2)).env("PUSH0_PROVER__AHEAD", "never");
    let began = now();
    stand.deployment.start_service(prover);
    let mut ended = Vec::new();
    while (ended.len() as u64) < count {
        if let ResultEvent::Attempt(result) = signals.next().await?.body()? {
            ended.push(result.header.id.stage.block.number);
        }
    }
    let took: Duration = now().since(began);
    context
        .record("priority")
        .with("inversions", inversions(&ended))
        .with("fifo_inversions", fifo)
        .with("blocks", count)
        .with("seconds", took.as_secs_f64())
        .publish()
}

/// How many pairs stand in the wrong order.
pub(crate) fn inversions(order: &[u64]) -> u64 {
    let after = |at: usize| order[at + 1..].iter().filter(|later| **later < order[at]).count() as u64;
    (0..order.len()).map(after).sum()
}

#[cfg(test)]
mod tests {
    use super::inversions;

    #[test]
    fn pairs_in_the_wrong_order_are_counted() {
        assert_eq!(inversions(&[1, 2, 3]), 0);
        assert_eq!(inversions(&[3, 2, 1]), 3);
        assert_eq!(inversions(&[2, 1, 3]), 1);
    }
}
