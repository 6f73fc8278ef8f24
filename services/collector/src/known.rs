//! Reads facts about known blocks.

use push0_bus::{BusError, Facts};
use push0_domain::{PipelineId, Timestamp, message::KnownBlock, subject};

/// How many of the first known blocks are searched for the lowest number: more than an ingester
/// writes at once.
const FIRST_KNOWN: usize = 256;

/// Returns the lowest number among the blocks that became known first, since an ingester writes the blocks of
/// one window at once.
pub(crate) async fn first_known(
    known: &Facts<KnownBlock>,
    name: &PipelineId,
) -> Result<Option<u64>, BusError> {
    let first = known.first(&format!("{name}.>"), FIRST_KNOWN).await?;
    let blocks = first.into_iter().filter_map(|fact| fact.value);
    Ok(blocks.map(|known| known.block.number).min())
}

pub(crate) async fn known_at(
    known: &Facts<KnownBlock>,
    name: &PipelineId,
    number: u64,
) -> Result<Vec<(KnownBlock, Timestamp)>, BusError> {
    let facts = known.list(&subject::facts::known_blocks(name, number)).await?;
    Ok(facts
        .into_iter()
        .filter_map(|fact| Some((fact.value?, fact.stored_at)))
        .collect())
}
