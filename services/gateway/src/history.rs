//! Blocks that the model does not hold any more, read from their records.

use crate::{model::Model, trace::trace_id};
use futures::{StreamExt, TryStreamExt, stream};
use push0_bus::{Bus, BusError, Kept, Stream};
use push0_domain::{PipelineId, message::Emission, subject};

/// Reads in flight at once.
const READS: usize = 16;

/// Returns a model of the records of these numbers. Numbers inside a range have none of their own.
pub(crate) async fn read(
    bus: &Bus,
    pipeline: &PipelineId,
    numbers: impl Iterator<Item = u64>,
) -> Result<Model, BusError> {
    let read = async |number| -> Result<Option<Kept<Emission>>, BusError> {
        bus.last(Stream::Proofs, &subject::proof(pipeline, number)).await
    };
    let kept: Vec<Option<Kept<Emission>>> = stream::iter(numbers)
        .map(read)
        .buffered(READS)
        .try_collect()
        .await?;
    let mut model = Model::default();
    for kept in kept.into_iter().flatten() {
        if let Ok(record) = &kept.body {
            model.record(record, kept.stored_at, trace_id(&kept.trace));
        }
    }
    Ok(model)
}
