//! Retries of dead blocks that are under way.

use crate::block_range::BlockRange;
use crate::failure::Failure;
use crate::work_in_flight::{self, Waiting};
use push0_bus::{Bus, Pipelines, Stream};
use push0_domain::pipeline::Pipeline;
use push0_domain::plain::one_line;
use push0_domain::subject::{self, Kind};
use push0_domain::{PipelineId, ZkvmId, message::HeldQueue};
use push0_operate::holds;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// Returns the newest attempt of an operator's retry among the messages about a block; `None` if no retry is under way.
pub(crate) async fn attempt(bus: &Bus, waiting: &[Waiting]) -> Result<Option<u32>, Failure> {
    let mut messages: Vec<_> = waiting.iter().flat_map(|waiting| &waiting.messages).collect();
    messages.sort_by_key(|(key, _)| std::cmp::Reverse(key.attempt));
    for (key, subject) in messages {
        let told = work_in_flight::told(bus, subject).await?;
        if told.is_some_and(|told| told.amends) {
            return Ok(Some(key.attempt));
        }
    }
    Ok(None)
}

/// Returns the numbers of these blocks that have a record before `next` and are retried.
pub(crate) async fn numbers(
    bus: &Bus,
    pipeline: &PipelineId,
    BlockRange { first, last }: BlockRange,
    next: u64,
) -> Result<BTreeSet<u64>, Failure> {
    let mut found = BTreeSet::new();
    for (stream, kind) in [(Stream::Stages, Kind::Stage), (Stream::Tasks, Kind::Task)] {
        let messages = bus
            .subjects(stream, &subject::attempts_of_pipeline(kind, pipeline))
            .await?;
        for (subject, _) in messages {
            let block = subject::attempt_of(&subject, kind).map(|key| key.block);
            let is_named = |number: &u64| *number < next && (first..=last).contains(number);
            let Some(number) = block.map(|block| block.number).filter(is_named) else {
                continue;
            };
            let told = work_in_flight::told(bus, &subject).await?;
            found.extend(told.filter(|told| told.amends).map(|_| number));
        }
    }
    Ok(found)
}

/// Returns a sentence about each held queue of a pipeline's zkVMs in which tasks of these blocks wait.
pub(crate) async fn held_queues(
    bus: &Bus,
    pipeline: &PipelineId,
    blocks: RangeInclusive<u64>,
) -> Result<Vec<String>, Failure> {
    let definition = Pipelines::bind(bus).await?.newest_of(pipeline).await?;
    let zkvms = definition.as_ref().map(Pipeline::zkvms).unwrap_or_default();
    let (all, _) = holds::list(bus).await?;
    let held = all
        .into_iter()
        .filter(|(zkvm, hold)| zkvms.contains(zkvm) && hold.concerns(pipeline, &blocks));
    Ok(held.map(|(zkvm, hold)| sentence(&zkvm, &hold)).collect())
}

fn sentence(zkvm: &ZkvmId, hold: &HeldQueue) -> String {
    let HeldQueue { failures, error, .. } = hold;
    let error = one_line(error.lines().next().unwrap_or_default());
    match &hold.task {
        None => format!(
            "the queue of zkVM {zkvm} is held, because {failures} attempts failed without a success, the last one with: \
             {error}"
        ),
        Some(task) => format!(
            "{failures} attempts at {} failed, while no other attempt of zkVM {zkvm} succeeded or failed, the last one \
             with: {error}",
            task.task_in_words()
        ),
    }
}
