//! Reads every message that tells of work and puts it into the model.

use crate::{metrics::Metrics, recall, refresh, shared::Shared, trace::trace_id};
use push0_bus::{Bus, BusError, Pipelines, Signal, now};
use push0_domain::{
    message::{BlockEvent, Emission, Event, Lease, ResultEvent, TaskResult},
    subject::{self, Kind},
};
use push0_runtime::Component;
use serde::de::DeserializeOwned;
use std::{convert::Infallible, time::Duration};
use tokio::time::MissedTickBehavior;

/// How often changes are given to clients.
const FLUSH_EVERY: Duration = Duration::from_millis(100);
/// How often definitions, outputs, held queues and fill levels are read, besides what messages tell.
const REFRESH_EVERY: Duration = Duration::from_secs(2);

/// The kinds of messages that tell of work. Inputs travel with tasks, of which only the subject is read.
const KINDS: [Kind; 8] = [
    Kind::Block,
    Kind::Task,
    Kind::Lease,
    Kind::Check,
    Kind::Result,
    Kind::Verdict,
    Kind::Ended,
    Kind::Proof,
];

/// Listens until the connection is interrupted.
pub(crate) async fn run(
    bus: &Bus,
    shared: &Shared,
    metrics: &Metrics,
    broker: &Component,
) -> Result<Infallible, BusError> {
    let kinds = KINDS.into_iter().chain([Kind::Event]);
    let mut signals = bus.listen(kinds.map(subject::all)).await?;
    let pipelines = Pipelines::bind(bus).await?;
    let first = refresh::read(bus, &pipelines).await?;
    recall::recall(bus, shared, &first).await?;
    shared.with(|model| model.read(first, now()));
    broker.ready();
    let mut flush = tokio::time::interval(FLUSH_EVERY);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut refreshing = Box::pin(refresh_after_pause(bus, &pipelines));
    let mut interrupted = Box::pin(bus.interrupted());
    loop {
        tokio::select! {
            biased;
            () = &mut interrupted => return Err(BusError::Interrupted),
            _ = flush.tick() => {
                metrics.followers.set(i64::try_from(shared.followers()).unwrap_or(i64::MAX));
                if let Err(error) = shared.flush(now()) {
                    tracing::error!(%error, "a change cannot be encoded");
                }
            }
            reading = &mut refreshing => {
                let reading = reading?;
                shared.with(|model| model.read(reading, now()));
                refreshing = Box::pin(refresh_after_pause(bus, &pipelines));
            }
            signal = signals.next() => {
                metrics.messages.inc();
                if hear(shared, &signal?).is_none() {
                    metrics.unreadable.inc();
                }
            }
        }
    }
}

async fn refresh_after_pause(bus: &Bus, pipelines: &Pipelines) -> Result<crate::model::Reading, BusError> {
    tokio::time::sleep(REFRESH_EVERY).await;
    refresh::read(bus, pipelines).await
}

/// Puts a message into the model; `None` if the message cannot be read.
fn hear(shared: &Shared, signal: &Signal) -> Option<()> {
    let now = now();
    let kind = Kind::of(signal.subject())?;
    let key = || subject::attempt_of(signal.subject(), kind);
    match kind {
        Kind::Block => {
            if let BlockEvent::Observed(block) = body(signal)? {
                let trace = signal.trace();
                shared.with(|model| model.observed(&block, trace_id(&trace), now));
            }
        }
        Kind::Task => {
            let key = key()?;
            shared.with(|model| model.released(&key, now));
        }
        Kind::Lease => {
            let lease: Lease = body(signal)?;
            shared.with(|model| model.heard(lease, now));
        }
        Kind::Check => {
            let (key, result) = (key()?, body::<TaskResult>(signal)?);
            shared.with(|model| model.checking(&key, &result, now));
        }
        Kind::Result | Kind::Verdict => {
            if let ResultEvent::Attempt(result) = body(signal)? {
                let key = key()?;
                shared.with(|model| model.result(&key, &result, now));
            }
        }
        Kind::Ended => {
            if let ResultEvent::Ended(ended) = body(signal)? {
                shared.with(|model| model.end(&ended, now));
            }
        }
        Kind::Proof => {
            let record: Emission = body(signal)?;
            let trace = signal.trace();
            shared.with(|model| model.record(&record, now, trace_id(&trace)));
        }
        Kind::Event => {
            let event: Event = body(signal)?;
            shared.with(|model| model.happened(event, now));
        }
        Kind::Cancel | Kind::Stage | Kind::Control | Kind::Dead | Kind::Notice | Kind::Blob => {}
    }
    Some(())
}

fn body<T: DeserializeOwned>(signal: &Signal) -> Option<T> {
    signal.body().ok()
}
