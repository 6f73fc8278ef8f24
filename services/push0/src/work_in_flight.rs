//! Location of a block without a record: messages about the block, and provers with its tasks.

use crate::failure::Failure;
use crate::status::LOST_AFTER;
use crate::waits::Held;
use push0_bus::{Bus, Pipelines, Stream, now};
use push0_domain::message::{
    BlockContext, BlockEvent, FailureClass, Lease, ResultEvent, StageReady, Task, TaskHeader, TaskResult,
};
use push0_domain::plain::one_line;
use push0_domain::{
    BlockKey, PipelineId,
    subject::{self, AttemptKey, Kind},
};
use serde::{Serialize, de::DeserializeOwned};
use std::collections::BTreeMap;

/// Maximum number of block messages to scan: a block message has no subject of its own.
const BLOCKS_SCANNED_MAX: usize = 2_000;

/// Messages of one kind about a block or its range.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Waiting {
    /// Kind of the messages, as in their subjects.
    pub(crate) kind: &'static str,
    /// Number of messages by `proof type.stage`.
    pub(crate) stages: BTreeMap<String, usize>,
    /// The messages, as far as their subjects name an attempt.
    #[serde(skip)]
    pub(crate) messages: Vec<(AttemptKey, String)>,
}

/// A task of the block held by a prover, according to the prover's lease.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct HeldTask {
    pub(crate) prover: String,
    pub(crate) task: String,
    pub(crate) attempt: u32,
    pub(crate) running_ms: Option<u64>,
    pub(crate) progress_permille: Option<u16>,
    pub(crate) heard_ms_ago: u64,
}

impl HeldTask {
    /// Returns the task as far as a sentence about its block needs it.
    pub(crate) fn as_held(&self) -> Held {
        Held {
            prover: self.prover.clone(),
            task: self.task.clone(),
            attempt: self.attempt,
            running_ms: self.running_ms,
            progress_permille: self.progress_permille,
            silent_ms: (u128::from(self.heard_ms_ago) > LOST_AFTER.as_millis()).then_some(self.heard_ms_ago),
        }
    }
}

/// Returns the messages that name a block, by kind. Kinds without messages are left out.
pub(crate) async fn waiting(
    bus: &Bus,
    pipeline: &PipelineId,
    block: BlockKey,
) -> Result<Vec<Waiting>, Failure> {
    let mut found = Vec::new();
    for (stream, kind) in KINDS {
        let subjects = subject::attempts_of_block(kind, pipeline, block);
        let messages = bus.subjects(stream, &subjects).await?;
        found.extend(Waiting::of(kind, &messages));
    }
    Ok(found)
}

/// Returns the messages that name a range with this block, by kind.
pub(crate) async fn waiting_in_ranges(
    bus: &Bus,
    pipeline: &PipelineId,
    number: u64,
) -> Result<Vec<Waiting>, Failure> {
    let definition = Pipelines::bind(bus).await?.current_of(pipeline).await?;
    let mut found = Vec::new();
    if definition.is_none_or(|definition| definition.range().is_none()) {
        return Ok(found);
    }
    for (stream, kind) in KINDS {
        let subjects = subject::attempts_of_pipeline(kind, pipeline);
        let mut messages = bus.subjects(stream, &subjects).await?;
        messages.retain(|(subject, _)| {
            let block = subject::attempt_of(subject, kind).map(|key| key.block);
            block.is_some_and(|b| b.blocks > 1 && (b.first()..=b.number).contains(&number))
        });
        found.extend(Waiting::of(kind, &messages));
    }
    Ok(found)
}

const KINDS: [(Stream, Kind); 5] = [
    (Stream::Stages, Kind::Stage),
    (Stream::Tasks, Kind::Task),
    (Stream::Checks, Kind::Check),
    (Stream::Results, Kind::Result),
    (Stream::Results, Kind::Verdict),
];

impl Waiting {
    fn of(kind: Kind, messages: &[(String, usize)]) -> Option<Self> {
        let mut stages: BTreeMap<String, usize> = BTreeMap::new();
        for (subject, count) in messages {
            *stages.entry(stage_of(subject)).or_default() += count;
        }
        let named =
            |(subject, _): &(String, usize)| Some((subject::attempt_of(subject, kind)?, subject.clone()));
        let messages = messages.iter().filter_map(named).collect();
        let kind = kind.as_str();
        (!stages.is_empty()).then_some(Self {
            kind,
            stages,
            messages,
        })
    }
}

/// Returns `proof type.stage` from an attempt's subject, whose last four tokens are
/// type, stage, index, attempt.
fn stage_of(subject: &str) -> String {
    let tokens: Vec<&str> = subject.rsplit('.').take(4).collect();
    match tokens[..] {
        [_, _, stage, proof_type] => format!("{proof_type}.{stage}"),
        _ => subject.to_owned(),
    }
}

/// What the body of a message tells of its attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    /// Number of tasks of the stage.
    pub(crate) of: u32,
    /// Whether the attempt completed its task.
    pub(crate) is_completed: bool,
    /// Whether the work amends the record of a dead block.
    pub(crate) amends: bool,
}

