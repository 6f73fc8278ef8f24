//! Receiving: typed messages from a durable consumer, and what one says about each of them.

use crate::{Bus, BusError, DeadLetters, Handed, Stream, held::Held};
use async_nats::jetstream::consumer::pull;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture};
use push0_domain::{
    Timestamp,
    codec::{self, CodecError},
    trace::TraceContext,
};
use serde::de::DeserializeOwned;
use std::{
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

/// How a service that keeps state takes messages: all that are unacknowledged first, then new ones.
///
/// Its unacknowledged messages *are* its state. So the consumer is made anew each time it starts:
/// the broker then delivers everything that a predecessor left, at once and in order.
#[derive(Clone, Debug)]
pub struct Replay {
    /// The stream.
    pub stream: Stream,
    /// The durable consumer's name.
    pub consumer: String,
    /// Which subjects; those of two consumers of one stream must not overlap.
    pub filters: Vec<String>,
}

/// How much of its stream a receiver holds at a time.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The most messages that may be unacknowledged: the rest waits in the stream.
    pub open_max: u32,
    /// How many messages are asked for at once. Up to one and a half times as many lie in memory while
    /// the receiver does not read on.
    pub batch: usize,
    /// The same in bytes, more than any message has; 0 for no limit.
    pub bytes: usize,
}

impl Default for Window {
    /// For a receiver that always reads on: enough to replay 10,000 messages in well under 0.5 s, and little
    /// enough of the largest ones for a container of 64 MiB.
    fn default() -> Self {
        Self {
            open_max: 200_000,
            batch: 512,
            bytes: 8 << 20,
        }
    }
}

/// How long a receiver counts as replaying: 200,000 messages take less.
const REPLAY_MAX: Duration = Duration::from_secs(10);

/// How often what the broker waits for is compared with what is held.
const COMPARE_EVERY: Duration = Duration::from_secs(5);

/// Typed messages as they come.
pub struct Deliveries<T> {
    messages: pull::Stream,
    stream: Stream,
    consumer: String,
    bus: Bus,
    held: Held,
    /// Kept over the waits for messages: a timer for each of them would cost more than many a message.
    compare_at: Pin<Box<tokio::time::Sleep>>,
    comparing: Option<BoxFuture<'static, Result<Option<Handed>, BusError>>>,
    handed: Option<Handed>,
    to_replay: u64,
    is_replay: bool,
    since: Instant,
    aside: Option<SettingAside>,
    body: PhantomData<fn() -> T>,
}

/// An unreadable message on its way to the dead letters. Its receiver keeps it until it has ended:
/// whoever waits for the next message may stop waiting at any time, and this must not end half way.
pub(crate) type SettingAside = BoxFuture<'static, Result<(), BusError>>;

/// What a message turned out to be.
pub(crate) enum Read<T> {
    /// One that can be acted on.
    Delivery(Box<Delivery<T>>),
    /// One that cannot be read.
    Unreadable(SettingAside),
}

/// Goes on with what was begun, if anything was. Cancel safe.
pub(crate) async fn finish(aside: &mut Option<SettingAside>) -> Result<(), BusError> {
    let Some(begun) = aside else { return Ok(()) };
    let ended = begun.await;
    *aside = None;
    ended
}

/// A message and the duty to acknowledge it: by its [`Ack`], or, for a receiver that keeps state, by
/// its sequence ([`Deliveries::done`]), which is all that need be kept.
#[derive(Debug)]
pub struct Delivery<T, A = Ack> {
    /// What it says.
    pub body: T,
    /// The trace that it belongs to.
    pub trace: TraceContext,
    /// Its subject.
    pub subject: String,
    /// Its sequence in the stream.
    pub sequence: u64,
    /// When the broker had stored it.
    pub stored_at: Timestamp,
    /// How often it was delivered, this time included.
    pub deliveries: u32,
    /// The way to acknowledge it.
    pub ack: A,
}

/// The way to acknowledge a delivery. Whoever knows its subject can: that is how the watchdog ends
/// a dead prover's delivery.
#[derive(Clone)]
pub struct Ack {
    client: Arc<async_nats::Client>,
    subject: async_nats::Subject,
}

impl std::fmt::Debug for Ack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Ack({})", self.subject)
    }
}

impl Ack {
    /// The subject, for leases.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Done: the broker removes the message.
    pub async fn done(&self) {
        self.say("+ACK".into()).await;
    }

    /// Still at it: the broker's ack wait starts again.
    pub async fn progress(&self) {
        self.say("+WPI".into()).await;
    }

    /// Somebody else should have it, after `delay`.
    pub async fn give_back(&self, delay: Duration) {
        self.say(format!("-NAK {{\"delay\": {}}}", delay.as_nanos()).into())
            .await;
    }

