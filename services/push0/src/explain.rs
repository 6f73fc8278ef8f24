//! Finds the reason why a block without a record waits, and how far its stages are.

use crate::failure::Failure;
use crate::waits::{self, Facts, Open};
use crate::work_in_flight::{self, HeldTask, Waiting};
use crate::{retrying, status};
use push0_bus::{Bus, Pipelines};
use push0_domain::message::Role;
use push0_domain::pipeline::{Pipeline, Source};
use push0_domain::subject::{AttemptKey, Kind};
use push0_domain::{BlockKey, PipelineId, ProofType, ZkvmId};
use push0_operate::room;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The reason why a block without a record waits.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Explained {
    /// One sentence.
    pub(crate) waits_for: String,
    /// How far the stages of each proof are, such as `prove 99/99, aggregate 16/34, wrap 0/1`.
    pub(crate) stages: Vec<String>,
}

/// What was found of a block without a record.
pub(crate) struct Seen<'a> {
    pub(crate) number: u64,
    /// Whether the ingester knows the block, or there is any message about it.
    pub(crate) is_known: bool,
    /// Whether its own message waits for the dispatcher.
    pub(crate) queued: bool,
    /// The revision of the pipeline with which the block was ingested, as far as it is known.
    pub(crate) revision: Option<u32>,
    /// Where the output goes on, if the record of the block is of a chain that was replaced.
    pub(crate) replaced_from: Option<u64>,
    pub(crate) waiting: &'a [Waiting],
    pub(crate) held: &'a [HeldTask],
}

/// Explains a block by its messages and by the attempts in leases.
pub(crate) async fn explain(bus: &Bus, pipeline: &PipelineId, seen: &Seen<'_>) -> Result<Explained, Failure> {
    let Seen { waiting, held, .. } = seen;
    let pipelines = Pipelines::bind(bus).await?;
    let newest = pipelines.newest_of(pipeline).await?.map(Arc::new);
    let current = newest.as_ref().map(|newest| newest.revision);
    let outdated = seen.revision.filter(|revision| Some(*revision) != current);
    let has_node = newest
        .as_ref()
        .is_some_and(|newest| matches!(newest.source, Source::Ethereum(_)));
    // A revision that is lost or cannot be read is told elsewhere.
    let own = match outdated {
        Some(revision) => pipelines.revision(pipeline, revision).await.ok().flatten(),
        None => None,
    };
    let definition = own.or(newest);
    let of = |kinds: &[Kind]| -> Vec<String> {
        let those = waiting
            .iter()
            .filter(|waiting| kinds.iter().any(|kind| kind.as_str() == waiting.kind));
        those.flat_map(|waiting| waiting.stages.keys().cloned()).collect()
    };
    let zkvms = |kinds: &[Kind]| -> BTreeSet<ZkvmId> {
        let messages = waiting.iter().flat_map(|waiting| &waiting.messages);
        let those =
            messages.filter(|(_, subject)| Kind::of(subject).is_some_and(|kind| kinds.contains(&kind)));
        those.map(|(key, _)| key.zkvm.clone()).collect()
    };
    let mut wanted = zkvms(&[Kind::Stage, Kind::Task]);
    if wanted.is_empty() && seen.queued {
        let proofs = definition.iter().flat_map(|definition| &definition.proofs);
        wanted.extend(proofs.filter_map(|proof| Some(proof.first()?.zkvm.clone())));
    }
    let checking = zkvms(&[Kind::Check]);
    let (failures, last_failure) = failures(bus, waiting).await?;
    let facts = Facts {
        unserved: unserved(bus, Role::Prover, wanted).await?,
        unverified: unserved(bus, Role::Verifier, checking).await?,
        full: full(bus).await,
        number: seen.number,
        unknown_to: (!seen.is_known).then(|| pipeline.to_string()),
        next: bus.output(pipeline).await?.map(|(output, _)| output.next()),
        queued: seen.queued,
        held: held.iter().map(HeldTask::as_held).collect(),
        stages: of(&[Kind::Stage]),
        tasks: of(&[Kind::Task]),
        checks: of(&[Kind::Check]),
        results: of(&[Kind::Result, Kind::Verdict]),
        is_in_range: definition
            .as_ref()
            .is_some_and(|definition| definition.range().is_some()),
        holds: retrying::held_queues(bus, pipeline, seen.number..=seen.number).await?,
        outdated,
        reset_of: has_node.then(|| pipeline.to_string()),
        failures,
        last_failure,
        replaced_from: seen.replaced_from,
    };
    let stages = match &definition {
        Some(definition) => stages(bus, definition, waiting).await?,
        None => Vec::new(),
    };
    Ok(Explained {
        waits_for: waits::sentence(&facts),
        stages,
    })
}

