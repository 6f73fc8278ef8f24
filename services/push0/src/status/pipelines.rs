//! Pipelines: how far the chain, the ingester and the output have come.

use super::model::{PipelineStatus, Problem, Unproved};
use crate::failure::Failure;
use crate::record::Record;
use crate::{graph, records};
use push0_bus::{Bucket, Bus, BusError, Pipelines};
use push0_domain::message::{EmissionOutcome, EndReason, KnownBlock};
use push0_domain::pipeline::{Pipeline, Position, Source};
use push0_domain::{PipelineId, ZkvmId, subject};
use std::collections::BTreeSet;
use std::sync::Arc;

/// How many records in a row without a proof are told: one dead block may be the block's own fault.
const UNPROVED_MIN: usize = 3;

/// Returns the state of each pipeline, and what of it cannot be read.
pub(super) async fn read(bus: &Bus) -> Result<Vec<Result<PipelineStatus, String>>, Failure> {
    let mut pipelines = Vec::new();
    let defined = Pipelines::bind(bus).await?;
    let (current, unreadable) = defined.all().await?;
    pipelines.extend(unreadable.into_iter().map(|(_, reason)| Err(reason)));
    for pipeline in current {
        match bus.output(&pipeline.name).await {
            Err(error @ BusError::Corrupt { .. }) => pipelines.push(Err(error.to_string())),
            read => drop(read?),
        }
        pipelines.push(Ok(PipelineStatus {
            is_ingested: pipeline.source != Source::External,
            ..status_of(bus, &pipeline).await?
        }));
        let cursors = bus.facts::<Position>(Bucket::State).await?;
        let key = Position::key(&pipeline.name);
        if let Err(error @ BusError::Corrupt { .. }) = cursors.get(&key).await {
            pipelines.push(Err(error.to_string()));
        }
    }
    for name in defined.removed().await? {
        let in_flight = match bus.in_flight(&name).await {
            Err(error @ BusError::Corrupt { .. }) => {
                pipelines.push(Err(error.to_string()));
                continue;
            }
            in_flight => in_flight?,
        };
        let Some(pipeline) = defined.newest_of(&name).await?.filter(|_| in_flight > 0) else {
            continue;
        };
        pipelines.push(Ok(PipelineStatus {
            policy: format!("removed, {in_flight} in flight"),
            ..status_of(bus, &pipeline).await?
        }));
    }
    Ok(pipelines)
}

/// Returns the pipelines, and adds what is unreadable to the problems.
pub(super) fn split(
    found: Vec<Result<PipelineStatus, String>>,
    problems: &mut Vec<Problem>,
) -> Vec<PipelineStatus> {
    let mut readable = Vec::new();
    for pipeline in found {
        match pipeline {
            Ok(pipeline) => readable.push(pipeline),
            Err(unreadable) => problems.push(Problem::new(format!("{unreadable}; `push0 repair` mends it"))),
        }
    }
    readable
}

async fn status_of(bus: &Bus, pipeline: &Pipeline) -> Result<PipelineStatus, Failure> {
    let newest = records::newest(bus, &pipeline.name).await?;
    let recorded_at = newest.as_ref().map(|record| record.stored_at);
    let unproved = match &newest {
        Some(record) if lacks_proof(record) => {
            unproved(&records::tail(bus, &pipeline.name, UNPROVED_MIN).await?)
        }
        _ => None,
    };
    let cursor = bus.facts::<Position>(Bucket::State).await?;
    let cursor = cursor.look(&Position::key(&pipeline.name)).await?;
    let cursor = cursor.and_then(Result::ok).and_then(|fact| fact.value);
    let first = cursor.as_ref().and_then(|cursor| cursor.first);
    let ingested = cursor.and_then(|cursor| cursor.block).map(|block| block.number);
    // Before the first record, the output waits for the first block.
    let next = newest.map(|record| record.emission.next).or(first);
    let known = match next {
        Some(number) => known(bus, &pipeline.name, number).await?,
        None => None,
    };
    let own = definition_of(bus, pipeline, known.as_ref()).await?;
    let definitions = || std::iter::once(pipeline).chain(own.as_deref());
    Ok(PipelineStatus {
        name: pipeline.name.to_string(),
        revision: pipeline.revision,
        policy: graph::policy(pipeline),
        head: None,
        ingested,
        next,
        lag: lag(ingested, next),
        behind_head: None,
        recorded_at,
        unproved,
        next_observed_at: known.map(|known| known.observed_at),
        zkvms: distinct(definitions().flat_map(Pipeline::zkvms)),
        checked: distinct(definitions().flat_map(Pipeline::checked_zkvms)),
        is_ingested: false,
    })
}