    // Acknowledgements are not answered: a lost one means one more delivery, which every receiver expects.
    async fn say(&self, word: Bytes) {
        if let Err(error) = self.client.publish(self.subject.clone(), word).await {
            tracing::debug!(%error, "acknowledgement not sent");
        }
    }
}

impl<T> Delivery<T> {
    /// Keeps of it what need not lie where it was received.
    fn without_ack(self) -> Delivery<T, ()> {
        Delivery {
            body: self.body,
            trace: self.trace,
            subject: self.subject,
            sequence: self.sequence,
            stored_at: self.stored_at,
            deliveries: self.deliveries,
            ack: (),
        }
    }
}

impl Bus {
    /// The way to acknowledge a delivery of which only the subject is known.
    pub fn ack_of(&self, ack_subject: &str) -> Ack {
        Ack {
            client: self.client.clone(),
            subject: ack_subject.into(),
        }
    }

    /// The way to acknowledge whatever delivery there is of a message of which only its place is known.
    ///
    /// The subject of acknowledgements is documented (NATS ADR-15): stream, consumer, number of
    /// deliveries, sequence in the stream, sequence of the consumer, time, and how many are pending.
    /// The broker goes by the sequence in the stream; a test shows it for the versions that are used.
    pub fn ack_at(&self, stream: Stream, consumer: &str, sequence: u64) -> Ack {
        self.ack_of(&format!(
            "$JS.ACK.{}.{consumer}.1.{sequence}.1.0.0",
            stream.name()
        ))
    }

    /// Starts to receive, from the oldest message that nobody acknowledged.
    pub async fn replay<T: DeserializeOwned>(&self, replay: &Replay) -> Result<Deliveries<T>, BusError> {
        self.replay_within(replay, Window::default()).await
    }

    /// The same for a receiver that leaves most messages in their stream.
    pub async fn replay_within<T: DeserializeOwned>(
        &self,
        replay: &Replay,
        window: Window,
    ) -> Result<Deliveries<T>, BusError> {
        let making = self.make(replay, window);
        let messages = tokio::select! {
            biased;
            () = self.interrupted() => return Err(BusError::Interrupted),
            made = making => made?,
        };
        let (to_replay, messages) = messages;
        Ok(Deliveries {
            messages,
            stream: replay.stream,
            consumer: replay.consumer.clone(),
            bus: self.clone(),
            held: Held::default(),
            compare_at: Box::pin(tokio::time::sleep(COMPARE_EVERY)),
            comparing: None,
            handed: None,
            to_replay,
            is_replay: false,
            since: Instant::now(),
            aside: None,
            body: PhantomData,
        })
    }
}

impl<T: DeserializeOwned> Deliveries<T> {
    /// How many messages are still to come that were there before this receiver: 0 means that the
    /// state is complete. A message may vanish from the stream before it is delivered, so the wait
    /// for it has an end.
    pub fn to_replay(&self) -> u64 {
        if self.since.elapsed() < REPLAY_MAX {
            self.to_replay
        } else {
            0
        }
    }

    /// Whether the newest message was there before this receiver. Counted, however long ago that is: one
    /// that reads slowly is still at what was there.
    pub fn is_replay(&self) -> bool {
        self.is_replay
    }

    /// The next message. Cancel safe. One that cannot be read goes to the dead letters and is passed
    /// over.
    pub async fn next(&mut self) -> Result<Delivery<T, ()>, BusError> {
        loop {
            finish(&mut self.aside).await?;
            let message = tokio::select! {
                message = self.messages.next() => message,
                compared = compare(&self.bus, self.stream, &self.consumer, self.compare_at.as_mut(), &mut self.comparing) => {
                    let next = tokio::time::Instant::now() + COMPARE_EVERY;
                    self.compare_at.as_mut().reset(next);
                    self.note(compared)?;
                    continue;
                }
            };
            let message = match message {
                Some(Ok(message)) => message,
                Some(Err(error)) => return Err(BusError::unavailable(self.stream.name(), error)),
                None => return Err(BusError::Interrupted),
            };
            self.is_replay = self.to_replay > 0;
            self.to_replay = self.to_replay.saturating_sub(1);
            if message.info().is_ok_and(|info| info.pending == 0) {
                self.to_replay = 0;
            }
            match read(&self.bus, self.stream, message)? {
                Read::Delivery(delivery) => {
                    self.held.take(delivery.sequence);
                    return Ok(delivery.without_ack());
                }
                Read::Unreadable(aside) => self.aside = Some(aside),
            }
        }
    }

    /// Whether the message of this sequence was received and is not done.
    pub fn holds(&self, sequence: u64) -> bool {
        self.held.has(sequence)
    }

    /// How many messages were received and are not done.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Done with the message of this sequence: the broker removes it.
    pub async fn done(&mut self, sequence: u64) {
        self.held.let_go(sequence);
        self.bus
            .ack_at(self.stream, &self.consumer, sequence)
            .done()
            .await;
    }

