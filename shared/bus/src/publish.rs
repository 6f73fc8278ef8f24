//! Storing messages: a publish succeeds when the broker has confirmed it.

use crate::{Bus, BusError, replacement::Over};
use async_nats::HeaderMap;
use async_nats::jetstream::{
    context::{PublishAckFuture, PublishErrorKind},
    message::PublishMessage,
};
use bytes::Bytes;
use push0_domain::{
    codec::{self, CodecError, Encoding},
    trace::TraceContext,
};
use serde::Serialize;
use std::time::Duration;

/// A message to store: subject, body, and headers with its trace context.
#[derive(Clone, Debug)]
pub struct Message {
    pub(crate) subject: String,
    pub(crate) body: Bytes,
    pub(crate) headers: HeaderMap,
    /// The older messages that this message may replace, `None` if it replaces none.
    pub(crate) over: Option<Over>,
}

/// The broker's confirmation of a stored message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The message's sequence in the stream.
    pub sequence: u64,
    /// Whether the broker already had a message with the same message id.
    pub duplicate: bool,
}

/// The reason why a message was not stored.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The subject allows one message and already holds one: the same work was requested before.
    #[error("`{subject}` already holds a message")]
    Occupied {
        /// The message's subject.
        subject: String,
    },
    /// The newest message of the stream is not the expected one: another process has done this work.
    #[error("`{subject}`: the stream has messages newer than expected")]
    Unexpected {
        /// The message's subject.
        subject: String,
    },
    /// The stream or the store is at its limit.
    #[error("`{subject}`: the store is full: {reason}")]
    Full {
        /// The message's subject.
        subject: String,
        /// The broker's error text.
        reason: String,
    },
    /// The message is not stored as far as is known: no answer, or a temporary error. The
    /// caller should retry.
    #[error("`{subject}`: {reason}")]
    Unavailable {
        /// The message's subject.
        subject: String,
        /// The error text of the client or the broker.
        reason: String,
    },
}

impl PublishError {
    /// Returns whether the same publish may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::Unavailable { .. })
    }
}

impl From<PublishError> for BusError {
    fn from(error: PublishError) -> Self {
        Self::unavailable("publish", error)
    }
}

impl Message {
    /// Creates a message with a body in bincode.
    pub fn new<T: Serialize>(subject: String, body: &T, trace: &TraceContext) -> Result<Self, CodecError> {
        Self::encoded(subject, body, trace, Encoding::Bincode)
    }

    /// Returns the length of the body in bytes.
    #[expect(clippy::len_without_is_empty, reason = "no message is empty")]
    pub fn len(&self) -> usize {
        self.body.len()
    }

    /// Creates a message of opaque bytes, without headers.
    pub(crate) fn raw(subject: String, body: Bytes) -> Self {
        Self {
            subject,
            body,
            headers: HeaderMap::new(),
            over: None,
        }
    }

    /// Creates a message with a body in the given encoding.
    pub fn encoded<T: Serialize>(
        subject: String,
        body: &T,
        trace: &TraceContext,
        encoding: Encoding,
    ) -> Result<Self, CodecError> {
        let body = codec::encode(body, encoding)?.into();
        let mut headers = HeaderMap::new();
        headers.insert(codec::SCHEMA_HEADER, codec::SCHEMA);
        headers.insert(codec::ENCODING_HEADER, encoding.to_string());
        if let Some(traceparent) = &trace.traceparent {
            headers.insert("traceparent", traceparent.as_str());
        }
        if let Some(tracestate) = trace.tracestate.as_deref().filter(|s| !s.is_empty()) {
            headers.insert("tracestate", tracestate);
        }
        Ok(Self {
            subject,
            body,
            headers,
            over: None,
        })
    }

    /// Sets the message id, by which the broker drops a duplicate within its deduplication window. A
    /// convenience: no promise rests on it.
    #[must_use]
    pub fn id(mut self, id: &str) -> Self {
        self.headers.insert("Nats-Msg-Id", id);
        self
    }

    /// Adds a header.
    #[must_use]
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.insert(name, value);
        self
    }

    /// Returns the message's subject.
    pub fn subject(&self) -> &str {
        &self.subject
    }
}

/// The header with the expected sequence of the stream's newest message. The broker refuses
/// the message otherwise.
const EXPECTED_NEWEST: &str = "Nats-Expected-Last-Sequence";

/// A publish in flight.
struct Pending {
    subject: String,
    ack: PublishAckFuture,
}

impl Pending {
    async fn stored(self) -> Result<Stored, PublishError> {
        let subject = self.subject;
        match self.ack.await {
            Ok(ack) => Ok(Stored {
                sequence: ack.sequence,
                duplicate: ack.duplicate,
            }),
            Err(error) => Err(classify(subject, &error)),
        }
    }
}

impl Bus {
    /// Publishes a message and waits until it is stored.
    pub async fn publish(&self, message: Message) -> Result<Stored, PublishError> {
        self.send(message).await?.stored().await
    }