/// Reads a message about an attempt; `None` if it is gone or cannot be read.
pub(crate) async fn told(bus: &Bus, subject: &str) -> Result<Option<Told>, Failure> {
    let told = |of: u32, context: &BlockContext| Told {
        of,
        is_completed: false,
        amends: context.amends,
    };
    let of_task = |header: &TaskHeader| told(header.of, &header.context);
    Ok(match Kind::of(subject) {
        Some(Kind::Stage) => {
            let ready = body::<StageReady>(bus, Stream::Stages, subject).await?;
            ready.map(|ready| told(ready.tasks.of, &ready.context))
        }
        Some(Kind::Task) => {
            let task = body::<Task>(bus, Stream::Tasks, subject).await?;
            task.map(|task| of_task(&task.header))
        }
        Some(Kind::Check) => {
            let result = body::<TaskResult>(bus, Stream::Checks, subject).await?;
            result.map(|result| of_task(&result.header))
        }
        Some(Kind::Result | Kind::Verdict) => match body(bus, Stream::Results, subject).await? {
            Some(ResultEvent::Attempt(result)) => {
                let is_false = result
                    .verdict
                    .as_ref()
                    .is_some_and(|verdict| verdict.invalid.is_some());
                Some(Told {
                    is_completed: result.failure().is_none() && !is_false,
                    ..of_task(&result.header)
                })
            }
            _ => None,
        },
        _ => None,
    })
}

/// Returns in one line how the attempt of a result failed; `None` if it did not, was stopped, or cannot be read.
pub(crate) async fn failure(bus: &Bus, subject: &str) -> Result<Option<String>, Failure> {
    let Some(ResultEvent::Attempt(result)) = body(bus, Stream::Results, subject).await? else {
        return Ok(None);
    };
    let invalid = result
        .verdict
        .as_ref()
        .and_then(|verdict| verdict.invalid.clone());
    let (class, message) = match (result.failure(), invalid) {
        (Some(failure), _) if failure.class == FailureClass::Stopped => return Ok(None),
        (Some(failure), _) => (failure.class, failure.message),
        (None, Some(reason)) => (FailureClass::InvalidProof, reason),
        (None, None) => return Ok(None),
    };
    let first = one_line(message.lines().next().unwrap_or_default());
    Ok(Some(format!("{} by {}: {first}", class.as_str(), result.prover)))
}

async fn body<T: DeserializeOwned>(bus: &Bus, stream: Stream, subject: &str) -> Result<Option<T>, Failure> {
    let kept = bus.last::<T>(stream, subject).await?;
    Ok(kept.and_then(|kept| kept.body.ok()))
}

/// Returns whether the block's own message still waits for the dispatcher. Only the oldest
/// [`BLOCKS_SCANNED_MAX`] messages are searched.
pub(crate) async fn is_queued(bus: &Bus, pipeline: &PipelineId, number: u64) -> Result<bool, Failure> {
    let subject = subject::block(pipeline);
    let found = bus
        .scan::<BlockEvent>(Stream::Blocks, &subject, 1, BLOCKS_SCANNED_MAX)
        .await?;
    let is_it = |event: &BlockEvent| matches!(event, BlockEvent::Observed(b) if b.block.number == number);
    Ok(found.iter().any(|kept| kept.body.as_ref().is_ok_and(is_it)))
}

/// Returns the tasks of the block held by provers, according to their leases.
pub(crate) async fn held(bus: &Bus, pipeline: &PipelineId, number: u64) -> Result<Vec<HeldTask>, Failure> {
    let mut found = Vec::new();
    for (subject, _) in bus.subjects(Stream::Leases, &subject::all(Kind::Lease)).await? {
        let Some(kept) = bus.last::<Lease>(Stream::Leases, &subject).await? else {
            continue;
        };
        let heard = now().since(kept.stored_at);
        let Ok(lease) = kept.body else { continue };
        for held in lease.held {
            let stage = &held.header.id.stage;
            if stage.pipeline == *pipeline && stage.numbers().contains(&number) {
                found.push(HeldTask {
                    prover: lease.prover.to_string(),
                    task: held.header.id.to_string(),
                    attempt: held.header.attempt,
                    running_ms: held.running_ms,
                    progress_permille: held.progress_permille,
                    heard_ms_ago: u64::try_from(heard.as_millis()).unwrap_or(u64::MAX),
                });
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use push0_domain::subject::{AttemptKey, stage};

    #[test]
    fn a_subject_tells_its_stage() {
        let key = AttemptKey {
            zkvm: "miden".parse().unwrap(),
            pipeline: "demo".parse().unwrap(),
            block: BlockKey {
                number: 7,
                hash_prefix: [1, 2, 3, 4],
                blocks: 1,
            },
            proof_type: "fast".parse().unwrap(),
            stage: "prove".parse().unwrap(),
            index: 3,
            attempt: 1,
        };
        let subject = stage(&key);
        assert_eq!(stage_of(&subject), "fast.prove");
    }
}