    /// Watches over what is held while nothing is read: returns only when an acknowledgement was lost.
    /// Cancel safe.
    pub async fn watch(&mut self) -> BusError {
        loop {
            if let Err(lost) = self.compared().await {
                return lost;
            }
        }
    }

    /// Compares what is held with what the broker waits for, once it is time to. Cancel safe.
    async fn compared(&mut self) -> Result<(), BusError> {
        let (at, asking) = (self.compare_at.as_mut(), &mut self.comparing);
        let compared = compare(&self.bus, self.stream, &self.consumer, at, asking).await;
        let next = tokio::time::Instant::now() + COMPARE_EVERY;
        self.compare_at.as_mut().reset(next);
        self.note(compared)
    }

    fn note(&mut self, compared: Result<Option<Handed>, BusError>) -> Result<(), BusError> {
        let Ok(Some(now)) = compared else {
            // Not known this time: it is asked again, and the stream of messages says if all is over.
            self.handed = None;
            return Ok(());
        };
        match self.handed.replace(now) {
            Some(before) if self.held.has_lost(&before, &now) => Err(BusError::unavailable(
                format!("consumer {} on {}", self.consumer, self.stream.name()),
                "an acknowledgement was lost",
            )),
            _ => Ok(()),
        }
    }
}

/// What the broker has handed out, once it is time to ask. Cancel safe.
async fn compare(
    bus: &Bus,
    stream: Stream,
    consumer: &str,
    at: Pin<&mut tokio::time::Sleep>,
    asking: &mut Option<BoxFuture<'static, Result<Option<Handed>, BusError>>>,
) -> Result<Option<Handed>, BusError> {
    if asking.is_none() {
        at.await;
    }
    let answer = asking
        .get_or_insert_with(|| {
            let (bus, consumer) = (bus.clone(), consumer.to_owned());
            async move { bus.handed_out(stream, &consumer).await }.boxed()
        })
        .await;
    *asking = None;
    answer
}

/// Reads a message. One that cannot be read becomes a dead letter as soon as its future is awaited.
pub(crate) fn read<T: DeserializeOwned>(
    bus: &Bus,
    stream: Stream,
    message: async_nats::jetstream::Message,
) -> Result<Read<T>, BusError> {
    let (sequence, stored_at, deliveries) = {
        let info = message
            .info()
            .map_err(|e| BusError::unavailable("a delivery without its metadata", e))?;
        let stored_at = u64::try_from(info.published.unix_timestamp_nanos() / 1000).unwrap_or_default();
        (
            info.stream_sequence,
            Timestamp(stored_at),
            u32::try_from(info.delivered).unwrap_or(u32::MAX),
        )
    };
    // Not `split`: it takes the reply subject out of the message, and that is what acknowledges it.
    let message = message.message;
    let ack_subject = message.reply.clone();
    let ack = Ack {
        client: bus.client.clone(),
        subject: ack_subject
            .ok_or_else(|| BusError::unavailable(stream.name(), "a delivery that cannot be acknowledged"))?,
    };
    // The broker answers a request to read a stream wherever the request says, also into another
    // stream: with this header. Nobody who may only read can write that way.
    let is_copy = message
        .headers
        .as_ref()
        .is_some_and(|h| h.get("Nats-Stream").is_some());
    let body = if is_copy {
        Err(CodecError::Refused(
            "a copy of another stream's message, not a message".into(),
        ))
    } else {
        decode(&message.payload, message.headers.as_ref())
    };
    match body {
        Ok(body) => Ok(Read::Delivery(Box::new(Delivery {
            body,
            trace: trace_of(message.headers.as_ref()),
            subject: message.subject.to_string(),
            sequence,
            stored_at,
            deliveries,
            ack,
        }))),
        Err(error) => {
            let letters = DeadLetters::new(bus.clone());
            let aside = async move {
                letters
                    .unreadable(stream, &message.subject, sequence, &message.payload, &error)
                    .await?;
                ack.done().await;
                Ok(())
            };
            Ok(Read::Unreadable(aside.boxed()))
        }
    }
}

pub(crate) fn decode<T: DeserializeOwned>(
    body: &[u8],
    headers: Option<&async_nats::HeaderMap>,
) -> Result<T, CodecError> {
    let (schema, encoding) = (codec::SCHEMA_HEADER, codec::ENCODING_HEADER);
    codec::decode_described(body, header(headers, schema), header(headers, encoding))
}

pub(crate) fn trace_of(headers: Option<&async_nats::HeaderMap>) -> TraceContext {
    TraceContext {
        traceparent: header(headers, "traceparent").map(Into::into),
        tracestate: header(headers, "tracestate").map(Into::into),
    }
}

fn header<'a>(headers: Option<&'a async_nats::HeaderMap>, name: &str) -> Option<&'a str> {
    headers?.get(name).map(|value| value.as_str())
}
