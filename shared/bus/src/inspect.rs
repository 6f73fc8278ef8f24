//! Reading streams and their state without consuming messages.

use crate::{
    Bus, BusError, Stream,
    decode::{decode, trace_of},
    leaderless::refuse_without_leader,
};
use async_nats::jetstream::{
    ErrorCode,
    context::ConsumerInfoErrorKind,
    message::StreamMessage,
    stream::{
        ConsumerErrorKind, DirectGetError, DirectGetErrorKind, Info, LastRawMessageError,
        LastRawMessageErrorKind,
    },
};
use futures::TryStreamExt;
use push0_domain::{Timestamp, codec::CodecError, trace::TraceContext};
use serde::de::DeserializeOwned;

/// A message read from its stream, which keeps it.
#[derive(Debug)]
pub struct Kept<T> {
    /// The decoded body, or the reason why it cannot be decoded.
    pub body: Result<T, CodecError>,
    /// The message's subject.
    pub subject: String,
    /// The message's sequence in the stream.
    pub sequence: u64,
    /// The time at which the broker stored the message.
    pub stored_at: Timestamp,
    /// The trace context from the message's headers.
    pub trace: TraceContext,
}

/// Delivery progress of a durable consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handed {
    /// The highest stream sequence delivered so far.
    pub up_to: u64,
    /// The ack floor: all messages up to this stream sequence are acknowledged.
    pub floor: u64,
    /// The number of unacknowledged deliveries.
    pub unacknowledged: usize,
    /// The number of deliveries so far, redeliveries included.
    pub deliveries: u64,
}

impl Handed {
    /// Returns whether the message at `sequence` is known to be acknowledged. A work queue removes a message
    /// when it is acknowledged, but a broker of a cluster that fails between the two leaves the message in
    /// its stream, where it is never delivered and occupies its subject (nats-server 2.12.8 and 2.15.1).
    pub fn is_acknowledged(&self, sequence: u64) -> bool {
        sequence <= self.floor
    }
}

/// The fill level of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Level {
    /// The number of messages in the stream.
    pub messages: u64,
    /// The size of the stream in bytes.
    pub bytes: u64,
    /// The most bytes the stream may hold.
    pub bytes_max: u64,
}

impl Level {
    pub(crate) fn of(info: &Info) -> Self {
        Self {
            messages: info.state.messages,
            bytes: info.state.bytes,
            bytes_max: u64::try_from(info.config.max_bytes).unwrap_or(u64::MAX),
        }
    }

    /// Returns the used part of the limit in thousandths.
    pub fn permille(&self) -> u64 {
        (u128::from(self.bytes) * 1000)
            .checked_div(u128::from(self.bytes_max))
            .map_or(0, |permille| u64::try_from(permille).unwrap_or(u64::MAX))
    }
}

impl Bus {
    /// Returns the newest message on `subjects`, read from the stream's leader.
    pub async fn last<T: DeserializeOwned>(
        &self,
        stream: Stream,
        subjects: &str,
    ) -> Result<Option<Kept<T>>, BusError> {
        let bound = self.stream(stream).await?;
        led(stream, bound.get_last_raw_message_by_subject(subjects).await)
    }

    /// Returns the message at `sequence`. Any copy may answer, since a message never changes, but only the
    /// leader's word makes a message missing.
    pub async fn at<T: DeserializeOwned>(
        &self,
        stream: Stream,
        sequence: u64,
    ) -> Result<Option<Kept<T>>, BusError> {
        let bound = self.stream(stream).await?;
        if let Some(found) = kept(stream, bound.direct_get(sequence).await)? {
            return Ok(Some(found));
        }
        led(stream, bound.get_raw_message(sequence).await)
    }

    /// Returns at most `limit` messages on `subjects` from sequence `from` on, oldest first. Any copy may
    /// supply messages, but only the stream's leader can say that there are no more.
    pub async fn scan<T: DeserializeOwned>(
        &self,
        stream: Stream,
        subjects: &str,
        from: u64,
        limit: usize,
    ) -> Result<Vec<Kept<T>>, BusError> {
        let bound = self.stream(stream).await?;
        let mut found: Vec<Kept<T>> = Vec::new();
        while found.len() < limit {
            let from = found.last().map_or(from.max(1), |last| last.sequence + 1);
            let next = bound.direct_get_next_for_subject(subjects, Some(from)).await;
            let next = match kept(stream, next)? {
                Some(message) => Some(message),
                None => led(
                    stream,
                    bound.get_first_raw_message_by_subject(subjects, from).await,
                )?,
            };
            match next {
                Some(message) => found.push(message),
                None => break,
            }
        }
        Ok(found)
    }

    /// Returns the stream's subjects that match `filter` and hold messages, each with its number of messages.
    pub async fn subjects(&self, stream: Stream, filter: &str) -> Result<Vec<(String, usize)>, BusError> {
        let failed = |e: &dyn std::fmt::Display| BusError::unavailable(stream.name(), e);
        let bound = self.stream(stream).await?;
        let subjects = bound.info_with_subjects(filter).await.map_err(|e| failed(&e))?;
        refuse_without_leader(stream.name(), subjects.info.cluster.as_ref())?;
        subjects.try_collect().await.map_err(|e| failed(&e))
    }

