//! Ids of the spans of a block, and the spans between its root and its attempts.

use super::{
    context::Trace,
    span::{Attributes, Kind, Span, SpanId, Value},
};
use crate::{BlockRef, PipelineId, ProofType, StageKey, Timestamp, message::BlockFacts, message::Failure};

/// The place of a stage in the tree of its block: the ids of its spans and of those above and below.
#[derive(Clone, Copy, Debug)]
pub struct Branch<'a> {
    /// The trace of the block or range.
    pub trace: &'a Trace,
    /// The stage.
    pub stage: &'a StageKey,
}

impl Branch<'_> {
    fn id(&self, kind: &str, what: &str) -> SpanId {
        self.trace.id.span(kind, &format!("{} {what}", self.trace.root))
    }

    /// Returns the id of the proof.
    pub fn proof(&self) -> SpanId {
        proof_id(self.trace, &self.stage.proof_type)
    }

    /// Returns the id of the stage.
    pub fn stage(&self) -> SpanId {
        let StageKey {
            proof_type, stage, ..
        } = self.stage;
        self.id("stage", &format!("{proof_type}/{stage}"))
    }

    /// Returns the id of a task.
    pub fn task(&self, index: u32) -> SpanId {
        let StageKey {
            proof_type, stage, ..
        } = self.stage;
        self.id("task", &format!("{proof_type}/{stage}/{index}"))
    }

    /// Returns the id of an attempt.
    pub fn attempt(&self, index: u32, number: u32) -> SpanId {
        let StageKey {
            proof_type, stage, ..
        } = self.stage;
        self.id("attempt", &format!("{proof_type}/{stage}/{index}#{number}"))
    }

    /// Returns a span of this trace.
    pub(super) fn span(
        &self,
        (id, parent): (SpanId, SpanId),
        name: String,
        times: (Timestamp, Timestamp),
    ) -> Span {
        let span = Span::new((self.trace.id, id, Some(parent)), name, times);
        span.with("block.number", self.stage.block.number)
    }
}

/// Returns the id of a proof.
pub(super) fn proof_id(trace: &Trace, proof_type: &ProofType) -> SpanId {
    trace.id.span("proof", &format!("{} {proof_type}", trace.root))
}

/// Returns a leaf: a wait, or a piece of work that has no parts.
pub(super) fn leaf(trace: &Trace, parent: SpanId, name: &'static str, times: (Timestamp, Timestamp)) -> Span {
    let id = leaf_id(trace, parent, name);
    Span::new((trace.id, id, Some(parent)), name, times)
}

/// Returns the id of a leaf.
pub(super) fn leaf_id(trace: &Trace, parent: SpanId, name: &str) -> SpanId {
    trace.id.span(name, &parent.to_string())
}

/// Returns the details of a block for a span.
pub(super) fn about(pipeline: &PipelineId, block: &BlockRef) -> Attributes {
    vec![
        ("block.number", Value::from(block.number)),
        ("block.hash", Value::from(block.hash.to_string())),
        ("pipeline", Value::from(pipeline.as_str())),
    ]
}

/// Returns attributes of a message by OpenTelemetry's conventions.
pub(super) fn messaging(span: Span, stream: &'static str, operation: &'static str) -> Span {
    span.with("messaging.system", "nats")
        .with("messaging.destination.name", stream)
        .with("messaging.operation.name", operation)
        .with("messaging.operation.type", operation)
}

/// Returns the span of a block's way into BLOCKS, from its observation to the publication. The ingester writes it.
pub fn publish(trace: &Trace, pipeline: &PipelineId, block: &BlockRef, facts: &BlockFacts) -> Span {
    let times = (trace.times.observed_at, trace.times.proof_from);
    let mut span = leaf(trace, trace.root, "publish", times).kind(Kind::Producer);
    span.attributes.extend(about(pipeline, block));
    let span = span
        .with("block.gas_used", facts.gas_used)
        .with("block.transactions", facts.transactions);
    messaging(span, "PUSH0_BLOCKS", "send")
}

/// Returns the span of a task, from its readiness to its end. The collector writes it.
pub fn task(branch: &Branch<'_>, index: u32, end: Timestamp, failure: Option<&Failure>) -> Span {
    let (id, name) = (branch.task(index), format!("task {}", branch.stage.stage));
    let times = (branch.trace.times.task_from, end);
    let span = branch
        .span((id, branch.stage()), name, times)
        .with("task.id", branch.stage.task(index).to_string())
        .with("task.index", index);
    match failure {
        None => span,
        Some(failure) => span.failed(failure.class.as_str(), &failure.message, end),
    }
}

/// The end of a stage.
#[derive(Clone, Copy, Debug)]
pub struct StageTold<'a> {
    /// When the first of its tasks was done.
    pub first_done: Timestamp,
    /// When the last one was done, or the stage was given up.
    pub end: Timestamp,
    /// How many tasks the stage had.
    pub tasks: u32,
    /// Why it was given up.
    pub failure: Option<&'a Failure>,
}

/// Returns the spans of a stage that is over: the stage, and the wait of its first output for its last one. The
/// collector writes them.
pub fn stage(branch: &Branch<'_>, told: &StageTold<'_>) -> Vec<Span> {
    let id = branch.stage();
    let times = (branch.trace.times.stage_from, told.end);
    let span = branch
        .span(
            (id, branch.proof()),
            format!("stage {}", branch.stage.stage),
            times,
        )
        .with("stage.tasks", told.tasks);
    let span = match told.failure {
        None => span,
        Some(failure) => span.failed(failure.class.as_str(), &failure.message, told.end),
    };
    let waits = told.first_done < told.end && told.tasks > 1;
    let wait = waits.then(|| {
        let from = told.first_done.max(span.start);
        leaf(branch.trace, id, "join wait", (from, told.end))
    });
    std::iter::once(span).chain(wait).collect()
}
