//! The persistent priority queue's face in memory: which ready entry goes next, per zkVM.
//!
//! What waits here is durable in the broker as unacknowledged messages; this is only their order.
//! An entry is a whole stage, so memory grows with stages and not with tasks, and taking a task
//! from it costs the same however many it has.

use push0_domain::{PipelineId, urgency::Urgency};
use std::collections::{BTreeMap, HashMap};

/// An entry's number, given by the dispatcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryId(pub usize);

/// Entries of one zkVM by pipeline and urgency.
///
/// Within a pipeline the most urgent goes first. Between pipelines, stride scheduling: each has a
/// pass that advances by `1 / weight` with every task, and the least pass goes next, so that over
/// time each gets its share and none waits for ever. A pipeline that was idle comes back at the
/// pass of the others: it gets its share from now on, not what it did not ask for.
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
    /// No two entries have the same urgency: their ages differ.
    ready: BTreeMap<Urgency, EntryId>,
}

/// One task's advance for weight 1; weights divide it.
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

    /// The entry whose task goes next, which stays in the queue.
    pub fn peek(&self) -> Option<EntryId> {
        let (_, lane) = self.next_lane()?;
        lane.ready.first_key_value().map(|(_, id)| *id)
    }

    fn next_lane(&self) -> Option<(&PipelineId, &Lane)> {
        let waiting = self.lanes.iter().filter(|(_, lane)| !lane.ready.is_empty());
        waiting.min_by(|(a, x), (b, y)| (x.pass, a).cmp(&(y.pass, b)))
    }

    /// Notes that a task of this pipeline was taken.
    pub fn charge(&mut self, pipeline: &PipelineId) {
        if let Some(lane) = self.lanes.get_mut(pipeline) {
            self.now = self.now.max(lane.pass);
            lane.pass += lane.stride;
        }
    }

    /// Removes an entry; nothing happens if it is not there.
    pub fn remove(&mut self, pipeline: &PipelineId, urgency: Urgency) {
        if let Some(lane) = self.lanes.get_mut(pipeline) {
            lane.ready.remove(&urgency);
            // An empty lane whose turn has come again remembers nothing that matters.
            if lane.ready.is_empty() && lane.pass <= self.now {
                self.lanes.remove(pipeline);
            }
        }
    }

    /// Lets the lane of a pipeline go that is gone.
    pub fn forget(&mut self, pipeline: &PipelineId) {
        if self.lanes.get(pipeline).is_some_and(|lane| lane.ready.is_empty()) {
            self.lanes.remove(pipeline);
        }
    }

    /// How many entries wait.
    pub fn len(&self) -> usize {
        self.lanes.values().map(|lane| lane.ready.len()).sum()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.lanes.values().all(|lane| lane.ready.is_empty())
    }
}
