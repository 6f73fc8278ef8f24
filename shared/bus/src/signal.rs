//! Signals: messages heard as they pass, without a consumer and without a promise.
//!
//! Whatever is published to a stream also reaches plain subscribers at once. That makes a fast hint
//! for free; what must not be missed is derived from stored state as well.

use crate::{Bus, BusError, delivery};
use futures::{StreamExt, stream::SelectAll};
use push0_domain::{codec::CodecError, trace::TraceContext};
use serde::de::DeserializeOwned;

/// Messages on some subjects as they pass.
pub struct Signals {
    passing: SelectAll<async_nats::Subscriber>,
}

/// One message that passed.
pub struct Signal(async_nats::Message);

impl Bus {
    /// Listens to subjects, wildcards allowed.
    pub async fn listen(&self, subjects: impl IntoIterator<Item = String>) -> Result<Signals, BusError> {
        let mut passing = SelectAll::new();
        for subject in subjects {
            let subscription = self.client.subscribe(subject.clone()).await;
            passing.push(subscription.map_err(|e| BusError::unavailable(subject, e))?);
        }
        Ok(Signals { passing })
    }

    /// Tells whoever listens, and nobody else.
    pub async fn signal(&self, message: crate::Message) -> Result<(), BusError> {
        let crate::Message {
            subject,
            body,
            headers,
            ..
        } = message;
        let sent = self
            .client
            .publish_with_headers(subject.clone(), headers, body)
            .await;
        sent.map_err(|e| BusError::unavailable(subject, e))
    }
}

impl Signals {
    /// The next one.
    pub async fn next(&mut self) -> Result<Signal, BusError> {
        self.passing.next().await.map(Signal).ok_or(BusError::Interrupted)
    }
}

impl Signal {
    /// Its subject.
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// What it says.
    pub fn body<T: DeserializeOwned>(&self) -> Result<T, CodecError> {
        delivery::decode(&self.0.payload, self.0.headers.as_ref())
    }

    /// The trace that it belongs to.
    pub fn trace(&self) -> TraceContext {
        delivery::trace_of(self.0.headers.as_ref())
    }
}
