//! The shell of the janitor: reads levels and frontiers, and removes.

mod blobs;
mod junk;
mod referenced;
mod refused;

use super::{
    frontier::{Frontier, Need},
    metrics::Metrics,
    share,
};
use push0_bus::{
    Blobs, Bucket, Bus, BusError, Facts, Level, Pipelines, Place, SWEEP_ABOVE, SWEEP_TO, Seals, Stream,
};
use push0_domain::{
    PipelineId, Timestamp,
    message::{DeadLetter, Emission, KnownBlock},
    subject::{self, Kind},
};
use serde::de::IgnoredAny;
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    time::Duration,
};

/// How often a place with room is searched for entries older than the time for which they are kept: at most this, and
/// ten times within that time.
const AGE_EVERY: Duration = Duration::from_secs(60);
/// How often the streams that participants fill are searched for orphaned messages, once they hold this many
/// thousandths of their limit.
const JUNK_EVERY: Duration = Duration::from_secs(1);
const JUNK_ABOVE: u64 = 100;
/// How many checks are searched for refused ones, however short they are: each may take a verifier as long as a proof.
const CHECKS_MANY: u64 = 64;
/// Used thousandths of DEAD above which the oldest letters go. Higher than elsewhere, since letters wait for people.
const LETTERS_ABOVE: u64 = 900;
const LETTERS_TO: u64 = 850;
/// How long the janitor waits after a round in which nothing could be removed.
const REST: Duration = Duration::from_secs(1);
/// Most entries looked at in one round of one place. A long sweep goes on in the next round.
const ROUND_MAX: usize = 1024;
/// After how many removals the level is read again.
const LEVEL_EVERY: usize = 16;

/// One place to sweep.
struct Site {
    place: Place,
    above: u64,
    to: u64,
    /// Whether the place was too full and has not come down yet.
    needs_room: bool,
    aged_at: Option<Timestamp>,
}

impl Site {
    fn new(place: Place, above: u64, to: u64) -> Self {
        Self {
            place,
            above,
            to,
            needs_room: false,
            aged_at: None,
        }
    }
}

/// The janitor's work and its memory between rounds.
pub(super) struct Sweep<'a> {
    bus: &'a Bus,
    metrics: &'a Metrics,
    pipelines: Pipelines,
    known: Facts<KnownBlock>,
    blobs: Blobs,
    /// The keys of the seals, which tell reports that count from others.
    seals: Seals,
    /// The sequence in CHECKS from which on checks are read next, to find those that are refused.
    checks_from: u64,
    frontiers: BTreeMap<PipelineId, Frontier>,
    keep: Duration,
    sites: [Site; 4],
    /// When the streams that participants fill were last searched for orphaned messages.
    junk_at: Timestamp,
    has_removed: bool,
    /// Until when no round begins, because the last one found nothing to remove.
    rests_until: Timestamp,
}

impl<'a> Sweep<'a> {
    pub(super) async fn start(bus: &'a Bus, metrics: &'a Metrics) -> Result<Self, BusError> {
        let site = |place| Site::new(place, SWEEP_ABOVE, SWEEP_TO);
        Ok(Self {
            bus,
            metrics,
            pipelines: Pipelines::bind(bus).await?,
            known: bus.facts(Bucket::Blocks).await?,
            blobs: bus.blobs(),
            seals: bus.seals().await?,
            checks_from: 1,
            frontiers: BTreeMap::new(),
            keep: bus.keep().await?,
            sites: [
                site(Place::Blobs),
                site(Place::Facts),
                site(Place::Stream(Stream::Proofs)),
                Site::new(Place::Stream(Stream::Dead), LETTERS_ABOVE, LETTERS_TO),
            ],
            junk_at: Timestamp::default(),
            has_removed: false,
            rests_until: Timestamp::default(),
        })
    }

    /// Makes room in crowded places, and removes old data.
    pub(super) async fn round(&mut self, now: Timestamp) -> Result<(), BusError> {
        if now < self.rests_until {
            return Ok(());
        }
        self.has_removed = false;
        let places = self.sites.each_ref().map(|site| site.place);
        let levels = self.bus.levels(&places).await?;
        let levels_of_junk = self.bus.levels(&share::PLACES).await?;
        let age_every = AGE_EVERY.min(self.keep / 10);
        let mut due = Vec::new();
        for (site, (place, level)) in self.sites.iter_mut().zip(levels) {
            let mark = if site.needs_room { site.to } else { site.above };
            site.needs_room = level.permille() > mark;
            let is_old = |at: Timestamp| now.since(at) >= age_every;
            let ages = place != Place::Stream(Stream::Dead) && site.aged_at.is_none_or(is_old);
            if ages {
                site.aged_at = Some(now);
            }
            if ages || site.needs_room {
                due.push((place, site.needs_room));
            }
        }
        let searches = self.searches(&levels_of_junk, now);
        if searches {
            // Keys of the seals may have changed since the checks were read.
            self.checks_from = 1;
        }
        let has_many = |(place, level): &(Place, Level)| {
            *place == Place::Stream(Stream::Checks) && level.messages >= CHECKS_MANY
        };
        if levels_of_junk.iter().any(has_many) {
            self.refused_checks(now).await?;
        }
        if due.is_empty() && !searches {
            return Ok(());
        }
        // Subjects are read before the names of pipelines: a pipeline that is applied meanwhile loses nothing.
        let seen = self.seen(&levels_of_junk, searches).await?;
        self.look().await?;
        if searches {
            self.junk_at = now;
            self.junk(seen, now).await?;
        }
        self.keep = self.bus.keep().await?;
        let before = now.minus(self.keep);
        for (place, room) in due {
            let need = Need { room, before };
            match place {
                Place::Blobs => self.blobs(need).await?,
                Place::Facts => self.facts(need).await?,
                Place::Stream(Stream::Proofs) => self.records(need).await?,
                Place::Stream(_) => self.letters().await?,
            }
        }
        if !self.has_removed {
            self.rests_until = now.plus(REST);
        }
        Ok(())
    }

