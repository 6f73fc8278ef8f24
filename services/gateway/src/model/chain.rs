//! A pipeline's output: how far it has come, how fast it moves.

use crate::view::{self, millis};
use push0_domain::{
    PipelineId, Timestamp,
    message::{Emission, EmissionOutcome},
    pipeline::{Pipeline, Policy, RANGE_MAX, Source},
};
use push0_operate::judge;
use std::{collections::VecDeque, ops::RangeInclusive, sync::Arc, time::Duration};

/// How many times from announcement to record are kept.
const LATENCIES_MAX: usize = 200;
/// The window of the throughput.
const MINUTE: Duration = Duration::from_secs(60);
/// How many seconds of the throughput are kept.
const SECONDS_MAX: usize = 128;
/// How many blocks from the next one on are shown whatever else is.
const NEXT: u64 = 64;

/// How far a pipeline's output has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Output {
    /// The number to emit next: after the newest record, or the pipeline's first.
    pub next: Option<u64>,
    /// The newest ingested number.
    pub head: Option<u64>,
    /// How many announced blocks wait in their stream for the release of their first tasks.
    pub waiting: u64,
    /// Whether the newest record cannot be read, so that `next` is not known.
    pub is_damaged: bool,
}

/// A pipeline as far as messages told of it.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    definition: Option<Arc<Pipeline>>,
    output: Output,
    /// When the newest record was stored that moved the output.
    moved_at: Option<Timestamp>,
    latencies: VecDeque<u64>,
    /// Seconds in which blocks were proved, and how many.
    recent: VecDeque<(u64, u64)>,
    dead: u64,
    abandoned: u64,
    /// Blocks announced since the last reading and since the one before: a reading may be older than what was heard.
    announced: (u64, u64),
    /// The highest number that was told of since the last reading, and since the one before.
    told: (Option<u64>, Option<u64>),
    /// Whether a record was heard since the last reading, and since the one before.
    records: (bool, bool),
    /// Whether open blocks are not held.
    is_cut: bool,
    /// The number of the open block that made room last.
    cut_at: Option<u64>,
}

impl Chain {
    pub(crate) fn ingested(&mut self, number: u64) {
        self.saw(number);
        self.announced.0 += 1;
    }

    /// Notes that a block of this number is there.
    pub(crate) fn saw(&mut self, number: u64) {
        self.told.0 = self.told.0.max(Some(number));
        self.output.head = self.output.head.max(Some(number));
    }

    /// Notes that the output moved, as a record tells that is the newest one. Returns whether it went back.
    pub(crate) fn moved(&mut self, record: &Emission) -> bool {
        self.records.0 = true;
        if record.amends() {
            return false;
        }
        let before = self.output.next.replace(record.next);
        before.is_some_and(|before| record.next < before)
    }

    pub(crate) fn recorded(&mut self, record: &Emission, stored_at: Timestamp) {
        if !record.amends() {
            self.saw(record.last.number);
            self.moved_at = self.moved_at.max(Some(stored_at));
        }
        let blocks = record
            .last
            .number
            .saturating_sub(record.first.number)
            .saturating_add(1);
        match &record.outcome {
            EmissionOutcome::Proved(_) => {
                push(
                    &mut self.latencies,
                    millis(stored_at).saturating_sub(millis(record.stored_at)),
                    LATENCIES_MAX,
                );
                self.proved(blocks.min(u64::from(RANGE_MAX)), second_of(stored_at));
            }
            EmissionOutcome::Dead { .. } => self.dead = self.dead.saturating_add(blocks),
            EmissionOutcome::Abandoned(_) => self.abandoned = self.abandoned.saturating_add(blocks),
        }
    }

    fn proved(&mut self, blocks: u64, second: u64) {
        match self.recent.back_mut().filter(|(last, _)| *last == second) {
            Some((_, count)) => *count += blocks,
            None => push(&mut self.recent, (second, blocks), SECONDS_MAX),
        }
    }

    /// Notes that an open block of this number made room for others.
    pub(crate) fn cut(&mut self, number: u64) {
        (self.is_cut, self.cut_at) = (true, Some(number));
    }

    /// Notes that an announced block found no room.
    pub(crate) fn turned_away(&mut self) {
        self.is_cut = true;
    }

    /// Returns whether an open block of this number would soon make room for others. The next blocks never do.
    pub(crate) fn is_beyond(&self, number: u64) -> bool {
        let is_next = self
            .output
            .next
            .is_some_and(|next| number < next.saturating_add(NEXT));
        self.cut_at.is_some_and(|cut_at| number >= cut_at) && !is_next
    }

