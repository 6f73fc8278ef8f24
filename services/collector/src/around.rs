//! The blocks around a range, and the first stage of a range of these blocks.

use crate::{
    advance,
    bodies::Bodies,
    ends::Ends,
    intake::Handle,
    state::{At, Block, Blocks, block_ref},
    task::Done,
};
use push0_domain::{
    BlockRef, CriticalPath, Payloads, PipelineId, StageKey, Timestamp,
    message::{BlockContext, BlockFacts, Dead, DeadLetter, StageReady},
    pipeline::Pipeline,
};
use std::sync::Arc;

/// Read-only inputs for forming ranges.
pub(crate) struct Around<'a, F> {
    pub(crate) pipeline: &'a PipelineId,
    pub(crate) blocks: &'a Blocks,
    /// The number to emit next.
    pub(crate) next: u64,
    /// Tells which numbers were cancelled.
    pub(crate) ends: &'a Ends,
    pub(crate) definition: F,
}

/// Returns the messages with the outputs of these blocks, as far as they are ready.
pub(crate) fn ready_in<F>(members: &[At], around: &Around<'_, F>) -> Vec<Handle> {
    let ready = |at: &At| Some(around.blocks.get(at)?.ready()?.handle);
    members.iter().filter_map(ready).collect()
}

/// Returns which of these blocks was ready last.
pub(crate) fn newest_of<F>(members: &[At], around: &Around<'_, F>) -> Option<(At, Done)> {
    let ready = |at: &At| Some((*at, around.blocks.get(at)?.ready()?));
    members
        .iter()
        .filter_map(ready)
        .max_by_key(|(_, done)| done.handle)
}

/// Returns the first stage of a range of these blocks, closed at `closed_at`, and its position in the proof. The messages
/// with their outputs are in memory.
pub(crate) fn first_stage<F>(
    members: &[At],
    around: &Around<'_, F>,
    bodies: &Bodies,
    closed_at: Timestamp,
) -> Option<(StageReady, usize)>
where
    F: Fn(u32) -> Option<Arc<Pipeline>>,
{
    let handles = ready_in(members, around);
    let done = || handles.iter().filter_map(|handle| bodies.completed(*handle));
    let last_at = *members.last()?;
    let definition = (around.definition)(around.blocks.get(&last_at)?.revision)?;
    let spec = definition.proofs.iter().find(|spec| spec.range().is_some())?;
    let (position, stage) = spec.stage(&spec.range()?.name)?;
    let (first, context) = context(members, around)?;
    let tasks = stage.task_count(u32::try_from(members.len()).unwrap_or(u32::MAX));
    let (_, newest) = newest_of(members, around)?;
    let legs = bodies.completed(newest.handle)?.legs.clone();
    let ready = StageReady {
        stage: StageKey {
            pipeline: around.pipeline.clone(),
            block: block_ref(last_at),
            first: Some(first),
            proof_type: spec.proof_type.clone(),
            stage: stage.name.clone(),
        },
        context,
        zkvm: stage.zkvm.clone(),
        tasks: advance::level(stage, tasks, 0),
        attempt: 1,
        hedge_of: None,
        failed: 0,
        avoid: Vec::new(),
        inputs: Payloads::List(done().filter_map(|d| d.outputs.get(0)).collect()),
        path: CriticalPath::behind(legs, closed_at),
    };
    Some((ready, position))
}

/// Lets the letter of a task among several hold the first stage of its range: after the range's record, a retry of
/// the task alone would miss the other tasks.
pub(crate) fn from_its_blocks<F>(
    mut letter: DeadLetter,
    members: &[At],
    around: &Around<'_, F>,
    bodies: &Bodies,
) -> DeadLetter
where
    F: Fn(u32) -> Option<Arc<Pipeline>>,
{
    if let Dead::Task { retry, .. } = &mut letter.what
        && retry.tasks.of > 1
        && let Some((mut first, _)) = first_stage(members, around, bodies, letter.at)
    {
        first.context.amends = true;
        *retry = first;
    }
    letter
}

/// Returns the first of these blocks, and the context for messages about their range.
pub(crate) fn context<F>(members: &[At], around: &Around<'_, F>) -> Option<(BlockRef, BlockContext)> {
    let blocks = members
        .iter()
        .filter_map(|at| Some((*at, around.blocks.get(at)?)));
    let blocks: Vec<(At, &Box<Block>)> = blocks.collect();
    let (first_at, first) = *blocks.first()?;
    let (_, last) = *blocks.last()?;
    let facts = || blocks.iter().filter_map(|(_, block)| block.facts.as_deref());
    let context = BlockContext {
        revision: last.revision,
        parent_hash: first.parent_hash,
        announcement: last.announcement,
        stored_at: last.stored_at,
        first_announcement: Some(first.announcement),
        deadline_at: last.deadline_at,
        amends: last.amends,
        facts: BlockFacts {
            gas_used: facts().map(|facts| facts.gas_used).fold(0, u64::saturating_add),
            transactions: facts()
                .map(|facts| facts.transactions)
                .fold(0, u32::saturating_add),
            timestamp_s: facts().next_back().map_or(0, |facts| facts.timestamp_s),
        },
    };
    Some((block_ref(first_at), context))
}