    /// Reads how far the outputs have come.
    async fn look(&mut self) -> Result<(), BusError> {
        let (current, unreadable) = self.pipelines.all().await?;
        let current = current.iter().map(|pipeline| pipeline.name.clone());
        let current: BTreeSet<PipelineId> = current
            .chain(unreadable.into_iter().map(|(name, _)| name))
            .collect();
        for name in self.pipelines.names().await? {
            let newest = self
                .bus
                .last::<Emission>(Stream::Proofs, &subject::proofs_of_pipeline(&name))
                .await?;
            let mut frontier = self.frontiers.get(&name).copied().unwrap_or_default();
            if let Some(Ok(newest)) = newest.map(|kept| kept.body) {
                frontier = frontier.after(&newest);
            }
            frontier.is_gone = !current.contains(&name) && !self.has_work(&name).await?;
            self.frontiers.insert(name, frontier);
        }
        Ok(())
    }

    /// Returns whether a pipeline has messages in the streams of work.
    async fn has_work(&self, name: &PipelineId) -> Result<bool, BusError> {
        let of = |kind| subject::attempts_of_pipeline(kind, name);
        let mut places = vec![
            (Stream::Blocks, subject::block(name)),
            (Stream::Blocks, subject::cancel(name)),
            (Stream::Stages, of(Kind::Stage)),
            (Stream::Tasks, of(Kind::Task)),
            (Stream::Checks, of(Kind::Check)),
        ];
        places.extend(
            subject::results_of_pipeline(name)
                .into_iter()
                .map(|subject| (Stream::Results, subject)),
        );
        for (stream, subjects) in places {
            if !self.bus.subjects(stream, &subjects).await?.is_empty() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Returns whether a place still needs room.
    async fn is_full(&self, place: Place) -> Result<bool, BusError> {
        let levels = self.bus.levels(&[place]).await?;
        Ok(levels.iter().any(|(_, level)| level.permille() > SWEEP_TO))
    }

    fn removed(&mut self, what: &str, count: usize) {
        self.has_removed |= count > 0;
        let counter = self.metrics.removed.with_label_values(&[what]);
        counter.inc_by(u64::try_from(count).unwrap_or(u64::MAX));
        if count > 0 {
            tracing::info!(what, count, "removed from the store");
        }
    }

    /// Removes facts about emitted blocks that no reorg reaches.
    async fn facts(&mut self, need: Need) -> Result<(), BusError> {
        let filter = |name: &PipelineId| format!("{name}.>");
        let mut heads = Heads::default();
        for (name, frontier) in &self.frontiers {
            let first = readable(self.known.next(&filter(name), 1).await)?;
            heads.add(name, *frontier, first.map(|fact| (fact.revision, fact)));
        }
        let mut need = need;
        let mut removed = 0;
        while removed < ROUND_MAX
            && let Some((name, frontier, fact)) = heads.pop()
        {
            let is_free = match &fact.value {
                Some(known) => {
                    let number = known.block.number;
                    frontier.settles(number, known.announced_after.next()) && frontier.is_far_behind(number)
                }
                // The mark of a deleted fact.
                None => true,
            };
            if !is_free || !need.takes(fact.stored_at) {
                continue;
            }
            heads.passed(&name, fact.revision);
            removed += 1;
            let next = readable(self.known.next(&filter(&name), fact.revision + 1).await)?;
            heads.add(&name, frontier, next.map(|fact| (fact.revision, fact)));
            if need.room && removed % LEVEL_EVERY == 0 {
                for (name, revision) in heads.take_passed() {
                    self.known.erase(&filter(&name), revision).await?;
                }
                need.room = self.is_full(Place::Facts).await?;
            }
        }
        for (name, revision) in heads.take_passed() {
            self.known.erase(&filter(&name), revision).await?;
        }
        self.removed("facts", removed);
        Ok(())
    }

    /// Removes old records. The last ones of a pipeline stay: they say how far its output has come.
    async fn records(&mut self, need: Need) -> Result<(), BusError> {
        let read = async |name: &PipelineId, from| {
            let subjects = subject::proofs_of_pipeline(name);
            let read = self
                .bus
                .scan::<IgnoredAny>(Stream::Proofs, &subjects, from, 1)
                .await?;
            Ok::<_, BusError>(read.into_iter().next().map(|record| (record.sequence, record)))
        };
        let purge = async |passed: BTreeMap<PipelineId, u64>| {
            for (name, sequence) in passed {
                let subjects = subject::proofs_of_pipeline(&name);
                self.bus.purge_up_to(Stream::Proofs, &subjects, sequence).await?;
            }
            Ok::<_, BusError>(())
        };
        let (mut heads, mut newest) = (Heads::default(), BTreeMap::new());
        for (name, frontier) in &self.frontiers {
            let subjects = subject::proofs_of_pipeline(name);
            let last = self.bus.last::<IgnoredAny>(Stream::Proofs, &subjects).await?;
            newest.insert(name.clone(), last.map_or(0, |last| last.sequence));
            heads.add(name, *frontier, read(name, 1).await?);
        }
        let mut need = need;
        let mut removed = 0;
        while removed < ROUND_MAX
            && let Some((name, frontier, record)) = heads.pop()
        {
            let number = subject::number_of_proof(&record.subject);
            let is_free = number.is_none_or(|number| frontier.frees_record(number, &need))
                && newest.get(&name).is_some_and(|newest| record.sequence < *newest);
            if !is_free || !need.takes(record.stored_at) {
                continue;
            }
            heads.passed(&name, record.sequence);
            removed += 1;
            heads.add(&name, frontier, read(&name, record.sequence + 1).await?);
            if need.room && removed % LEVEL_EVERY == 0 {
                purge(heads.take_passed()).await?;
                need.room = self.is_full(Place::Stream(Stream::Proofs)).await?;
            }
        }
        purge(heads.take_passed()).await?;
        self.removed("records", removed);
        Ok(())
    }

    /// Removes the oldest dead letters of a nearly full stream. A letter that cannot be stored would stop
    /// its pipeline, and a removed letter can only not be retried.
    async fn letters(&mut self) -> Result<(), BusError> {
        let oldest = self
            .bus
            .scan::<DeadLetter>(Stream::Dead, &subject::all(Kind::Dead), 1, LEVEL_EVERY)
            .await?;
        for kept in &oldest {
            let (id, reason) = match &kept.body {
                Ok(letter) => (letter.id.as_str(), letter.reason.as_str()),
                Err(_) => (kept.subject.as_str(), "unreadable"),
            };
            self.bus
                .purge_up_to(Stream::Dead, &kept.subject, kept.sequence)
                .await?;
            tracing::warn!(
                dead_letter.id = id,
                reason,
                "PUSH0_DEAD is nearly full: dropped its oldest dead letter, which can no longer be retried; \
                 `push0 dead drop` or `push0 dead retry` the others"
            );
        }
        self.removed("dead-letters", oldest.len());
        Ok(())
    }
}

/// The oldest entry of each pipeline, to take them in the order of the stream. A pipeline whose oldest entry stays
/// holds back no other one.
struct Heads<T> {
    order: BinaryHeap<Reverse<(u64, PipelineId)>>,
    entries: BTreeMap<PipelineId, (Frontier, T)>,
    passed: BTreeMap<PipelineId, u64>,
}

impl<T> Default for Heads<T> {
    fn default() -> Self {
        Self {
            order: BinaryHeap::new(),
            entries: BTreeMap::new(),
            passed: BTreeMap::new(),
        }
    }
}

impl<T> Heads<T> {
    fn add(&mut self, name: &PipelineId, frontier: Frontier, entry: Option<(u64, T)>) {
        if let Some((sequence, entry)) = entry {
            self.order.push(Reverse((sequence, name.clone())));
            self.entries.insert(name.clone(), (frontier, entry));
        }
    }

    fn pop(&mut self) -> Option<(PipelineId, Frontier, T)> {
        let Reverse((_, name)) = self.order.pop()?;
        let (frontier, entry) = self.entries.remove(&name)?;
        Some((name, frontier, entry))
    }

    /// Notes that a pipeline's entries up to this sequence are to be removed.
    fn passed(&mut self, name: &PipelineId, sequence: u64) {
        self.passed.insert(name.clone(), sequence);
    }

    fn take_passed(&mut self) -> BTreeMap<PipelineId, u64> {
        std::mem::take(&mut self.passed)
    }
}

/// Returns a fact; `None` for an unreadable one, behind which the facts of its pipeline stay.
fn readable<T>(fact: Result<Option<T>, BusError>) -> Result<Option<T>, BusError> {
    match fact {
        Err(error) if error.is_damage() => Ok(None),
        fact => fact,
    }
}