    /// Notes how many of the numbers from the next one to the newest are held.
    pub(crate) fn holds(&mut self, numbers: u64, is_crowded: bool) {
        self.is_cut = self.lag().is_some_and(|lag| lag > numbers);
        if !is_crowded {
            self.cut_at = None;
        }
    }

    /// Returns how many blocks wait for their first task, of which `held` are held. What is held may be out of date: a
    /// message can be missed.
    pub(crate) fn waiting(&self, held: u64) -> u64 {
        let announced = self.announced.0.saturating_add(self.announced.1);
        match (self.lag(), self.is_cut) {
            (None, _) => held.max(self.output.waiting),
            (Some(_), true) => self.output.waiting,
            (Some(_), false) => held.min(self.output.waiting.saturating_add(announced)),
        }
    }

    /// Handles what was read anew. Returns whether there is news.
    pub(crate) fn read(&mut self, definition: Arc<Pipeline>, output: Output, now: Timestamp) -> bool {
        let before = (self.definition.clone(), self.output);
        self.definition = Some(definition);
        // Numbers go back after a reset or a reorg: a reading counts, but for what was heard since it may have begun.
        self.go_on_from(output, self.records == (false, false));
        self.told = (None, self.told.0);
        self.records = (false, self.records.0);
        self.output.waiting = output.waiting;
        self.announced = (0, self.announced.0);
        let known = self.recent.len();
        self.recent.retain(|(second, _)| is_within_a_minute(*second, now));
        self.recent.len() < known || self.has_waited(now) || before != (self.definition.clone(), self.output)
    }

    /// Handles the definition and the output, before anything else is told. What was heard earlier may be long past.
    pub(crate) fn define(&mut self, definition: Arc<Pipeline>, output: Output) {
        self.definition = Some(definition);
        (self.told, self.records) = Default::default();
        self.go_on_from(output, true);
    }

    fn go_on_from(&mut self, output: Output, counts: bool) {
        let told = self.told.0.max(self.told.1);
        // An external ingester has no cursor.
        self.output.head = output.head.or(self.output.head).max(told);
        if counts && !output.is_damaged {
            self.output.next = output.next;
        }
    }

    pub(crate) fn definition(&self) -> Option<Arc<Pipeline>> {
        self.definition.clone()
    }

    pub(crate) fn next(&self) -> Option<u64> {
        self.output.next
    }

    /// Returns whether the chain ends before this number.
    pub(crate) fn ends_before(&self, number: u64) -> bool {
        self.output.head.is_some_and(|head| number > head)
    }

    /// Returns the numbers that are not emitted, from the next one to the newest.
    pub(crate) fn unemitted(&self) -> Option<RangeInclusive<u64>> {
        Some(self.output.next?..=self.output.head?)
    }

    pub(crate) fn lag(&self) -> Option<u64> {
        Some(
            self.output
                .head?
                .saturating_add(1)
                .saturating_sub(self.output.next?),
        )
    }

    /// Returns whether blocks have waited for so long that the output may stand.
    fn has_waited(&self, now: Timestamp) -> bool {
        self.lag().is_some_and(|lag| lag > 0)
            && self
                .moved_at
                .is_none_or(|at| now.since(at) >= judge::STANDS_AFTER)
    }

    /// Returns since when the output stands although blocks wait. `observed_at` is when the next block was.
    pub(crate) fn stands_since(&self, observed_at: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
        judge::stands_since(self.lag(), observed_at, self.moved_at, now)
    }

    /// Returns the pipeline for clients. `observed_at` is when the next block was observed.
    pub(crate) fn view(
        &self,
        name: &PipelineId,
        observed_at: Option<Timestamp>,
        now: Timestamp,
    ) -> view::Pipeline {
        let definition = self.definition.as_deref();
        let within = definition.and_then(|definition| match definition.policy {
            Policy::Deadline { within } => u64::try_from(within.as_millis()).ok(),
            Policy::OldestFirst => None,
        });
        let minute = self
            .recent
            .iter()
            .filter(|(second, _)| is_within_a_minute(*second, now));
        view::Pipeline {
            name: name.to_string(),
            revision: definition.map_or(0, |definition| definition.revision),
            policy: definition.map(policy).unwrap_or_default(),
            next: self.output.next,
            head: self.output.head,
            lag: self.lag(),
            stalled_since: self.stands_since(observed_at, now).map(millis),
            deadline_ms: within,
            latencies_ms: self.latencies.iter().copied().collect(),
            proved_per_min: minute.map(|(_, count)| count).sum(),
            dead: self.dead,
            abandoned: self.abandoned,
        }
    }
}

fn second_of(at: Timestamp) -> u64 {
    at.0 / 1_000_000
}

fn is_within_a_minute(second: u64, now: Timestamp) -> bool {
    second_of(now).saturating_sub(second) <= MINUTE.as_secs()
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
