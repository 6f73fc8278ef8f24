//! Queues that the dispatcher holds because no attempt succeeds.

use push0_bus::{Bucket, Bus, BusError, Unreadable};
use push0_domain::{ZkvmId, message::HeldQueue, subject};

/// Returns the held queues, and the facts about held queues that cannot be read.
pub async fn list(bus: &Bus) -> Result<(Vec<(ZkvmId, HeldQueue)>, Vec<Unreadable>), BusError> {
    let facts = bus.facts::<HeldQueue>(Bucket::State).await?;
    let (found, unreadable) = facts.sorted(&subject::facts::holds()).await?;
    let held = found
        .into_iter()
        .filter_map(|fact| Some((subject::facts::zkvm_of_hold(&fact.key)?, fact.value?)));
    Ok((held.collect(), unreadable))
}
