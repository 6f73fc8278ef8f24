//! Signals: messages received by a plain subscription as they are published, without a consumer and without
//! a delivery guarantee.
//!
//! Every message published to a stream also reaches plain subscribers at once, so a signal is a fast hint at
//! no cost. Anything that must not be missed is derived from stored state as well.

use crate::{
    Bus, BusError,
    decode::{decode, trace_of},
};
use futures::{StreamExt, stream::SelectAll};
use push0_domain::{codec::CodecError, trace::TraceContext};
use serde::de::DeserializeOwned;

/// A subscription to one or more subjects.
pub struct Signals {
    passing: SelectAll<async_nats::Subscriber>,
}

/// A message received by a subscription.
pub struct Signal(async_nats::Message);

impl Bus {
    /// Subscribes to subjects, wildcards allowed.
    pub async fn listen(&self, subjects: impl IntoIterator<Item = String>) -> Result<Signals, BusError> {
        let mut passing = SelectAll::new();
        for subject in subjects {
            let subscription = self.client.subscribe(subject.clone()).await;
            passing.push(subscription.map_err(|e| BusError::unavailable(subject, e))?);
        }
        Ok(Signals { passing })
    }

    /// Publishes a message to current subscribers, without waiting for a stream to store it.
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
    /// Returns the next message.
    pub async fn next(&mut self) -> Result<Signal, BusError> {
        self.passing.next().await.map(Signal).ok_or(BusError::Interrupted)
    }
}

impl Signal {
    /// Returns the message's subject.
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// Decodes the message's body.
    pub fn body<T: DeserializeOwned>(&self) -> Result<T, CodecError> {
        decode(&self.0.payload, self.0.headers.as_ref())
    }

    /// Returns the trace context from the message's headers.
    pub fn trace(&self) -> TraceContext {
        trace_of(self.0.headers.as_ref())
    }
}
