//! Reads what happened before the gateway began to listen: the last records, blocks in flight, the fleet.

use crate::{
    gate,
    model::{MISSING_MAX, Reading},
    newest,
    shared::Shared,
    trace::trace_id,
};
use futures::{StreamExt, TryStreamExt, stream};
use push0_bus::{Bucket, Bus, BusError, Fact, Facts, Kept, Stream, now};
use push0_domain::{
    PipelineId,
    message::{Emission, KnownBlock, Lease, ObservedBlock},
    subject::{self, AttemptKey, Kind},
};

/// How many records of each pipeline are read.
const RECORDS: u64 = 100;
/// How many rounds of blocks in flight are read.
const ROUNDS: usize = 8;
/// How many facts are asked for at once.
const READS: usize = 8;
/// How many heartbeats are read.
const LEASES_MAX: usize = 4_096;
/// How many released attempts are read.
const ATTEMPTS_MAX: usize = 5_000;

/// Puts into the model what is stored. Newer messages may be heard meanwhile.
pub(crate) async fn recall(bus: &Bus, shared: &Shared, reading: &Reading) -> Result<(), BusError> {
    for (definition, output) in &reading.pipelines {
        if let Some(next) = output.next {
            for number in next.saturating_sub(RECORDS)..next {
                record(bus, shared, &definition.name, number).await?;
            }
        }
    }
    for _ in 0..ROUNDS {
        if fill(bus, shared).await? < MISSING_MAX {
            break;
        }
    }
    let hear = |kept: Kept<Lease>| {
        let lease = gate::lease(&kept.subject, kept.body.ok()?)?;
        shared.with(|model| model.heard_before(&lease, kept.stored_at));
        Some(())
    };
    newest::read(bus, Stream::Leases, &subject::all(Kind::Lease), LEASES_MAX, hear).await?;
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
        shared.with(|model| model.recorded_before(record, kept.stored_at, trace_id(&kept.trace)));
    }
    Ok(())
}

/// Reads blocks next to the outputs that the model does not hold. Returns how many it asked for.
pub(crate) async fn fill(bus: &Bus, shared: &Shared) -> Result<usize, BusError> {
    let missing = shared.with(|model| model.missing());
    if missing.is_empty() {
        return Ok(0);
    }
    let facts = &bus.facts::<KnownBlock>(Bucket::Blocks).await?;
    let found = stream::iter(&missing).map(|(pipeline, number)| known(facts, pipeline, *number));
    let mut found = found.buffered(READS);
    while let Some(found) = found.try_next().await? {
        if let Some((observed, stored_at)) = found {
            shared.with(|model| model.recalled(&observed, stored_at));
        }
    }
    Ok(missing.len())
}

/// Returns what the ingester stored last about a block of this number, without the witness.
pub(crate) async fn known(
    facts: &Facts<KnownBlock>,
    pipeline: &PipelineId,
    number: u64,
) -> Result<Option<(ObservedBlock, push0_domain::Timestamp)>, BusError> {
    let look = facts
        .look(&subject::facts::known_blocks(pipeline, number))
        .await?;
    let Some(Ok(Fact {
        value: Some(known),
        stored_at,
        ..
    })) = look
    else {
        return Ok(None);
    };
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
    Ok(Some((observed, stored_at)))
}