    /// Returns the delivery progress of a durable consumer, `None` if there is no such consumer.
    pub async fn handed_out(&self, stream: Stream, consumer: &str) -> Result<Option<Handed>, BusError> {
        match self.stream(stream).await?.consumer_info(consumer).await {
            Ok(info) => {
                refuse_without_leader(consumer, info.cluster.as_ref())?;
                Ok(Some(Handed {
                    up_to: info.delivered.stream_sequence,
                    floor: info.ack_floor.stream_sequence,
                    unacknowledged: info.num_ack_pending,
                    deliveries: info.delivered.consumer_sequence,
                }))
            }
            Err(e) if e.kind() == ConsumerInfoErrorKind::NotFound => Ok(None),
            Err(e) => Err(BusError::unavailable(consumer, e)),
        }
    }

    /// Removes a durable consumer; its messages stay in the stream. Not an error if there is none.
    pub async fn drop_consumer(&self, stream: Stream, consumer: &str) -> Result<(), BusError> {
        match self.stream(stream).await?.delete_consumer(consumer).await {
            Ok(_) => Ok(()),
            Err(e) => match e.kind() {
                ConsumerErrorKind::JetStream(e) if e.error_code() == ErrorCode::CONSUMER_NOT_FOUND => Ok(()),
                _ => Err(BusError::unavailable(consumer, e)),
            },
        }
    }

    /// Returns the fill level of a stream.
    pub async fn level(&self, stream: Stream) -> Result<Level, BusError> {
        self.level_of(stream.name()).await
    }

    /// Returns the fill level of a stream, a bucket or the blob store, by its stream's name.
    pub(crate) async fn level_of(&self, name: &str) -> Result<Level, BusError> {
        let bound = self.jetstream.get_stream_no_info(name).await;
        let info = bound
            .map_err(|e| BusError::unavailable(name, e))?
            .get_info()
            .await;
        let info = info.map_err(|e| BusError::unavailable(name, e))?;
        refuse_without_leader(name, info.cluster.as_ref())?;
        Ok(Level::of(&info))
    }

    /// Returns the sequence of the stream's newest message, read from its leader; 0 if the stream
    /// never had one.
    pub async fn newest(&self, stream: Stream) -> Result<u64, BusError> {
        let info = self.stream(stream).await?.get_info().await;
        let info = info.map_err(|e| BusError::unavailable(stream.name(), e))?;
        refuse_without_leader(stream.name(), info.cluster.as_ref())?;
        Ok(info.state.last_sequence)
    }

    /// Returns the first message on `subjects` from sequence `from` on, read from the stream's leader.
    pub(crate) async fn next_raw(
        &self,
        stream: Stream,
        subjects: &str,
        from: u64,
    ) -> Result<Option<StreamMessage>, BusError> {
        let bound = self.stream(stream).await?;
        match bound.get_first_raw_message_by_subject(subjects, from).await {
            Ok(message) => Ok(Some(message)),
            Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
            Err(e) => Err(BusError::unavailable(stream.name(), e)),
        }
    }

    /// Removes every message on `subjects`, delivered or not. Returns how many were removed.
    pub async fn purge(&self, stream: Stream, subjects: &str) -> Result<u64, BusError> {
        let purged = self.stream(stream).await?.purge().filter(subjects).await;
        purged
            .map(|p| p.purged)
            .map_err(|e| BusError::unavailable(stream.name(), e))
    }

    /// Removes the messages on `subject`, delivered or not, except the newest one. Returns how many were removed.
    pub async fn purge_but_newest(&self, stream: Stream, subject: &str) -> Result<u64, BusError> {
        let purged = self.stream(stream).await?.purge().filter(subject).keep(1).await;
        purged
            .map(|p| p.purged)
            .map_err(|e| BusError::unavailable(stream.name(), e))
    }

    /// Removes the messages on `subject` up to and including `sequence`. A later one stays.
    pub async fn purge_up_to(&self, stream: Stream, subject: &str, sequence: u64) -> Result<(), BusError> {
        let bound = self.stream(stream).await?;
        let purged = bound.purge().filter(subject).sequence(sequence + 1).await;
        purged
            .map(|_| ())
            .map_err(|e| BusError::unavailable(stream.name(), e))
    }

    pub(crate) async fn stream(
        &self,
        stream: Stream,
    ) -> Result<async_nats::jetstream::stream::Stream<()>, BusError> {
        let bound = self.jetstream.get_stream_no_info(stream.name()).await;
        bound.map_err(|e| BusError::unavailable(stream.name(), e))
    }
}

/// Converts the answer of a stream's leader.
fn led<T: DeserializeOwned>(
    stream: Stream,
    got: Result<StreamMessage, LastRawMessageError>,
) -> Result<Option<Kept<T>>, BusError> {
    match got {
        Ok(message) => Ok(Some(decoded(&message))),
        Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(e) => Err(BusError::unavailable(stream.name(), e)),
    }
}

/// Converts the answer of any copy of a stream, which may lag behind the leader.
fn kept<T: DeserializeOwned>(
    stream: Stream,
    got: Result<StreamMessage, DirectGetError>,
) -> Result<Option<Kept<T>>, BusError> {
    let message = match got {
        Ok(message) => message,
        Err(e) if e.kind() == DirectGetErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(BusError::unavailable(stream.name(), e)),
    };
    Ok(Some(decoded(&message)))
}

pub(crate) fn decoded<T: DeserializeOwned>(message: &StreamMessage) -> Kept<T> {
    Kept {
        body: decode(&message.payload, Some(&message.headers)),
        subject: message.subject.to_string(),
        sequence: message.sequence,
        stored_at: stored_at(message),
        trace: trace_of(Some(&message.headers)),
    }
}

/// Returns the time at which the broker stored a message.
pub(crate) fn stored_at(message: &StreamMessage) -> Timestamp {
    Timestamp(u64::try_from(message.time.unix_timestamp_nanos() / 1000).unwrap_or_default())
}
