//! Blocks that the model does not hold, read from their records and from what the ingester stored.

use crate::{model::Model, recall, trace::trace_id};
use futures::{StreamExt, TryStreamExt, stream};
use push0_bus::{Bucket, Bus, BusError, Kept, Stream, now};
use push0_domain::{
    PipelineId,
    message::{Emission, KnownBlock},
    subject,
};

/// Reads in flight at once. A record holds its proofs.
const READS: usize = 4;

/// Returns a model of the records of these numbers. Numbers inside a range have none of their own. Records from `next` on are
/// those of a chain that was replaced.
pub(crate) async fn read(
    bus: &Bus,
    pipeline: &PipelineId,
    numbers: impl Iterator<Item = u64>,
    next: Option<u64>,
) -> Result<Model, BusError> {
    let read = async |number| -> Result<Option<Kept<Emission>>, BusError> {
        bus.last(Stream::Proofs, &subject::proof(pipeline, number)).await
    };
    let mut model = Model::default();
    let mut records = stream::iter(numbers).map(read).buffered(READS);
    while let Some(kept) = records.try_next().await? {
        if let Some(kept) = kept
            && let Ok(record) = &kept.body
        {
            model.recorded_before(record, kept.stored_at, trace_id(&kept.trace));
        }
    }
    if let Some(next) = next {
        model.replaced_from(pipeline, next, now());
    }
    Ok(model)
}

/// Returns a model of one block: of its record, or of its announcement if it has none that counts.
pub(crate) async fn one(
    bus: &Bus,
    pipeline: &PipelineId,
    number: u64,
    next: Option<u64>,
) -> Result<Model, BusError> {
    let mut model = read(bus, pipeline, std::iter::once(number), next).await?;
    if model.find(pipeline, Some(number), None).is_none() {
        let facts = bus.facts::<KnownBlock>(Bucket::Blocks).await?;
        if let Some((observed, stored_at)) = recall::known(&facts, pipeline, number).await? {
            model.recalled(&observed, stored_at);
        }
    }
    Ok(model)
}
