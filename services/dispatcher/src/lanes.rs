//! One lane per pipeline with a definition or stored blocks. A lane with a backlog, or with a stalled output,
//! delays no other lane.

use crate::lane::{Arrival, Lane};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use push0_bus::{Bus, BusError, Pipelines, Stream};
use push0_domain::{
    PipelineId,
    pipeline::RANGE_MAX,
    subject::{self, Kind},
};
use std::{
    collections::BTreeSet,
    pin::pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

/// How often BLOCKS is checked for pipelines, and after how many checks the definitions are read as well.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const DEFINITIONS_EVERY: u32 = 20;
/// How long releases wait for lanes to open after this dispatcher has become the leader.
const OPEN_MAX: Duration = Duration::from_secs(3);

/// The single consumer of all blocks, used by earlier versions. While this consumer exists, no consumer of a
/// lane can be created.
const SUCCEEDED: &str = "dispatcher-blocks";

/// The pipelines found by one check.
#[derive(Debug)]
pub(crate) struct Sight {
    /// Pipelines with messages in BLOCKS.
    pub(crate) stored: BTreeSet<PipelineId>,
    /// Pipelines with cancellations in BLOCKS.
    pub(crate) cancelled: BTreeSet<PipelineId>,
    /// Pipelines with a definition. `None` if the definitions were not read this time.
    pub(crate) defined: Option<BTreeSet<PipelineId>>,
}

impl Sight {
    /// Returns whether a pipeline is gone. Only a check that read the definitions can tell: a pipeline that was applied since
    /// the check before may have emitted its blocks already.
    fn shows_gone(&self, name: &PipelineId) -> bool {
        let is_defined = self.defined.as_ref().map(|defined| defined.contains(name));
        is_defined == Some(false) && !self.stored.contains(name)
    }
}

/// An event from the lanes.
pub(crate) enum News {
    Of(PipelineId, Arrival),
    Sight(Sight),
    /// A lane was opened; `None` if it could not be opened.
    Lane(Option<PipelineId>),
}

type Opening = BoxFuture<'static, (PipelineId, Result<Lane, BusError>)>;

/// The open lanes, and those being opened.
pub(crate) struct Lanes {
    bus: Bus,
    pipelines: Pipelines,
    ahead: u64,
    open: Vec<Lane>,
    opening: FuturesUnordered<Opening>,
    opening_names: BTreeSet<PipelineId>,
    defined: BTreeSet<PipelineId>,
    /// The lane to poll first.
    turn: usize,
    looking: Option<BoxFuture<'static, Result<Sight, BusError>>>,
    looks: u32,
    next_look: Instant,
    since: Instant,
}

impl Lanes {
    /// Finds the existing pipelines, and starts opening their lanes.
    pub(crate) async fn start(bus: &Bus, pipelines: &Pipelines, ahead: u64) -> Result<Self, BusError> {
        bus.drop_consumer(Stream::Blocks, SUCCEEDED).await?;
        let now = Instant::now();
        let mut lanes = Self {
            bus: bus.clone(),
            pipelines: pipelines.clone(),
            ahead,
            open: Vec::new(),
            opening: FuturesUnordered::new(),
            opening_names: BTreeSet::new(),
            defined: BTreeSet::new(),
            turn: 0,
            looking: None,
            looks: 1,
            next_look: now + LOOK_EVERY,
            since: now,
        };
        let sight = sight(bus.clone(), pipelines.clone(), true).await?;
        lanes.see(sight);
        Ok(lanes)
    }

    /// Returns the next event. In turn, parked lanes are not read. Cancel safe.
    pub(crate) async fn next(&mut self, is_parked: impl Fn(&PipelineId) -> bool) -> Result<News, BusError> {
        std::future::poll_fn(|cx| self.poll(cx, &is_parked)).await
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        is_parked: impl Fn(&PipelineId) -> bool,
    ) -> Poll<Result<News, BusError>> {
        if let Poll::Ready(Some((name, opened))) = self.opening.poll_next_unpin(cx) {
            self.opening_names.remove(&name);
            return Poll::Ready(self.opened(name, opened).map(News::Lane));
        }
        if let Some(looking) = &mut self.looking
            && let Poll::Ready(seen) = looking.poll_unpin(cx)
        {
            self.looking = None;
            return Poll::Ready(seen.map(News::Sight));
        }
        let count = self.open.len();
        for offset in 0..count {
            let at = (self.turn + offset) % count;
            let Some(lane) = self.open.get_mut(at) else {
                continue;
            };
            let is_parked = is_parked(&lane.name);
            let arrival = pin!(lane.next(is_parked)).poll(cx);
            if let Poll::Ready(arrival) = arrival {
                self.turn = at + 1;
                let name = lane.name.clone();
                return Poll::Ready(arrival.map(|arrival| News::Of(name, arrival)));
            }
        }
        Poll::Pending
    }

    fn opened(
        &mut self,
        name: PipelineId,
        opened: Result<Lane, BusError>,
    ) -> Result<Option<PipelineId>, BusError> {
        match opened {
            Ok(lane) => {
                self.open.push(lane);
                Ok(Some(name))
            }
            // The next check tries again. Other lanes go on meanwhile.
            Err(error @ BusError::Unavailable { .. }) => {
                tracing::warn!(pipeline = %name, %error, "cannot read its blocks yet, trying again");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Starts a check for pipelines, if one is due.
    pub(crate) fn tick(&mut self, now: Instant) {
        if self.looking.is_some() || now < self.next_look {
            return;
        }
        self.next_look = now + LOOK_EVERY;
        self.looks = self.looks.wrapping_add(1);
        let definitions = self.looks.is_multiple_of(DEFINITIONS_EVERY);
        self.looking = Some(sight(self.bus.clone(), self.pipelines.clone(), definitions).boxed());
    }

    /// Starts opening lanes for pipelines without one. Returns the lanes whose pipelines are gone: no longer
    /// defined, and without messages in BLOCKS.
    pub(crate) fn see(&mut self, sight: Sight) -> Vec<PipelineId> {
        let names = self.open.iter().map(|lane| &lane.name);
        let gone = names.filter(|name| sight.shows_gone(name)).cloned().collect();
        if let Some(defined) = sight.defined {
            self.defined = defined;
        }
        for name in self.defined.union(&sight.stored) {
            let is_open = self.open.iter().any(|lane| lane.name == *name);
            if !is_open && self.opening_names.insert(name.clone()) {
                let (bus, name) = (self.bus.clone(), name.clone());
                // Twice the number read ahead, so this limit only holds back a flood of blocks with
                // the same numbers.
                let open_max = 2 * self.ahead.max(2 * u64::from(RANGE_MAX));
                let open_max = u32::try_from(open_max).unwrap_or(u32::MAX);
                let opening = async move {
                    let lane = Lane::open(bus, name.clone(), open_max).await;
                    (name, lane)
                };
                self.opening.push(opening.boxed());
            }
        }
        gone
    }

    /// Closes the lane of a removed pipeline, and deletes its consumer.
    pub(crate) async fn close(&mut self, name: &PipelineId) -> Result<(), BusError> {
        if let Some(at) = self.open.iter().position(|lane| lane.name == *name) {
            let consumer = self.open.swap_remove(at).close();
            self.bus.drop_consumer(Stream::Blocks, &consumer).await?;
        }
        Ok(())
    }

    /// Returns the pipelines with a definition.
    pub(crate) fn defined(&self) -> &BTreeSet<PipelineId> {
        &self.defined
    }

    /// Returns whether lanes are being opened whose messages were stored before this dispatcher led.
    pub(crate) fn are_opening(&self) -> bool {
        !self.opening.is_empty() && self.since.elapsed() < OPEN_MAX
    }

    /// Returns for each lane how many messages are left from before this dispatcher led.
    pub(crate) fn to_replay(&self) -> impl Iterator<Item = (&PipelineId, u64)> {
        self.open.iter().map(|lane| (&lane.name, lane.to_replay()))
    }

    pub(crate) fn get(&mut self, name: &PipelineId) -> Option<&mut Lane> {
        self.open.iter_mut().find(|lane| lane.name == *name)
    }

    /// Acknowledges a block or a cancellation.
    pub(crate) async fn done(&mut self, sequence: u64) {
        for lane in &mut self.open {
            if lane.done(sequence).await {
                return;
            }
        }
    }
}

async fn sight(bus: Bus, pipelines: Pipelines, definitions: bool) -> Result<Sight, BusError> {
    let subjects = bus.subjects(Stream::Blocks, ">").await?;
    let named = || {
        let names = subjects.iter().map(|(name, _)| name);
        names.filter_map(|name| Some((subject::pipeline_of_block(name)?, Kind::of(name)?)))
    };
    let defined = if definitions {
        let (current, unreadable) = pipelines.all().await?;
        let current = current.iter().map(|pipeline| pipeline.name.clone());
        Some(
            current
                .chain(unreadable.into_iter().map(|(name, _)| name))
                .collect(),
        )
    } else {
        None
    };
    let cancelled = named().filter(|(_, kind)| *kind == Kind::Cancel);
    Ok(Sight {
        stored: named().map(|(name, _)| name).collect(),
        cancelled: cancelled.map(|(name, _)| name).collect(),
        defined,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipeline_is_gone_only_if_the_definitions_were_read() {
        let name: PipelineId = "young".parse().expect("a name");
        let sight = |stored: &[&PipelineId], defined: Option<&[&PipelineId]>| Sight {
            stored: stored.iter().copied().cloned().collect(),
            cancelled: BTreeSet::new(),
            defined: defined.map(|names| names.iter().copied().cloned().collect()),
        };
        assert!(sight(&[], Some(&[])).shows_gone(&name));
        assert!(!sight(&[], None).shows_gone(&name), "its blocks are emitted");
        assert!(
            !sight(&[&name], Some(&[])).shows_gone(&name),
            "it has blocks to finish"
        );
        assert!(!sight(&[], Some(&[&name])).shows_gone(&name));
    }
}
