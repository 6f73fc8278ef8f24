//! Reads which work is in flight, for ranges that stand still.

use crate::session::Found;
use futures::{FutureExt, future::BoxFuture};
use push0_bus::{Bus, BusError, Stream};
use push0_domain::{
    BlockKey, PipelineId,
    message::{ResultEvent, TaskResult},
    subject::{self, AttemptKey, Kind},
};
use std::collections::{BTreeMap, BTreeSet};

/// Most checks read of a range in one look. A prover may store many without a release.
const CHECKS_MAX: usize = 256;
/// How many checks of a range with a seal are enough: each may repeat one that has its verdict, or be a copy's.
const ENOUGH: usize = 8;

/// The look that is under way.
#[derive(Default)]
pub(crate) struct Looking {
    look: Option<BoxFuture<'static, Result<Found, BusError>>>,
}

impl Looking {
    /// Begins to look for the work of these ranges, unless a look is under way.
    pub(crate) fn begin(&mut self, bus: &Bus, name: &PipelineId, ranges: BTreeSet<BlockKey>) {
        self.look
            .get_or_insert_with(|| look(bus.clone(), name.clone(), ranges).boxed());
    }

    /// Returns the finds of the look under way. Pends forever without a look, for use in `select!`. Cancel safe.
    pub(crate) async fn found(&mut self) -> Result<Found, BusError> {
        let Some(look) = &mut self.look else {
            return std::future::pending().await;
        };
        let found = look.await;
        self.look = None;
        found
    }
}

/// Reads the streams in the order in which work moves through them.
async fn look(bus: Bus, name: PipelineId, ranges: BTreeSet<BlockKey>) -> Result<Found, BusError> {
    let mut attempts = Vec::new();
    for (stream, kind) in [(Stream::Stages, Kind::Stage), (Stream::Tasks, Kind::Task)] {
        let found = attempts_in(&bus, (stream, kind), &name).await?;
        attempts.extend(found.into_iter().map(|(attempt, _)| (kind, attempt)));
    }
    attempts.extend(sealed_checks(&bus, &name, &ranges).await?);
    let mut results_to = 0;
    for kind in [Kind::Result, Kind::Verdict] {
        let results = subject::attempts_of_pipeline(kind, &name);
        let newest = bus.last::<ResultEvent>(Stream::Results, &results).await?;
        results_to = results_to.max(newest.map_or(0, |kept| kept.sequence));
    }
    Ok(Found { attempts, results_to })
}

/// Returns the attempts of a pipeline with messages of this kind, each with its subject.
async fn attempts_in(
    bus: &Bus,
    (stream, kind): (Stream, Kind),
    name: &PipelineId,
) -> Result<Vec<(AttemptKey, String)>, BusError> {
    let found = bus
        .subjects(stream, &subject::attempts_of_pipeline(kind, name))
        .await?;
    let attempt = |(subject, _): (String, _)| Some((subject::attempt_of(&subject, kind)?, subject));
    Ok(found.into_iter().filter_map(attempt).collect())
}

/// Returns checks of these ranges that the dispatcher has sealed. Every prover may store others, about any range.
async fn sealed_checks(
    bus: &Bus,
    name: &PipelineId,
    ranges: &BTreeSet<BlockKey>,
) -> Result<Vec<(Kind, AttemptKey)>, BusError> {
    let mut checks: BTreeMap<BlockKey, Vec<(AttemptKey, String)>> = BTreeMap::new();
    for (attempt, subject) in attempts_in(bus, (Stream::Checks, Kind::Check), name).await? {
        if ranges.contains(&attempt.block) {
            checks.entry(attempt.block).or_default().push((attempt, subject));
        }
    }
    let (mut sealed, mut seals) = (Vec::new(), bus.seals().await?);
    for of_range in checks.into_values() {
        let mut count = 0;
        for (attempt, subject) in of_range.into_iter().take(CHECKS_MAX) {
            let check = bus.last::<TaskResult>(Stream::Checks, &subject).await?;
            if let Some(Ok(check)) = check.map(|kept| kept.body)
                && seals.admit(&subject, Kind::Check, &check).await?.is_ok()
            {
                sealed.push((Kind::Check, attempt));
                count += 1;
            }
            if count == ENOUGH {
                break;
            }
        }
    }
    Ok(sealed)
}
