//! Reads every message that tells of work and puts it into the model.

use crate::{gate, metrics::Metrics, recall, refresh, shared::Shared, trace::trace_id};
use push0_bus::{Bus, BusError, Pipelines, Signal, Unread, now};
use push0_domain::{
    message::{BlockEvent, Emission, Event, ResultEvent, TaskResult},
    subject::{self, AttemptKey, Kind},
};
use push0_runtime::Component;
use serde::de::DeserializeOwned;
use std::{convert::Infallible, pin::pin, time::Duration};
use tokio::time::MissedTickBehavior;

/// How often changes are given to clients.
const FLUSH_EVERY: Duration = Duration::from_millis(100);
/// How often definitions, outputs, held queues and fill levels are read, besides what messages tell.
const REFRESH_EVERY: Duration = Duration::from_secs(2);

/// How much may wait to be heard: half of the usual, since the state and the answers need room as well.
const UNREAD: Unread = Unread {
    messages: 8 * 1024,
    bytes: 8 << 20,
};

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
    let mut signals = bus.listen_within(kinds.map(subject::all), UNREAD).await?;
    let pipelines = Pipelines::bind(bus).await?;
    let first = refresh::read(bus, &pipelines, shared.with(|model| model.names())).await?;
    shared.with(|model| model.define(&first));
    {
        let mut recalling = pin!(recall::recall(bus, shared, &first));
        loop {
            tokio::select! {
                biased;
                recalled = &mut recalling => break recalled?,
                signal = signals.next() => count(metrics, hear(shared, &signal?)),
            }
        }
    }
    shared.with(|model| model.read(first, now()));
    broker.ready();
    let mut flush = tokio::time::interval(FLUSH_EVERY);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut refreshing = Box::pin(refresh_after_pause(bus, shared, &pipelines));
    let mut interrupted = Box::pin(bus.interrupted());
    loop {
        tokio::select! {
            biased;
            () = &mut interrupted => return Err(BusError::Interrupted),
            _ = flush.tick() => {
                metrics.measure(shared);
                if let Err(error) = shared.flush(now()) {
                    tracing::error!(%error, "a change cannot be encoded");
                }
            }
            reading = &mut refreshing => {
                let reading = reading?;
                shared.with(|model| model.read(reading, now()));
                refreshing = Box::pin(refresh_after_pause(bus, shared, &pipelines));
            }
            signal = signals.next() => {
                count(metrics, hear(shared, &signal?));
            }
        }
    }
}

async fn refresh_after_pause(
    bus: &Bus,
    shared: &Shared,
    pipelines: &Pipelines,
) -> Result<crate::model::Reading, BusError> {
    tokio::time::sleep(REFRESH_EVERY).await;
    recall::fill(bus, shared).await?;
    refresh::read(bus, pipelines, shared.with(|model| model.names())).await
}

fn count(metrics: &Metrics, heard: Result<(), Unheard>) {
    metrics.messages.inc();
    match heard {
        Ok(()) => {}
        Err(Unheard::Unreadable) => metrics.unreadable.inc(),
        Err(Unheard::Refused) => metrics.refused.inc(),
    }
}

/// Why a message changes nothing.
enum Unheard {
    /// It cannot be read.
    Unreadable,
    /// Its subject does not permit what it says.
    Refused,
}

/// Puts a message into the model.
fn hear(shared: &Shared, signal: &Signal) -> Result<(), Unheard> {
    let (now, subject) = (now(), signal.subject());
    let Some(kind) = Kind::of(subject) else {
        return Err(Unheard::Unreadable);
    };
    match kind {
        Kind::Block => {
            if let BlockEvent::Observed(block) = body(signal)? {
                believed(gate::admits_block(subject, &block))?;
                let trace = signal.trace();
                shared.with(|model| model.observed(&block, trace_id(&trace), now));
            }
        }
        Kind::Task => {
            let key = AttemptKey::parse(subject, kind).map_err(|_| Unheard::Unreadable)?;
            shared.with(|model| model.released(&key, now));
        }
        Kind::Lease => {
            let lease = gate::lease(subject, body(signal)?).ok_or(Unheard::Refused)?;
            shared.with(|model| model.heard(&lease, now));
        }
        Kind::Check => {
            let result: TaskResult = body(signal)?;
            let key = gate::report(subject, kind, &result).ok_or(Unheard::Refused)?;
            shared.with(|model| model.checking(&key, &result, now));
        }
        Kind::Result | Kind::Verdict => {
            if let ResultEvent::Attempt(result) = body(signal)? {
                let key = gate::report(subject, kind, &result).ok_or(Unheard::Refused)?;
                shared.with(|model| model.result(&key, &result, now));
            }
        }
        Kind::Ended => {
            if let ResultEvent::Ended(ended) = body(signal)? {
                believed(gate::admits_end(subject, &ended))?;
                shared.with(|model| model.end(&ended, now));
            }
        }
        Kind::Proof => {
            let record: Emission = body(signal)?;
            believed(gate::admits_record(subject, &record))?;
            let trace = signal.trace();
            shared.with(|model| model.record(&record, now, trace_id(&trace)));
        }
        Kind::Event => {
            let event: Event = body(signal)?;
            shared.with(|model| model.happened(event, now));
        }
        Kind::Cancel | Kind::Stage | Kind::Control | Kind::Dead | Kind::Notice | Kind::Blob => {}
    }
    Ok(())
}

fn body<T: DeserializeOwned>(signal: &Signal) -> Result<T, Unheard> {
    signal.body().map_err(|_| Unheard::Unreadable)
}

fn believed(is_believed: bool) -> Result<(), Unheard> {
    is_believed.then_some(()).ok_or(Unheard::Refused)
}
