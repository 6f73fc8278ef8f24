//! Blocks and cancellations of the lanes: read in their turn, before their turn, or not yet.

use super::{
    Attempts, LateSearch, Op, Received, Session,
    lane::Lane,
    op::{Cancelling, never_defined},
};
use crate::{decide::SourceId, task::Body};
use push0_domain::{
    Announcement, PipelineId, Timestamp,
    message::{BlockEvent, Cancel},
    pipeline::Pipeline,
};
use std::{collections::BTreeSet, sync::Arc};

/// Most blocks waiting in all lanes together. With more than four lanes, each lane reads less far ahead.
const WAITING_MAX: u64 = 32_768;
/// Least number of blocks a lane reads ahead, however many lanes there are.
const AHEAD_MIN: u64 = 256;

impl Session {
    /// Handles the opening of a lane.
    pub fn open(&mut self, lane: &PipelineId, is_defined: bool, now: Timestamp) {
        self.lanes.insert(lane.clone(), Lane::new(is_defined, now));
    }

    /// Takes note of the pipelines with a definition.
    pub fn define(&mut self, defined: &BTreeSet<PipelineId>) {
        for (name, lane) in &mut self.lanes {
            lane.is_defined = defined.contains(name);
        }
    }

    /// Forgets a removed pipeline, unless some of its work waits. Returns whether the pipeline was forgotten.
    pub fn forget(&mut self, pipeline: &PipelineId) -> bool {
        let is_forgotten = self.core.forget(pipeline);
        if is_forgotten {
            self.lanes.remove(pipeline);
        }
        is_forgotten
    }

    /// Returns whether the next block of a lane waits for the output. Nothing behind this block is read.
    pub fn is_parked(&self, lane: &PipelineId) -> bool {
        self.lanes.get(lane).is_some_and(|lane| lane.parked.is_some())
    }

    /// Returns the lanes, and whether the next block of each waits for the output.
    pub fn lanes(&self) -> impl Iterator<Item = (&PipelineId, bool)> {
        let lanes = self.lanes.iter();
        lanes.map(|(name, lane)| (name, lane.parked.is_some()))
    }

    /// Returns the lanes whose next block waits for the output.
    pub fn parked(&self) -> Vec<PipelineId> {
        let parked = self.lanes().filter(|(_, is_parked)| *is_parked);
        parked.map(|(name, _)| name.clone()).collect()
    }

    /// Makes a lane wait with a block, because of the output or because stored state cannot be read.
    pub fn park(&mut self, lane: &PipelineId, block: Received<BlockEvent>) {
        if let Some(lane) = self.lanes.get_mut(lane) {
            lane.parked = Some(block);
        }
    }

    /// Returns a parked block, to receive it again: the output may have moved on, or the block may be cancelled.
    pub fn unpark(&mut self, lane: &PipelineId, now: Timestamp) -> Option<Received<BlockEvent>> {
        self.lanes.get_mut(lane)?.unpark(now)
    }

    /// Handles a message in its turn: takes the message in, or parks its lane if the message is a block too far ahead.
    /// `definition` is the revision named by the block.
    pub fn receive(
        &mut self,
        lane: &PipelineId,
        message: Received<BlockEvent>,
        definition: Option<Arc<Pipeline>>,
    ) -> Vec<Op> {
        if !self.has_room(lane, &message, definition.as_deref()) {
            self.park(lane, message);
            return Vec::new();
        }
        let Some(state) = self.lanes.get_mut(lane) else {
            return Vec::new();
        };
        if let Some(is_done) = state.pass(message.sequence) {
            // A late block is acknowledged now at the earliest, because the consumer has delivered it only now.
            let done = Op::Acknowledge(SourceId::Block(message.sequence));
            return is_done.then_some(done).into_iter().collect();
        }
        self.take_in(lane, message, definition)
    }

    /// Takes in a block published late, before its turn.
    pub fn receive_late(
        &mut self,
        lane: &PipelineId,
        message: Received<BlockEvent>,
        definition: Option<Arc<Pipeline>>,
    ) -> Vec<Op> {
        let state = self.lanes.get_mut(lane);
        if !state.is_some_and(|lane| lane.takes(message.sequence)) {
            return Vec::new();
        }
        self.take_in(lane, message, definition)
    }

