//! A pipeline's output: how far it has come, how fast it moves.

use crate::view::{self, millis};
use push0_domain::{
    PipelineId, Timestamp,
    message::{Emission, EmissionOutcome},
    pipeline::{Pipeline, Policy, Source},
};
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// How many times from announcement to record are kept.
const LATENCIES_MAX: usize = 200;
/// The window of the throughput.
const MINUTE: Duration = Duration::from_secs(60);
/// How many times of records are kept for the throughput.
const RECENT_MAX: usize = 100_000;
/// An output that does not move for this long while blocks wait is said to stand.
const STANDS_AFTER: Duration = Duration::from_secs(60);

/// How far a pipeline's output has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The number to emit next, if there is a record.
    pub next: Option<u64>,
    /// The newest ingested number.
    pub head: Option<u64>,
}

/// A pipeline as far as messages told of it.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    definition: Option<Arc<Pipeline>>,
    output: Output,
    moved_at: Option<Timestamp>,
    latencies: VecDeque<u64>,
    recent: VecDeque<Timestamp>,
    dead: u64,
    abandoned: u64,
}

impl Chain {
    pub(crate) fn ingested(&mut self, number: u64, now: Timestamp) {
        if self.lag() == Some(0) {
            // Before, there was nothing to emit.
            self.moved_at = Some(now);
        }
        self.output.head = self.output.head.max(Some(number));
    }

    pub(crate) fn recorded(&mut self, record: &Emission, stored_at: Timestamp) {
        if !record.amends() {
            self.output.next = Some(record.next);
            self.output.head = self.output.head.max(Some(record.last.number));
            self.moved_at = self.moved_at.max(Some(stored_at));
        }
        let blocks = record.last.number - record.first.number + 1;
        match &record.outcome {
            EmissionOutcome::Proved(_) => {
                push(
                    &mut self.latencies,
                    millis(stored_at).saturating_sub(millis(record.stored_at)),
                    LATENCIES_MAX,
                );
                for _ in 0..blocks.min(1024) {
                    push(&mut self.recent, stored_at, RECENT_MAX);
                }
            }
            EmissionOutcome::Dead { .. } => self.dead += blocks,
            EmissionOutcome::Abandoned(_) => self.abandoned += blocks,
        }
    }

    /// Handles what was read anew. Returns whether there is news.
    pub(crate) fn read(&mut self, definition: Arc<Pipeline>, output: Output, now: Timestamp) -> bool {
        let before = (self.definition.clone(), self.output);
        self.definition = Some(definition);
        // A message may have come meanwhile: of numbers that only grow, the larger one is newer.
        self.output.head = self.output.head.max(output.head);
        self.output.next = self.output.next.or(output.next);
        self.moved_at.get_or_insert(now);
        let stale = self
            .recent
            .iter()
            .take_while(|at| now.since(**at) > MINUTE)
            .count();
        self.recent.drain(..stale);
        stale > 0 || self.stalled_since(now).is_some() || before != (self.definition.clone(), self.output)
    }

    /// Returns whether no definition was read yet.
    pub(crate) fn is_unread(&self) -> bool {
        self.definition.is_none()
    }

    pub(crate) fn definition(&self) -> Option<Arc<Pipeline>> {
        self.definition.clone()
    }

    pub(crate) fn next(&self) -> Option<u64> {
        self.output.next
    }

    pub(crate) fn lag(&self) -> Option<u64> {
        Some((self.output.head? + 1).saturating_sub(self.output.next?))
    }

    /// Returns since when the output stands although blocks wait.
    pub(crate) fn stalled_since(&self, now: Timestamp) -> Option<Timestamp> {
        let moved_at = self.moved_at.filter(|at| now.since(*at) > STANDS_AFTER)?;
        (self.lag()? > 0).then_some(moved_at)
    }

    pub(crate) fn view(&self, name: &PipelineId, now: Timestamp) -> view::Pipeline {
        let definition = self.definition.as_deref();
        let within = definition.and_then(|definition| match definition.policy {
            Policy::Deadline { within } => u64::try_from(within.as_millis()).ok(),
            Policy::OldestFirst => None,
        });
        let minute = self
            .recent
            .iter()
            .rev()
            .take_while(|at| now.since(**at) <= MINUTE);
        view::Pipeline {
            name: name.to_string(),
            revision: definition.map_or(0, |definition| definition.revision),
            policy: definition.map(policy).unwrap_or_default(),
            next: self.output.next,
            head: self.output.head,
            lag: self.lag(),
            stalled_since: self.stalled_since(now).map(millis),
            deadline_ms: within,
            latencies_ms: self.latencies.iter().copied().collect(),
            proved_per_min: minute.count() as u64,
            dead: self.dead,
            abandoned: self.abandoned,
        }
    }
}

fn push<T>(queue: &mut VecDeque<T>, value: T, max: usize) {
    if queue.len() >= max {
        queue.pop_front();
    }
    queue.push_back(value);
}

/// Returns the rules of a pipeline in one line.
fn policy(pipeline: &Pipeline) -> String {
    let order = match pipeline.policy {
        Policy::OldestFirst => "oldest first".to_owned(),
        Policy::Deadline { within } => format!("deadline {}", super::sentence::span(within)),
    };
    let source = match &pipeline.source {
        Source::Ethereum(_) => "a node",
        Source::File { .. } => "a file",
        Source::Http => "posts",
        Source::External => "another program",
    };
    let zkvms: Vec<String> = pipeline.zkvms().iter().map(ToString::to_string).collect();
    format!(
        "{}, {order}, {} of {} proofs, blocks from {source}",
        zkvms.join(" and "),
        pipeline.quorum,
        pipeline.proofs.len()
    )
}