/// Returns whether a block got no proof although neither an operator nor the chain wished so.
fn lacks_proof(record: &Record) -> bool {
    match &record.emission.outcome {
        EmissionOutcome::Proved(_)
        | EmissionOutcome::Abandoned(EndReason::Cancelled { .. } | EndReason::Reorged) => false,
        EmissionOutcome::Dead { .. } | EmissionOutcome::Abandoned(_) => true,
    }
}

/// Returns what the newest records, oldest first, tell of if none of them has a proof.
fn unproved(newest: &[Record]) -> Option<Unproved> {
    let (oldest, last) = (newest.first()?, newest.last()?);
    let are_enough = newest.len() >= UNPROVED_MIN && newest.iter().all(lacks_proof);
    are_enough.then(|| Unproved {
        count: newest.len(),
        block: last.emission.last.number,
        outcome: push0_operate::outcome(&last.emission.outcome),
        since: oldest.stored_at,
    })
}

/// Returns the definition of a block's own revision, if it is not the current one and can be read. A block keeps its revision,
/// so the next one may wait for zkVMs that the current definition does not name.
async fn definition_of(
    bus: &Bus,
    current: &Pipeline,
    known: Option<&KnownBlock>,
) -> Result<Option<Arc<Pipeline>>, Failure> {
    let Some(known) = known.filter(|known| known.revision != current.revision) else {
        return Ok(None);
    };
    let definitions = Pipelines::bind(bus).await?;
    Ok(definitions
        .revision(&current.name, known.revision)
        .await
        .ok()
        .flatten())
}

fn distinct(zkvms: impl Iterator<Item = ZkvmId>) -> Vec<ZkvmId> {
    zkvms.collect::<BTreeSet<_>>().into_iter().collect()
}

/// Returns the block of a number that was observed last; `None` if none is known. Unreadable facts are passed over.
async fn known(bus: &Bus, pipeline: &PipelineId, number: u64) -> Result<Option<KnownBlock>, Failure> {
    let facts = bus.facts::<KnownBlock>(Bucket::Blocks).await?;
    let (known, _) = facts
        .sorted(&subject::facts::known_blocks(pipeline, number))
        .await?;
    let known = known.into_iter().filter_map(|fact| fact.value);
    Ok(known.max_by_key(|known| known.observed_at))
}

impl PipelineStatus {
    /// Adds the head of the chain, as the leading ingester tells it. The head of a node that was reset may lie below what
    /// was ingested.
    pub(super) fn with_head(self, head: Option<u64>) -> Self {
        Self {
            behind_head: lag(head, self.next),
            head,
            ..self
        }
    }
}

fn lag(newest: Option<u64>, next: Option<u64>) -> Option<u64> {
    Some(newest?.saturating_add(1).saturating_sub(next?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{proof, record};

    #[test]
    fn the_lag_is_what_was_ingested_and_not_emitted() {
        assert_eq!(lag(Some(10), Some(8)), Some(3));
        assert_eq!(lag(Some(10), Some(11)), Some(0));
        assert_eq!((lag(None, Some(1)), lag(Some(1), None)), (None, None));
        let pipeline = PipelineStatus {
            next: Some(8),
            ..PipelineStatus::default()
        };
        assert_eq!(pipeline.clone().with_head(Some(20)).behind_head, Some(13));
        assert_eq!(pipeline.with_head(None).behind_head, None);
    }

    fn ended(number: u64, reason: EndReason) -> Record {
        record(number, EmissionOutcome::Abandoned(reason))
    }

    #[test]
    fn three_blocks_in_a_row_without_a_proof_are_told() {
        let late = |number| ended(number, EndReason::DeadlinePassed);
        let dead = record(
            8,
            EmissionOutcome::Dead {
                dead_letter: "1".into(),
                reason: "failed".into(),
            },
        );
        let told = unproved(&[late(7), dead.clone(), late(9)]).expect("three of them");
        assert_eq!(
            (told.count, told.block, told.outcome.as_str()),
            (3, 9, "too late")
        );
        assert_eq!(unproved(&[dead.clone(), late(9)]), None);
        let proved = record(8, EmissionOutcome::Proved(vec![proof(None)]));
        assert_eq!(unproved(&[late(7), proved, late(9)]), None);
        let cancelled = ended(
            9,
            EndReason::Cancelled {
                note: "no use".into(),
            },
        );
        assert_eq!(unproved(&[late(7), dead, cancelled]), None);
    }
}
