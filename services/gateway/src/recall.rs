//! Reads what happened before the gateway began to listen: the last records, blocks in flight, the fleet.

use crate::{model::Reading, shared::Shared, trace::trace_id};
use push0_bus::{Bucket, Bus, BusError, Stream, now};
use push0_domain::{
    PipelineId,
    message::{Emission, KnownBlock, Lease, ObservedBlock},
    subject::{self, AttemptKey, Kind},
};

/// How many records of each pipeline are read.
const RECORDS: u64 = 100;
/// How many blocks in flight of each pipeline are read.
const IN_FLIGHT_MAX: u64 = 256;
/// How many released attempts are read.
const ATTEMPTS_MAX: usize = 5_000;

/// Puts into the model what is stored.
pub(crate) async fn recall(bus: &Bus, shared: &Shared, reading: &Reading) -> Result<(), BusError> {
    for (definition, output) in &reading.pipelines {
        if let Some(next) = output.next {
            for number in next.saturating_sub(RECORDS)..next {
                record(bus, shared, &definition.name, number).await?;
            }
        }
        let next = output.next.or(output.head).unwrap_or_default();
        let head = output.head.unwrap_or(next).min(next + IN_FLIGHT_MAX);
        for number in next..=head {
            known(bus, shared, &definition.name, number).await?;
        }
    }
    for (subject, _) in bus.subjects(Stream::Leases, &subject::all(Kind::Lease)).await? {
        if let Some(kept) = bus.last::<Lease>(Stream::Leases, &subject).await?
            && let Ok(lease) = kept.body
        {
            shared.with(|model| model.heard(lease, kept.stored_at));
        }
    }
    let released = bus.subjects(Stream::Tasks, &subject::all(Kind::Task)).await?;
    for (subject, _) in released.into_iter().take(ATTEMPTS_MAX) {
        if let Ok(key) = AttemptKey::parse(&subject, Kind::Task) {
            shared.with(|model| model.released(&key, now()));
        }
    }
    Ok(())
}

async fn record(bus: &Bus, shared: &Shared, pipeline: &PipelineId, number: u64) -> Result<(), BusError> {
    let kept = bus
        .last::<Emission>(Stream::Proofs, &subject::proof(pipeline, number))
        .await?;
    if let Some(kept) = kept
        && let Ok(record) = &kept.body
    {
        shared.with(|model| model.record(record, kept.stored_at, trace_id(&kept.trace)));
    }
    Ok(())
}

async fn known(bus: &Bus, shared: &Shared, pipeline: &PipelineId, number: u64) -> Result<(), BusError> {
    let facts = bus.facts::<KnownBlock>(Bucket::Blocks).await?;
    for fact in facts
        .sorted(&subject::facts::known_blocks(pipeline, number))
        .await?
        .0
    {
        let Some(known) = fact.value else { continue };
        let observed = ObservedBlock {
            pipeline: pipeline.clone(),
            revision: known.revision,
            block: known.block,
            parent_hash: known.parent_hash,
            input: push0_domain::Payload::Inline(Vec::new()),
            observed_at: known.observed_at,
            deadline_at: None,
            facts: known.facts,
        };
        shared.with(|model| model.observed(&observed, None, fact.stored_at));
    }
    Ok(())
}
