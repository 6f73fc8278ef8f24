//! Finds the reason why a block without a record waits, and how far its stages are.

use crate::failure::Failure;
use crate::waits::{self, Facts, Open};
use crate::work_in_flight::{HeldTask, Waiting};
use push0_bus::{Bus, Pipelines};
use push0_domain::message::{ResultEvent, StageReady, Task, TaskResult};
use push0_domain::pipeline::Pipeline;
use push0_domain::subject::{AttemptKey, Kind};
use push0_domain::{BlockKey, PipelineId, ProofType};
use push0_operate::holds;
use serde::Serialize;
use std::collections::BTreeMap;

/// The reason why a block without a record waits.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Explained {
    /// One sentence.
    pub(crate) waits_for: String,
    /// How far the stages of each proof are, such as `prove 99/99, aggregate 16/34, wrap 0/1`.
    pub(crate) stages: Vec<String>,
}

/// Explains a block by its messages and by the attempts in leases.
pub(crate) async fn explain(
    bus: &Bus,
    pipeline: &PipelineId,
    number: u64,
    queued: bool,
    (waiting, held): (&[Waiting], &[HeldTask]),
) -> Result<Explained, Failure> {
    let definition = Pipelines::bind(bus).await?.newest_of(pipeline).await?;
    let of = |kinds: &[Kind]| -> Vec<String> {
        let those = waiting
            .iter()
            .filter(|waiting| kinds.iter().any(|kind| kind.as_str() == waiting.kind));
        those.flat_map(|waiting| waiting.stages.keys().cloned()).collect()
    };
    let zkvms = definition.as_ref().map(Pipeline::zkvms).unwrap_or_default();
    let (all_holds, _) = holds::list(bus).await?;
    let holds = all_holds.into_iter().filter(|(zkvm, _)| zkvms.contains(zkvm));
    let facts = Facts {
        number,
        next: bus.output(pipeline).await?.map(|(output, _)| output.next()),
        queued,
        held: held.iter().map(HeldTask::as_held).collect(),
        stages: of(&[Kind::Stage]),
        tasks: of(&[Kind::Task]),
        checks: of(&[Kind::Check]),
        results: of(&[Kind::Result, Kind::Verdict]),
        is_in_range: definition
            .as_ref()
            .is_some_and(|definition| definition.range().is_some()),
        holds: holds
            .map(|(zkvm, hold)| {
                let failures = hold.failures;
                format!(
                    "the queue of zkVM {zkvm} is held, because {failures} attempts failed without a success"
                )
            })
            .collect(),
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
        let Some(of) = tasks_of(bus, &of_stage).await? else {
            continue;
        };
        let is_result = |kind: Kind| matches!(kind, Kind::Result | Kind::Verdict);
        let mut done: Vec<u32> = of_stage
            .iter()
            .filter(|(kind, ..)| is_result(*kind))
            .map(|(_, key, _)| key.index)
            .collect();
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

/// Returns how many tasks the stage of these messages has, from the first message that tells.
async fn tasks_of(bus: &Bus, messages: &[(Kind, &AttemptKey, &str)]) -> Result<Option<u32>, Failure> {
    use push0_bus::Stream;
    for (kind, _, subject) in messages {
        let of = match kind {
            Kind::Stage => {
                let kept = bus.last::<StageReady>(Stream::Stages, subject).await?;
                kept.and_then(|kept| kept.body.ok()).map(|ready| ready.tasks.of)
            }
            Kind::Task => {
                let kept = bus.last::<Task>(Stream::Tasks, subject).await?;
                kept.and_then(|kept| kept.body.ok()).map(|task| task.header.of)
            }
            Kind::Check => {
                let kept = bus.last::<TaskResult>(Stream::Checks, subject).await?;
                kept.and_then(|kept| kept.body.ok())
                    .map(|result| result.header.of)
            }
            _ => {
                let kept = bus.last::<ResultEvent>(Stream::Results, subject).await?;
                match kept.and_then(|kept| kept.body.ok()) {
                    Some(ResultEvent::Attempt(result)) => Some(result.header.of),
                    _ => None,
                }
            }
        };
        if of.is_some() {
            return Ok(of);
        }
    }
    Ok(None)
}
