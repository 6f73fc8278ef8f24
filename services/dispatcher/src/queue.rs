//! In-memory order of the ready stages, per zkVM. The durable copy is the unacknowledged messages.
//!
//! An entry is a whole stage, so memory grows with stages and not with tasks, and taking a task costs the
//! same however many tasks its entry has.

use push0_domain::{PipelineId, urgency::Urgency};
use std::collections::{BTreeMap, HashMap};

/// An entry's number, assigned by the dispatcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(pub usize);

/// Entries of one zkVM by pipeline and urgency.
///
/// Within a pipeline the most urgent entry goes first. Between pipelines, stride scheduling applies: the pass
/// of each pipeline advances by `1 / weight` with every task, and the pipeline with the least pass goes next,
/// so over time each gets its share and none starves. An idle pipeline resumes at the pass of the others, and
/// gets its share from then on, without credit for the idle time.
#[derive(Debug, Default)]
pub struct Queue {
    lanes: HashMap<PipelineId, Lane>,
    /// The pass of the task taken last.
    now: u64,
}

#[derive(Debug)]
struct Lane {
    pass: u64,
    stride: u64,
    /// No two entries have the same urgency, because their ages differ.
    ready: BTreeMap<Urgency, EntryId>,
}

/// Advance of a pass per task at weight 1. Higher weights divide it.
const STRIDE: u64 = 1 << 20;

impl Queue {
    /// Adds an entry.
    pub fn push(&mut self, pipeline: &PipelineId, weight: u32, urgency: Urgency, id: EntryId) {
        let now = self.now;
        let lane = self.lanes.entry(pipeline.clone()).or_insert(Lane {
            pass: now,
            stride: STRIDE,
            ready: BTreeMap::new(),
        });
        if lane.ready.is_empty() {
            lane.pass = lane.pass.max(now);
        }
        lane.stride = (STRIDE / u64::from(weight.max(1))).max(1);
        lane.ready.insert(urgency, id);
    }

    /// Returns the entry whose task goes next, and leaves it in the queue.
    pub fn peek(&self) -> Option<EntryId> {
        let (_, lane) = self.next_lane()?;
        lane.ready.first_key_value().map(|(_, id)| *id)
    }

    fn next_lane(&self) -> Option<(&PipelineId, &Lane)> {
        let waiting = self.lanes.iter().filter(|(_, lane)| !lane.ready.is_empty());
        waiting.min_by(|(a, x), (b, y)| (x.pass, a).cmp(&(y.pass, b)))
    }

    /// Advances the pass of a pipeline from which a task was taken.
    pub fn charge(&mut self, pipeline: &PipelineId) {
        if let Some(lane) = self.lanes.get_mut(pipeline) {
            self.now = self.now.max(lane.pass);
            lane.pass += lane.stride;
        }
    }

    /// Removes an entry. Does nothing if the entry is absent.
    pub fn remove(&mut self, pipeline: &PipelineId, urgency: Urgency) {
        if let Some(lane) = self.lanes.get_mut(pipeline) {
            lane.ready.remove(&urgency);
            // A lane made anew would start at the current pass, so an empty lane at or behind it
            // can be dropped.
            if lane.ready.is_empty() && lane.pass <= self.now {
                self.lanes.remove(pipeline);
            }
        }
    }

    /// Drops the empty lane of a removed pipeline.
    pub fn forget(&mut self, pipeline: &PipelineId) {
        if self.lanes.get(pipeline).is_some_and(|lane| lane.ready.is_empty()) {
            self.lanes.remove(pipeline);
        }
    }

    /// Returns the number of waiting entries.
    pub fn len(&self) -> usize {
        self.lanes.values().map(|lane| lane.ready.len()).sum()
    }

    /// Returns whether no entry waits.
    pub fn is_empty(&self) -> bool {
        self.lanes.values().all(|lane| lane.ready.is_empty())
    }
}
