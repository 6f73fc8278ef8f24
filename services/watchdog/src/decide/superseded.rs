//! Stops attempts no longer wanted: for blocks that were emitted, cancelled or replaced, and for tasks of
//! which another copy was accepted.

use super::{Effect, Reason, Watchdog};
use push0_domain::{
    Participant, PipelineId, Timestamp,
    message::{BlockEnded, Emission, Held},
    output::Output,
    task::{TaskId, is_superfluous, start_of},
    wanted::{Claim, Claims},
};
use std::time::Duration;

/// How long superseded attempts are stopped wherever they appear, since they may have been in flight to a
/// prover, and an order may be lost.
const STOPPED_FOR: Duration = Duration::from_secs(60);
/// Most ends of blocks kept in memory.
const ENDS_MAX: usize = 256;
/// Most won tasks kept in memory. Copies of further ones run to their end.
const WON_MAX: usize = 4096;
/// How long a pipeline's output is kept in memory after the last record, while none of its tasks is held.
const OUTPUT_FOR: Duration = Duration::from_secs(3600);

impl Watchdog {
    /// Handles an accepted attempt: other copies of its task are stopped.
    pub fn accepted(&mut self, task: &TaskId, attempt: u32, now: Timestamp) -> Vec<Effect> {
        let is_other = |held: &Held| {
            // Compare numbers first: they differ for most tasks, and this runs at the end of every attempt.
            held.header.id.index == task.index
                && held.header.id.stage.block.number == task.stage.block.number
                && is_superfluous(held.header.attempt, attempt)
                && held.header.id == *task
        };
        let was_hedged = self.hedged.iter().any(|hedged| hedged.task == *task);
        let has_room = self.won.len() < WON_MAX;
        if has_room && (was_hedged || self.held().any(|(_, held)| is_other(held))) {
            let winner = self.won.entry(task.clone()).or_insert((attempt, now));
            if start_of(winner.0) < start_of(attempt) {
                *winner = (attempt, now);
            }
        }
        self.stop_where(now, |held| is_other(held).then_some(Reason::Won))
    }

    /// Handles a stored record. Attempts for its blocks are stopped with the next tick, since records come
    /// much more often than ticks.
    pub fn emitted(&mut self, record: &Emission, now: Timestamp) {
        let (output, heard_at) = self.outputs.entry(record.pipeline.clone()).or_default();
        output.note(record);
        *heard_at = now;
    }

    /// Returns the number a pipeline emits next, if known.
    pub fn next_of(&self, pipeline: &PipelineId) -> Option<u64> {
        self.outputs.get(pipeline).map(|(output, _)| output.next())
    }

    /// Replaces a pipeline's output with the stored one.
    pub fn recall_output(&mut self, pipeline: &PipelineId, output: Output, now: Timestamp) {
        self.outputs.insert(pipeline.clone(), (output, now));
    }

    pub(super) fn stop_recorded(&mut self, now: Timestamp) -> Vec<Effect> {
        let outputs = std::mem::take(&mut self.outputs);
        let effects = self.stop_where(now, |held| {
            let stage = &held.header.id.stage;
            let claim = Claim {
                announcement: held.header.context.first_announcement(),
                ..held.header.context.claim()
            };
            let (output, _) = outputs.get(&stage.pipeline)?;
            let demand = output.assess(stage.first_block().number, claim);
            (!demand.is_wanted()).then_some(Reason::Emitted)
        });
        self.outputs = outputs;
        effects
    }

    /// Handles the end of blocks no longer wanted.
    pub fn ended(&mut self, ended: &BlockEnded, now: Timestamp) -> Vec<Effect> {
        self.ends.push_back((ended.clone(), now));
        if self.ends.len() > ENDS_MAX {
            self.ends.pop_front();
        }
        self.stop_ended(now)
    }

    pub(super) fn stop_ended(&mut self, now: Timestamp) -> Vec<Effect> {
        let ends = std::mem::take(&mut self.ends);
        let effects = self.stop_where(now, |held| {
            let (stage, claim) = (&held.header.id.stage, held.header.context.claim());
            let is_ended = |(ended, _): &(BlockEnded, Timestamp)| {
                stage.pipeline == ended.pipeline && !ended.assess(stage, claim).is_wanted()
            };
            ends.iter().any(is_ended).then_some(Reason::Ended)
        });
        self.ends = ends;
        effects
    }

    pub(super) fn stop_losers(&mut self, now: Timestamp) -> Vec<Effect> {
        let won = std::mem::take(&mut self.won);
        let effects = self.stop_where(now, |held| {
            let (winner, _) = won.get(&held.header.id)?;
            is_superfluous(held.header.attempt, *winner).then_some(Reason::Won)
        });
        self.won = won;
        effects
    }

    pub(super) fn stop_where(
        &mut self,
        now: Timestamp,
        unwanted: impl Fn(&Held) -> Option<Reason>,
    ) -> Vec<Effect> {
        let found: Vec<(Participant, Held, Reason)> = self
            .held()
            .filter_map(|(prover, held)| Some((prover, held, unwanted(held)?)))
            .filter(|(prover, held, _)| !self.is_over(prover, held))
            .map(|(prover, held, reason)| (prover.clone(), held.clone(), reason))
            .collect();
        found
            .into_iter()
            .filter_map(|(prover, held, reason)| self.order(&prover, &held, reason, now))
            .collect()
    }

    /// Forgets superseded work of a while ago.
    pub(super) fn forget_superseded(&mut self, now: Timestamp) {
        self.ends.retain(|(_, at)| now.since(*at) < STOPPED_FOR);
        self.won.retain(|_, (_, at)| now.since(*at) < STOPPED_FOR);
        if self
            .outputs
            .values()
            .any(|(_, heard_at)| now.since(*heard_at) >= OUTPUT_FOR)
        {
            let held = self.pipelines();
            self.outputs
                .retain(|name, (_, heard_at)| now.since(*heard_at) < OUTPUT_FOR || held.contains(name));
        }
    }
}
