//! Pipelines whose stored state cannot be read. Their work waits, and the work of the others goes on.

use push0_bus::BusError;
use push0_domain::PipelineId;
use push0_runtime::UnreadableState;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

/// How often unreadable state is read again.
const AGAIN_EVERY: Duration = Duration::from_secs(1);

/// The pipelines that stand still.
pub(crate) struct Standstill<'a> {
    state: &'a UnreadableState,
    /// When the state is read again, and the sequences of the stages that wait for it. Bodies stay in the stream.
    pipelines: BTreeMap<PipelineId, (Instant, BTreeSet<u64>)>,
}

impl<'a> Standstill<'a> {
    pub(crate) fn new(state: &'a UnreadableState) -> Self {
        let pipelines = BTreeMap::new();
        Self { state, pipelines }
    }

    pub(crate) fn found(&mut self, name: &PipelineId, error: BusError) {
        self.state.found(name.as_str(), error);
        let again_at = Instant::now() + AGAIN_EVERY;
        self.pipelines
            .entry(name.clone())
            .or_insert_with(|| (again_at, BTreeSet::new()))
            .0 = again_at;
    }

    pub(crate) fn mended(&self, name: &PipelineId) {
        self.state.mended(name.as_str());
    }

    pub(crate) fn set_aside(&mut self, name: PipelineId, sequence: u64) {
        let entry = self.pipelines.entry(name);
        let waiting = entry.or_insert_with(|| (Instant::now(), BTreeSet::new()));
        waiting.1.insert(sequence);
    }

    /// Returns whether work of a pipeline waits for its state.
    pub(crate) fn stands(&self, name: &PipelineId) -> bool {
        self.pipelines.contains_key(name)
    }

    /// Returns whether the state of a pipeline was unreadable a moment ago.
    pub(crate) fn rests(&self, name: &PipelineId) -> bool {
        self.pipelines
            .get(name)
            .is_some_and(|(again_at, _)| Instant::now() < *again_at)
    }

    /// Removes a pipeline whose state is due to be read again, and returns the stages that waited.
    pub(crate) fn due(&mut self) -> Option<BTreeSet<u64>> {
        let now = Instant::now();
        let mut due = self.pipelines.extract_if(.., |_, (again_at, _)| *again_at <= now);
        due.next().map(|(_, (_, stages))| stages)
    }
}