    fn take_in(
        &mut self,
        lane: &PipelineId,
        message: Received<BlockEvent>,
        definition: Option<Arc<Pipeline>>,
    ) -> Vec<Op> {
        self.core.replays(message.is_replay);
        let source = SourceId::Block(message.sequence);
        let (kind, pipeline) = match &message.body {
            BlockEvent::Observed(block) => ("block", &block.pipeline),
            BlockEvent::Cancelled(cancel) => ("cancel", &cancel.pipeline),
        };
        if pipeline != lane {
            let reason = format!("a {kind} of pipeline `{pipeline}` on the subject of `{lane}`");
            return Op::refuse(source, message.subject, reason, None);
        }
        let block = match message.body {
            BlockEvent::Observed(block) => block,
            BlockEvent::Cancelled(cancel) => {
                self.cancels.push_back(Cancelling {
                    sequence: message.sequence,
                    cancel,
                    is_early: false,
                });
                return self.next_cancel().into_iter().collect();
            }
        };
        let Some(pipeline) = definition else {
            let reason = never_defined(lane, block.revision);
            let blocks = (
                block.pipeline,
                block.block..=block.block,
                Announcement(message.sequence),
            );
            return Op::refuse(source, message.subject, reason, Some(blocks));
        };
        let effects = self.core.block(source, block.block, block.deadline_at, &pipeline);
        if effects.is_empty() {
            let (lane, stored_at) = (self.lanes.get(lane), message.stored_at);
            let was_held_back = lane.is_some_and(|lane| lane.held_back(stored_at));
            self.waits.begin(source, stored_at, was_held_back);
            self.bodies
                .keep(source, Body::Block(block, stored_at), message.trace);
        }
        self.follow(effects)
    }

    /// Returns whether a message may be taken in: a block only if it is near enough to the output.
    fn has_room(
        &mut self,
        lane: &PipelineId,
        message: &Received<BlockEvent>,
        definition: Option<&Pipeline>,
    ) -> bool {
        let BlockEvent::Observed(observed) = &message.body else {
            return true;
        };
        // A pipeline without a definition has no collector and never emits, so its blocks would wait forever.
        let is_defined = self.lanes.get(lane).is_some_and(|lane| lane.is_defined);
        if !is_defined || observed.pipeline != *lane {
            return true;
        }
        let widest = definition.and_then(Pipeline::range).and_then(|range| range.every);
        let ahead = self.ahead(widest.unwrap_or(0).into());
        self.core.announced(lane, observed.block.number);
        let source = SourceId::Block(message.sequence);
        self.core.has_room(source, lane, &observed.block, ahead)
    }

    /// Returns how many blocks ahead of its output a pipeline is read. `widest` is the number of blocks in
    /// its widest range, whose blocks are needed together.
    fn ahead(&self, widest: u64) -> u64 {
        let lanes = (self.lanes.len() as u64).max(1);
        let share = (WAITING_MAX / lanes).max(AHEAD_MIN);
        self.ahead.min(share).max(2 * widest)
    }

    /// Returns the sequence behind which cancellations are to be searched for; `None` while there is no room for more.
    pub fn seeks_cancels(&self, lane: &PipelineId) -> Option<u64> {
        let has_room = self.core.has_room_for_cancels(lane);
        self.lanes.get(lane).filter(|_| has_room).map(|lane| lane.passed)
    }

    /// Handles the end of a search for cancellations. Those found are applied before their turn, and their blocks may be
    /// unread.
    pub fn receive_early(
        &mut self,
        lane: &PipelineId,
        cancels: impl IntoIterator<Item = (u64, Cancel)>,
    ) -> Vec<Op> {
        let Some(state) = self.lanes.get_mut(lane) else {
            return Vec::new();
        };
        state.has_looked = true;
        let is_ahead =
            |(sequence, cancel): &(u64, Cancel)| *sequence > state.passed && cancel.pipeline == *lane;
        let early = |(sequence, cancel)| Cancelling {
            sequence,
            cancel,
            is_early: true,
        };
        let cancels = cancels.into_iter().filter(is_ahead).map(early);
        self.cancels.extend(cancels);
        self.next_cancel().into_iter().collect()
    }

    /// Begins to apply the next cancellation, once no publish is in flight: an attempt must be in TASKS before it can be
    /// purged. Early cancellations without room take effect in their turn.
    pub(super) fn next_cancel(&mut self) -> Option<Op> {
        while let Some(next) = self.cancels.front()
            && next.is_early
            && !self.core.has_room_for_cancels(&next.cancel.pipeline)
        {
            self.cancels.pop_front();
        }
        (self.in_flight == 0 && self.awaits_answers()).then_some(Op::ListTasks)
    }

    /// Returns whether a cancellation waits for the answers to publishes. Until it is applied, nothing else is told to
    /// the session: a release between the two could be of a cancelled block.
    pub fn awaits_answers(&self) -> bool {
        !self.cancels.is_empty()
    }

    /// Applies the next cancellation, with a list of the attempts in TASKS.
    pub fn list(&mut self, held: &Attempts) -> Vec<Op> {
        let Some(next) = self.cancels.pop_front() else {
            return Vec::new();
        };
        let source = SourceId::Block(next.sequence);
        let held = held.values().flatten();
        let effects = self.core.cancel(source, &next.cancel, held, next.is_early);
        let mut ops = self.follow(effects);
        ops.extend(self.next_cancel());
        ops
    }

    /// Returns the search for late blocks in a lane, if the output stands still while a block is parked.
    pub fn seeks_late_blocks(&mut self, lane: &PipelineId, now: Timestamp) -> Option<LateSearch> {
        let (front, ahead) = (self.core.front(lane)?, self.ahead(0));
        let parked = self.lanes.get_mut(lane)?.waits_still(front, now)?;
        Some(LateSearch { parked, front, ahead })
    }
}
