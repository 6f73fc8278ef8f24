//! Builds the task of an attempt from its source message.

use crate::decide::Release;
use push0_domain::{
    Announcement, CriticalPath, Payload, Payloads, PipelineId, SealKeys, Timestamp,
    codec::CodecError,
    message::{BlockContext, ObservedBlock, StageKind, StageReady, Task, TaskHeader},
    path::Leg,
    pipeline::{Pipeline, Stage},
    seal::Seal,
    task::{first_attempt, start_of},
    trace::TraceContext,
};
use std::{sync::Arc, time::Duration};

/// The body of a source message.
#[derive(Clone, Debug)]
pub enum Body {
    /// A block, and when its message was stored.
    Block(ObservedBlock, Timestamp),
    /// A ready stage, or a further attempt.
    Stage(StageReady),
}

/// The body of a source message, and the trace context of the message.
pub type Traced = Arc<(Body, TraceContext)>;

impl Body {
    /// Returns the pipeline and the revision named by the message.
    pub fn revision(&self) -> (&PipelineId, u32) {
        match self {
            Self::Block(block, _) => (&block.pipeline, block.revision),
            Self::Stage(stage) => (&stage.stage.pipeline, stage.context.revision),
        }
    }

    /// Returns the approximate size in memory, in bytes.
    pub fn size(&self) -> usize {
        let payload = |p: &Payload| {
            if let Payload::Inline(bytes) = p {
                bytes.len()
            } else {
                0
            }
        };
        512 + match self {
            Self::Block(block, _) => payload(&block.input),
            Self::Stage(stage) => stage.inputs.inline_len() + stage.path.legs.len() * size_of::<Leg>(),
        }
    }

    /// Builds the task of a release that waited for so long, with the seal on its header. Returns `None` if the pipeline
    /// does not define its stage.
    pub fn task(
        &self,
        release: &Release,
        held_us: u64,
        pipeline: &Pipeline,
        keys: &SealKeys,
    ) -> Option<Result<Task, CodecError>> {
        let mut task = self.unsealed(release, pipeline)?;
        task.header.path = task.header.path.held(held_us);
        let sealed =
            Seal::of_inputs(&task.inputs).and_then(|seal| keys.seal(TaskHeader { seal, ..task.header }));
        Some(sealed.map(|header| Task { header, ..task }))
    }

    fn unsealed(&self, release: &Release, pipeline: &Pipeline) -> Option<Task> {
        let proof = pipeline.proof(&release.stage.proof_type)?;
        let (_, stage) = proof.stage(&release.stage.stage)?;
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let (context, of, hedge_of, avoid, path, inputs) = match self {
            Self::Block(block, stored_at) => (
                context(block, Announcement(release.source.sequence()), *stored_at),
                1,
                None,
                Vec::new(),
                CriticalPath::behind(Vec::new(), *stored_at),
                Payloads::one(block.input.clone()),
            ),
            Self::Stage(ready) => {
                let inputs = inputs(ready, stage, release.index)?;
                (
                    ready.context.clone(),
                    ready.tasks.of,
                    ready.hedge_of,
                    ready.avoid.clone(),
                    ready.path.clone(),
                    inputs,
                )
            }
        };
        // While the block has proofs to spare, a late one does not end the block.
        let after = proof.fastest_after(&stage.name);
        let after = if pipeline.spare() == 0 {
            after
        } else {
            Duration::ZERO
        };
        let give_up_at = context.deadline_at.map(|deadline| deadline.minus(after));
        let header = TaskHeader {
            id: release.stage.task(release.index),
            attempt: release.key.attempt,
            hedge_of,
            zkvm: release.key.zkvm.clone(),
            context,
            kind: stage.kind,
            of,
            timeout_ms: millis(stage.timeout),
            hedge_after_ms: stage.hedge_after.map(millis),
            attempts_max: stage.attempts,
            give_up_at,
            check: proof.is_checked(&stage.name),
            program_id: proof.program_id.clone(),
            path,
            seal: Seal::default(),
        };
        Some(Task {
            header,
            inputs,
            avoid,
        })
    }
}

fn context(block: &ObservedBlock, announcement: Announcement, stored_at: Timestamp) -> BlockContext {
    BlockContext {
        amends: false,
        revision: block.revision,
        parent_hash: block.parent_hash,
        announcement,
        stored_at,
        first_announcement: None,
        deadline_at: block.deadline_at,
        facts: block.facts,
    }
}

/// Returns the inputs of the task at `index` in a ready stage.
fn inputs(ready: &StageReady, stage: &Stage, index: u32) -> Option<Payloads> {
    // A further attempt carries the inputs of its single task.
    if ready.attempt != first_attempt(start_of(ready.attempt)) {
        return Some(ready.inputs.clone());
    }
    let position = index - ready.tasks.first;
    match (stage.kind, stage.arity) {
        (StageKind::Join | StageKind::Range, Some(arity)) => {
            let end = (position * arity + arity).min(ready.inputs.count());
            (position * arity..end)
                .map(|at| ready.inputs.get(at))
                .collect::<Option<Vec<_>>>()
                .map(Payloads::List)
        }
        (StageKind::Join | StageKind::Range, _) => Some(ready.inputs.clone()),
        (StageKind::Map | StageKind::Split, _) => ready.inputs.get(position).map(Payloads::one),
    }
}
