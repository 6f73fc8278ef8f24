//! Releases: when they may happen, which tasks are published, and the effects of the answers.

use super::{Found, Op, Outgoing, Session, Token};
use crate::{
    decide::{Release, SourceId},
    task::Traced,
};
use push0_bus::BusError;
use push0_domain::{PipelineId, SealKeys, Timestamp};

/// Most publishes in flight. At this limit no more messages are read.
const IN_FLIGHT_MAX: usize = 1024;

impl Session {
    /// Returns whether another message of a lane or of STAGES may be read.
    pub fn may_read(&self) -> bool {
        self.in_flight < IN_FLIGHT_MAX
    }

    /// Decides the present releases. Returns `None` while a message stored before this session is still to be read: it may
    /// be more urgent, or a cancel. `stages` and `lanes` tell how many such messages are left; behind a parked block none
    /// can be read.
    pub fn release<'a>(
        &mut self,
        stages: u64,
        lanes: impl IntoIterator<Item = (&'a PipelineId, u64)>,
        now: Timestamp,
    ) -> Option<Vec<Release>> {
        let is_replaying = |(name, left): (&PipelineId, u64)| {
            let lane = self.lanes.get(name);
            lane.is_none_or(|lane| !lane.has_looked || (lane.parked.is_none() && left > 0))
        };
        if stages > 0 || lanes.into_iter().any(is_replaying) {
            return None;
        }
        let mut releases = Vec::new();
        while self.in_flight < IN_FLIGHT_MAX
            && let Some(release) = self.core.release(now)
        {
            self.in_flight += 1;
            releases.push(release);
        }
        Some(releases)
    }

    /// Returns the cached body of a message. Other bodies are to be read from the stream.
    pub fn body(&self, source: SourceId) -> Option<Traced> {
        self.bodies.get(source)
    }

    /// Builds the tasks of a round of releases, and ends the round.
    pub fn publish(
        &mut self,
        round: Vec<Found>,
        keys: &SealKeys,
        now: Timestamp,
    ) -> Result<Vec<Op>, BusError> {
        let mut ops = Vec::with_capacity(round.len());
        for (release, found) in round {
            let held_us = self.waits.held_us(release.source, now);
            let task = found.and_then(|(traced, pipeline)| {
                let task = traced.0.task(&release, held_us, &pipeline, keys)?;
                Some((traced, task))
            });
            let Some((traced, task)) = task else {
                // An operator purged the message meanwhile, so there is nothing left to release.
                ops.extend(self.stored((release.source, release.index)));
                continue;
            };
            let task = task.map_err(|source| BusError::Corrupt {
                what: release.stage.task(release.index).to_string(),
                source,
            })?;
            ops.push(Op::Publish(Box::new(Outgoing {
                release,
                task,
                traced,
            })));
        }
        self.waits.round_is_over();
        Ok(ops)
    }

    /// Handles the answer to a publish: the task is in TASKS. A message is acknowledged after the last of its answers.
    pub fn stored(&mut self, (source, index): Token) -> Vec<Op> {
        self.in_flight = self.in_flight.saturating_sub(1);
        let effects = self.core.stored(source, index);
        let mut ops = self.follow(effects);
        ops.extend(self.next_cancel());
        ops
    }
}