    /// Stores `messages` one right behind the other, or none of them, and only if the newest message of the
    /// stream has the sequence `newest`. Returns the sequence of the last one.
    ///
    /// Several messages go as an atomic batch (NATS ADR-50). `Nats-Expected-Last-Msg-Id` would chain single
    /// messages as well, but must never be sent: if a stream has three copies, nats-server 2.14 and 2.15
    /// refuse a message because of this header and store it all the same, and every copy of the stream
    /// stops for good.
    pub(crate) async fn publish_all(
        &self,
        messages: &[Message],
        newest: u64,
    ) -> Result<Stored, PublishError> {
        let behind = |message: &Message| message.clone().header(EXPECTED_NEWEST, &newest.to_string());
        let (first, last) = match messages {
            [] => {
                return Ok(Stored {
                    sequence: newest,
                    duplicate: false,
                });
            }
            [only] => return self.publish(behind(only)).await,
            [first, .., last] => (behind(first), last),
        };
        let batch = format!("{:032x}", rand::random::<u128>());
        let member = |message: Message, at: usize| {
            let message = message.header("Nats-Batch-Id", &batch);
            message.header("Nats-Batch-Sequence", &(at + 1).to_string())
        };
        self.tell(member(first, 0)).await?;
        let last_at = messages.len() - 1;
        for (at, message) in messages.iter().enumerate().take(last_at).skip(1) {
            self.tell(member(message.clone(), at)).await?;
        }
        let commit = member(last.clone(), last_at).header("Nats-Batch-Commit", "1");
        self.publish(commit).await
    }

    /// Sends a message of a batch without waiting. The broker confirms the batch in its answer to
    /// the last message.
    async fn tell(&self, message: Message) -> Result<(), PublishError> {
        let subject = message.subject.clone();
        self.signal(message)
            .await
            .map_err(|error| PublishError::Unavailable {
                subject,
                reason: error.to_string(),
            })
    }

    /// Sends a message. [`Pending::stored`] waits for the broker's confirmation.
    async fn send(&self, message: Message) -> Result<Pending, PublishError> {
        let Message {
            subject,
            body,
            headers,
            ..
        } = message;
        let publish = PublishMessage::build().payload(body).headers(headers);
        match self.jetstream.send_publish(subject.clone(), publish).await {
            Ok(ack) => Ok(Pending { subject, ack }),
            Err(error) => Err(classify(subject, &error)),
        }
    }

    /// Publishes a message and retries while the broker is away or full, until `budget` is used up. Logs only
    /// the first failure.
    pub async fn publish_patiently(
        &self,
        message: Message,
        budget: Duration,
    ) -> Result<Stored, PublishError> {
        let mut backoff = crate::Backoff::default();
        let give_up_at = tokio::time::Instant::now() + budget;
        let mut said = false;
        loop {
            // Waits for the connection: a message sent while the broker is away would stay in the client and
            // be stored beside its retry.
            let _ = tokio::time::timeout_at(give_up_at, self.connected()).await;
            let subject = message.subject.clone();
            let attempt = tokio::select! {
                biased;
                // The confirmation was lost with the connection, so there is nothing left to wait for.
                () = self.interrupted() => Err(PublishError::Unavailable {
                    subject,
                    reason: "the connection was interrupted".into(),
                }),
                outcome = self.publish_over(message.clone()) => outcome,
            };
            let error = match attempt {
                Err(error) if error.is_transient() && tokio::time::Instant::now() < give_up_at => error,
                outcome => return outcome,
            };
            if !said {
                tracing::warn!(%error, "message not stored yet, trying again");
                said = true;
            }
            backoff.pause().await;
        }
    }
}

fn classify(subject: String, error: &async_nats::jetstream::context::PublishError) -> PublishError {
    if error.kind() == PublishErrorKind::WrongLastSequence {
        return PublishError::Unexpected { subject };
    }
    let broker =
        std::error::Error::source(error).and_then(|s| s.downcast_ref::<async_nats::jetstream::Error>());
    match broker {
        Some(broker) => classify_code(subject, broker.error_code().0, broker.to_string()),
        None => PublishError::Unavailable {
            subject,
            reason: error.to_string(),
        },
    }
}

/// Returns whether a code of the broker means that the message expected another newest message. With three copies, the
/// leader of a stream answers 10164 while the winner of the race is not yet stored.
pub(crate) fn is_overtaken(code: u64) -> bool {
    matches!(code, 10070 | 10071 | 10164)
}

/// Maps the broker's error codes, as measured on 2.15.1, where one code covers every limit of a stream.
fn classify_code(subject: String, code: u64, reason: String) -> PublishError {
    match code {
        code if is_overtaken(code) => PublishError::Unexpected { subject },
        10077 if reason.contains("per subject") => PublishError::Occupied { subject },
        10077 | 10047 | 10023 | 10122 => PublishError::Full { subject, reason },
        _ => PublishError::Unavailable { subject, reason },
    }
}
