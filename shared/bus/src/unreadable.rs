//! Stored values that cannot be read: a bug, another version or a hostile hand wrote them.

use crate::{Bus, BusError, Stream, decode::decode, inspect::stored_at};
use async_nats::jetstream::message::StreamMessage;
use push0_domain::{Timestamp, codec::CodecError};
use serde::de::DeserializeOwned;

/// A stored value that cannot be read.
#[derive(Debug)]
pub struct Unreadable {
    /// The subject of a message, or the key of a fact.
    pub name: String,
    /// The message's sequence in its stream, or the fact's revision.
    pub sequence: u64,
    /// The time at which the broker stored the value.
    pub stored_at: Timestamp,
    /// Why the value cannot be read.
    pub reason: CodecError,
    /// The headers, by name.
    pub headers: Vec<(String, String)>,
    /// The bytes.
    pub body: Vec<u8>,
}

impl Unreadable {
    pub(crate) fn new(name: String, message: &StreamMessage, reason: CodecError) -> Self {
        let headers = message.headers.iter();
        let headers = headers.flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
        Self {
            name,
            sequence: message.sequence,
            stored_at: stored_at(message),
            reason,
            headers: headers
                .map(|(name, value)| (name.to_string(), value.to_string()))
                .collect(),
            body: message.payload.to_vec(),
        }
    }
}

impl Bus {
    /// Returns the messages on `subjects` that are not of type `T`, oldest first. Reads every message.
    pub async fn unreadable<T: DeserializeOwned>(
        &self,
        stream: Stream,
        subjects: &str,
    ) -> Result<Vec<Unreadable>, BusError> {
        let (mut found, mut from) = (Vec::new(), 1);
        while let Some(message) = self.next_raw(stream, subjects, from).await? {
            from = message.sequence + 1;
            if let Err(reason) = decode::<T>(&message.payload, Some(&message.headers)) {
                found.push(Unreadable::new(message.subject.to_string(), &message, reason));
            }
        }
        Ok(found)
    }

    /// Removes one message, and leaves every other message on its subject.
    pub async fn remove(&self, stream: Stream, sequence: u64) -> Result<(), BusError> {
        let removed = self.stream(stream).await?.delete_message(sequence).await;
        removed
            .map(|_| ())
            .map_err(|e| BusError::unavailable(stream.name(), e))
    }
}
