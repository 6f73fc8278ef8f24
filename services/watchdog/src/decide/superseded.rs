//! Stops attempts no longer wanted: for blocks that were emitted, cancelled or replaced, and for tasks of
//! which another copy was accepted.

use super::{Effect, Reason, Watchdog};
use crate::won::Won;
use push0_domain::{
    Participant, PipelineId, Timestamp,
    message::{BlockEnded, Emission, Held, TaskHeader},
    output::Output,
    task::start_of,
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
    /// Returns whether other copies of a task run or are in flight, which an accepted attempt would stop.
    pub fn has_rivals(&self, accepted: &TaskHeader, now: Timestamp) -> bool {
        let won = Won::of(accepted, now);
        let was_hedged = self.hedged.iter().any(|hedged| hedged.task == accepted.id);
        was_hedged || self.held().any(|(_, held)| won.beats(&accepted.id, &held.header))
    }

    /// Handles an accepted attempt: other copies of its task are stopped.
    pub fn accepted(&mut self, accepted: &TaskHeader, now: Timestamp) -> Vec<Effect> {
        if !self.has_rivals(accepted, now) {
            return Vec::new();
        }
        let (task, won) = (&accepted.id, Won::of(accepted, now));
        if self.won.len() < WON_MAX {
            let winner = self.won.entry(task.clone()).or_insert(won);
            let order = |won: &Won| (won.claim, start_of(won.attempt));
            if order(winner) < order(&won) {
                *winner = won;
            }
        }
        self.stop_where(now, |held| won.beats(task, &held.header).then_some(Reason::Won))
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
            let winner = won.get(&held.header.id)?;
            let task = &held.header.id;
            winner.beats(task, &held.header).then_some(Reason::Won)
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
        self.won.retain(|_, won| now.since(won.at) < STOPPED_FOR);
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
