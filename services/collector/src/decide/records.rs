//! The next record, when it can be written.

use super::{Collector, REORG_DEPTH_MAX, Step};
use crate::{record, state::Handle};
use push0_domain::{
    BlockHash,
    message::{BlockEnded, EmissionOutcome},
    output::Emitted,
    pipeline::Pipeline,
};
use std::{collections::VecDeque, sync::Arc};

/// How many blocks may be on their way to a new record; beyond it the oldest stay dead.
const AMENDING_MAX: usize = 256;

impl Collector {
    /// New records for emitted blocks that were dead and are no more.
    ///
    /// One that is dead again stays as it is, with what was proved of it: another retry may complete it.
    pub(super) fn amend(&mut self, definition: &impl Fn(u32) -> Option<Arc<Pipeline>>) -> Vec<Step> {
        let mut amending: VecDeque<_> = self
            .blocks
            .range(..(self.next, BlockHash::default()))
            .map(|(at, block)| {
                (
                    *at,
                    record::outcome(block, definition(block.context.revision).as_deref()),
                )
            })
            .collect();
        let crowded = amending.len().saturating_sub(AMENDING_MAX);
        let mut over: Vec<_> = amending.drain(..crowded).map(|(at, _)| (at, None)).collect();
        let is_dead = |outcome: &EmissionOutcome| matches!(outcome, EmissionOutcome::Dead { .. });
        over.extend(
            amending
                .into_iter()
                .filter(|(_, outcome)| outcome.as_ref().is_some_and(|o| !is_dead(o))),
        );
        let mut steps = Vec::new();
        for (at, outcome) in over {
            let Some(mut block) = self.blocks.remove(&at) else {
                continue;
            };
            let handles = block.take_handles();
            match outcome {
                Some(outcome @ EmissionOutcome::Proved(_)) if self.amended.insert(at) => {
                    self.intake.decided();
                    let (emission, trace) = record::emission(&self.pipeline, &block, outcome, self.next);
                    steps.push(Step::Emit(Box::new(emission), trace, handles));
                }
                _ => steps.push(Step::Ack(handles)),
            }
        }
        steps
    }

    pub(super) fn emit(&mut self, definition: &impl Fn(u32) -> Option<Arc<Pipeline>>) -> Option<Step> {
        let parent = self
            .next
            .checked_sub(1)
            .and_then(|number| self.emitted.get(&number))
            .map(|parent| parent.hash);
        let candidates = self
            .blocks
            .range((self.next, BlockHash::default())..=(self.next, BlockHash([0xff; 32])));
        let linked = candidates.filter(|(_, b)| parent.is_none_or(|parent| parent == b.context.parent_hash));
        let (at, outcome) = linked
            .filter_map(|(at, block)| {
                Some((
                    *at,
                    record::outcome(block, definition(block.context.revision).as_deref())?,
                ))
            })
            .next()?;
        let mut block = self.blocks.remove(&at)?;
        let mut handles = block.take_handles();
        self.next += 1;
        self.intake.decided();
        let emitted = Emitted {
            hash: at.1,
            announced_at: block.context.stored_at,
        };
        self.emitted.insert(at.0, emitted);
        while self.emitted.len() > REORG_DEPTH_MAX {
            self.emitted.pop_first();
        }
        let next = self.next;
        let (over, kept) = std::mem::take(&mut self.ends)
            .into_iter()
            .partition(|(e, _)| e.last < next);
        self.ends = kept;
        let over: Vec<(BlockEnded, Handle)> = over;
        handles.extend(over.into_iter().map(|(_, handle)| handle));
        // Other blocks of this number lost the race to the chain.
        let losers: Vec<_> = self
            .blocks
            .range((at.0, BlockHash::default())..(next, BlockHash::default()))
            .map(|(at, _)| *at)
            .collect();
        handles.extend(
            losers
                .iter()
                .filter_map(|at| self.blocks.remove(at))
                .flat_map(|mut b| b.take_handles()),
        );
        let (emission, trace) = record::emission(&self.pipeline, &block, outcome, next);
        Some(Step::Emit(Box::new(emission), trace, handles))
    }
}