/// Returns the zkVMs of which none is heard.
async fn unserved(bus: &Bus, role: Role, mut wanted: BTreeSet<ZkvmId>) -> Result<Vec<String>, Failure> {
    if !wanted.is_empty() {
        let heard = status::heard(bus, role).await?;
        wanted.retain(|zkvm| !heard.contains(zkvm));
    }
    Ok(wanted.iter().map(ToString::to_string).collect())
}

/// Most results of a block that are searched for failures, the newest ones: each is a request.
const RESULTS_MAX: usize = 256;

/// Returns how many attempts at the block failed, and how the newest of them failed.
async fn failures(bus: &Bus, waiting: &[Waiting]) -> Result<(usize, Option<String>), Failure> {
    let mut messages: Vec<_> = waiting.iter().flat_map(|waiting| &waiting.messages).collect();
    messages.retain(|(_, subject)| matches!(Kind::of(subject), Some(Kind::Result | Kind::Verdict)));
    messages.sort_by_key(|(key, _)| key.attempt);
    let (mut count, mut last) = (0, None);
    let older = messages.len().saturating_sub(RESULTS_MAX);
    for (_, subject) in messages.into_iter().skip(older) {
        if let Some(failure) = work_in_flight::failure(bus, subject).await? {
            (count, last) = (count + 1, Some(failure));
        }
    }
    Ok((count, last))
}

/// Returns what says that no work is released for want of room. A stream without an answer says nothing here.
async fn full(bus: &Bus) -> Option<String> {
    let mut levels = Vec::new();
    for (name, standing) in bus.standings().await {
        levels.extend(standing.ok().map(|standing| (name, standing.level)));
    }
    let levels: Vec<_> = levels
        .iter()
        .map(|(name, level)| (name.as_str(), *level))
        .collect();
    room::of_work(&levels)
}

/// The messages of one proof of a block or range.
type OfProof<'a> = Vec<(Kind, &'a AttemptKey, &'a str)>;

/// Returns how far each proof is whose block has messages.
async fn stages(bus: &Bus, definition: &Pipeline, waiting: &[Waiting]) -> Result<Vec<String>, Failure> {
    let mut proofs: BTreeMap<(BlockKey, &ProofType), OfProof<'_>> = BTreeMap::new();
    for waiting in waiting {
        for (key, subject) in &waiting.messages {
            let Some(kind) = Kind::of(subject) else { continue };
            let of = proofs.entry((key.block, &key.proof_type)).or_default();
            of.push((kind, key, subject));
        }
    }
    let mut found = Vec::new();
    for ((block, proof_type), messages) in proofs {
        let Some(spec) = definition
            .proofs
            .iter()
            .find(|spec| spec.proof_type == *proof_type)
        else {
            continue;
        };
        let newest = spec
            .stages
            .iter()
            .rev()
            .find(|stage| messages.iter().any(|(_, key, _)| key.stage == stage.name));
        let Some(stage) = newest else { continue };
        let of_stage: OfProof<'_> = messages
            .into_iter()
            .filter(|(_, key, _)| key.stage == stage.name)
            .collect();
        let (of, mut done) = tasks(bus, &of_stage).await?;
        let Some(of) = of else { continue };
        done.sort_unstable();
        done.dedup();
        let open = Open {
            stage: stage.name.to_string(),
            of,
            done,
            highest: of_stage.iter().map(|(_, key, _)| key.index).max().unwrap_or(0),
        };
        if let Some(progress) = waits::progress(spec, &open, block.blocks) {
            let range = if block.blocks > 1 {
                format!(" of {}..{}", block.first(), block.number)
            } else {
                String::new()
            };
            found.push(format!("{proof_type}{range}: {progress}"));
        }
    }
    Ok(found)
}

/// Returns how many tasks the stage of these messages has, from the first message that tells, and the indexes of those that
/// an attempt has completed.
async fn tasks(bus: &Bus, messages: &OfProof<'_>) -> Result<(Option<u32>, Vec<u32>), Failure> {
    let (mut of, mut done) = (None, Vec::new());
    for (kind, key, subject) in messages {
        let is_result = matches!(kind, Kind::Result | Kind::Verdict);
        if of.is_some() && !is_result {
            continue;
        }
        if let Some(told) = work_in_flight::told(bus, subject).await? {
            of = of.or(Some(told.of));
            done.extend(told.is_completed.then_some(key.index));
        }
    }
    Ok((of, done))
}
