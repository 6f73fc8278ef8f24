//! Appends records to PROOFS, all of a batch or none, and only behind the newest record seen here.

use crate::session::Ready;
use futures::{FutureExt, future::BoxFuture};
use push0_bus::{BusError, Log, Message, PublishError};
use push0_domain::subject;
use std::time::Duration;

/// How long the broker may be unavailable or full before the collector starts over.
const PATIENCE: Duration = Duration::from_secs(30);

/// An append in flight, which returns the end of the log behind it.
pub(crate) type Appending = BoxFuture<'static, Result<Log, PublishError>>;

/// Begins to append records behind the end of the log.
pub(crate) fn append(mut log: Log, records: &[Ready]) -> Result<Appending, BusError> {
    let messages: Vec<Message> = records.iter().map(message).collect::<Result<_, _>>()?;
    let appending = async move {
        log.append(&messages, PATIENCE).await?;
        Ok(log)
    };
    Ok(appending.boxed())
}

fn message(ready: &Ready) -> Result<Message, BusError> {
    let subject = subject::proof(&ready.emission.pipeline, ready.emission.last.number);
    let trace = ready.traces.first().cloned().unwrap_or_default();
    let message = Message::new(subject.clone(), &ready.emission, &trace);
    message.map_err(|source| BusError::Corrupt {
        what: subject,
        source,
    })
}
