//! Receiving: typed messages from a durable consumer, and their acknowledgement.

use crate::{
    Bus, BusError, DeadLetters, Handed, Stream,
    decode::{decode, trace_of},
    held::{Held, Place},
};
use async_nats::jetstream::consumer::pull;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture};
use push0_domain::{Timestamp, codec::CodecError, trace::TraceContext};
use serde::de::DeserializeOwned;
use std::{
    marker::PhantomData,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

/// The consumer of a service that keeps state: all unacknowledged messages come first, then new ones.
///
/// The service's unacknowledged messages *are* its state. So the consumer is recreated at each start of the
/// service: the broker then delivers all messages left by a predecessor, at once and in order.
#[derive(Clone, Debug)]
pub struct Replay {
    /// The stream to receive from.
    pub stream: Stream,
    /// The durable consumer's name.
    pub consumer: String,
    /// The subjects to receive. The filters of two consumers of a stream must not overlap.
    pub filters: Vec<String>,
}

/// Limits on the messages a receiver takes from its stream.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The most unacknowledged messages. Further messages wait in the stream.
    pub open_max: u32,
    /// The most messages requested at once. While the receiver does not read, up to one and a half times as
    /// many are buffered in memory.
    pub batch: usize,
    /// The most bytes requested at once. More than the largest message; 0 means no limit.
    pub bytes: usize,
}

impl Default for Window {
    /// Returns the window of a receiver that never stops reading: large enough to replay 10,000 messages in
    /// well under 0.5 s, small enough for a container of 64 MiB when messages are large.
    fn default() -> Self {
        Self {
            open_max: 200_000,
            batch: 512,
            bytes: 8 << 20,
        }
    }
}

/// How long a receiver counts as replaying. A replay of 200,000 messages takes less.
const REPLAY_MAX: Duration = Duration::from_secs(10);

/// How often the broker's unacknowledged deliveries are compared with the messages held here.
const COMPARE_EVERY: Duration = Duration::from_secs(5);

/// A stream of typed messages from a durable consumer.
pub struct Deliveries<T> {
    messages: pull::Stream,
    stream: Stream,
    consumer: String,
    bus: Bus,
    held: Held,
    /// The timer of the comparison, kept across calls: a new timer for each message would cost more
    /// than the message.
    compare_at: Pin<Box<tokio::time::Sleep>>,
    comparing: Option<BoxFuture<'static, Result<Option<Handed>, BusError>>>,
    handed: Option<Handed>,
    to_replay: u64,
    is_replay: bool,
    since: Instant,
    aside: Option<SettingAside>,
    drops: Option<Drops>,
    body: PhantomData<fn() -> T>,
}

/// The end of an unreadable message, such as the storing of its dead letter. The receiver keeps the future until it
/// ends, because a caller may cancel its wait for the next message at any time and the storing must
/// not stop half way.
pub(crate) type SettingAside = BoxFuture<'static, Result<(), BusError>>;

/// The result of decoding a message.
pub(crate) enum Read<T> {
    /// A message that can be acted on.
    Delivery(Box<Delivery<T>>),
    /// An undecodable message.
    Unreadable(Box<Unreadable>),
}

/// A message that cannot be decoded.
pub(crate) struct Unreadable {
    pub(crate) subject: String,
    pub(crate) sequence: u64,
    pub(crate) deliveries: u32,
    pub(crate) body: Bytes,
    pub(crate) error: CodecError,
    pub(crate) ack: Ack,
}

impl Unreadable {
    /// Stores the message as a dead letter, then acknowledges it.
    fn bury(self, bus: &Bus, stream: Stream) -> SettingAside {
        let letters = DeadLetters::new(bus.clone());
        let aside = async move {
            letters
                .unreadable(stream, &self.subject, self.sequence, &self.body, &self.error)
                .await?;
            self.ack.done().await;
            Ok(())
        };
        aside.boxed()
    }
}

/// Returns whether an unreadable message is to be dropped, given its subject and the error.
type Drops = Box<dyn Fn(&str, &CodecError) -> bool + Send>;

/// Completes the end of an unreadable message, if one is in progress. Cancel safe.
pub(crate) async fn finish(aside: &mut Option<SettingAside>) -> Result<(), BusError> {
    let Some(begun) = aside else { return Ok(()) };
    let ended = begun.await;
    *aside = None;
    ended
}

/// A message that its receiver must acknowledge, either by its [`Ack`] or, if the receiver keeps state, by
/// its sequence ([`Deliveries::done`]), which is all the receiver has to remember.
#[derive(Debug)]
pub struct Delivery<T, A = Ack> {
    /// The decoded body.
    pub body: T,
    /// The trace context from the message's headers.
    pub trace: TraceContext,
    /// The message's subject.
    pub subject: String,
    /// The message's sequence in the stream.
    pub sequence: u64,
    /// The time at which the broker stored the message.
    pub stored_at: Timestamp,
    /// The number of deliveries of the message, including this one.
    pub deliveries: u32,
    /// How long the message lay in the stream because no [`Puller`](crate::Puller) had a place open; zero from any other
    /// receiver.
    pub waited: Duration,
    /// The handle to acknowledge the delivery; `()` if it is acknowledged by sequence.
    pub ack: A,
}

/// A handle to acknowledge a delivery.
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
    /// Returns a handle to the same delivery that uses the connection of `bus`.
    #[must_use]
    pub fn over(&self, bus: &Bus) -> Self {
        bus.ack_of(&self.subject)
    }

    /// Acknowledges the message: the broker removes it.
    pub async fn done(&self) {
        self.say("+ACK".into()).await;
    }

    /// Reports progress: the broker's ack wait starts again.
    pub async fn progress(&self) {
        self.say("+WPI".into()).await;
    }

    /// Returns the message to the broker, to be redelivered after `delay`.
    pub async fn give_back(&self, delay: Duration) {
        self.say(format!("-NAK {{\"delay\": {}}}", delay.as_nanos()).into())
            .await;
    }

    // The broker does not confirm acknowledgements. A lost one causes a redelivery, which
    // every receiver expects.
    async fn say(&self, word: Bytes) {
        if let Err(error) = self.client.publish(self.subject.clone(), word).await {
            tracing::debug!(%error, "acknowledgement not sent");
        }
    }
}

impl<T> Delivery<T> {
    /// Removes the [`Ack`], for a receiver that acknowledges by sequence.
    fn without_ack(self) -> Delivery<T, ()> {
        Delivery {
            body: self.body,
            trace: self.trace,
            subject: self.subject,
            sequence: self.sequence,
            stored_at: self.stored_at,
            deliveries: self.deliveries,
            waited: self.waited,
            ack: (),
        }
    }
}

impl Bus {
    /// Returns a handle to acknowledge a delivery, given its acknowledgement subject.
    pub(crate) fn ack_of(&self, ack_subject: &str) -> Ack {
        Ack {
            client: self.client.clone(),
            subject: ack_subject.into(),
        }
    }

    /// Returns a handle to acknowledge or give back the current delivery of a message, given the message's
    /// sequence and the progress of its consumer.
    pub fn ack_at(&self, stream: Stream, consumer: &str, sequence: u64, handed: &Handed) -> Ack {
        self.ack_of(&ack_subject(stream, consumer, sequence, handed.deliveries))
    }

    /// Starts to receive, from the oldest unacknowledged message on.
    pub async fn replay<T: DeserializeOwned>(&self, replay: &Replay) -> Result<Deliveries<T>, BusError> {
        self.replay_within(replay, Window::default()).await
    }

    /// Starts to receive within a window, for a receiver that leaves most messages in the stream.
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
            drops: None,
            body: PhantomData,
        })
    }
}

impl<T: DeserializeOwned> Deliveries<T> {
    /// Has unreadable messages acknowledged without a dead letter if `drops` returns `true` for their subject and the
    /// error. A letter costs room, so a sender that is not trusted must not be able to cause one.
    #[must_use]
    pub fn dropping(self, drops: impl Fn(&str, &CodecError) -> bool + Send + 'static) -> Self {
        Self {
            drops: Some(Box::new(drops)),
            ..self
        }
    }

    /// Returns how many messages older than this receiver are still to come; at 0 the state is complete. A
    /// message may vanish from the stream before its delivery, so after ten seconds the answer is always 0.
    pub fn to_replay(&self) -> u64 {
        if self.since.elapsed() < REPLAY_MAX {
            self.to_replay
        } else {
            0
        }
    }

    /// Returns the sequence of the newest message received, undecodable ones included; 0 before the first.
    pub fn read_to(&self) -> u64 {
        self.held.newest()
    }

    /// Returns whether the latest message is older than this receiver. Unlike [`Self::to_replay`] without a
    /// time limit, since a slow reader may replay for longer.
    pub fn is_replay(&self) -> bool {
        self.is_replay
    }

    /// Returns the next message, in the order of the stream. Cancel safe. Skips redeliveries of messages held
    /// here, and undecodable messages, which become dead letters.
    ///
    /// Fails if a message that is not held comes behind a newer one: a broker of a cluster may deliver out of
    /// order after an election, or the acknowledgement of the message was lost. A new receiver gets all in
    /// order again.
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
                Read::Delivery(delivery) => match self.held.take(delivery.sequence) {
                    Place::Next => return Ok(delivery.without_ack()),
                    Place::Held => {}
                    Place::Overtaken => {
                        let reason = format!("message {} came behind a newer one", delivery.sequence);
                        return Err(BusError::unavailable(self.stream.name(), reason));
                    }
                },
                Read::Unreadable(message) => {
                    self.held.pass(message.sequence);
                    let drops = self.drops.as_ref();
                    self.aside = Some(
                        if drops.is_some_and(|drops| drops(&message.subject, &message.error)) {
                            async move {
                                message.ack.done().await;
                                Ok(())
                            }
                            .boxed()
                        } else {
                            message.bury(&self.bus, self.stream)
                        },
                    );
                }
            }
        }
    }

    /// Returns whether the message of this sequence was received and is not acknowledged.
    pub fn holds(&self, sequence: u64) -> bool {
        self.held.has(sequence)
    }

    /// Returns how many messages were received and are not acknowledged.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Acknowledges the message of this sequence: the broker removes it.
    pub async fn done(&mut self, sequence: u64) {
        self.held.let_go(sequence);
        let subject = ack_subject(self.stream, &self.consumer, sequence, 1);
        self.bus.ack_of(&subject).done().await;
    }

    /// Keeps checking for lost acknowledgements while the caller reads no messages. Returns only when an
    /// acknowledgement was lost. Cancel safe.
    pub async fn watch(&mut self) -> BusError {
        loop {
            if let Err(lost) = self.compared().await {
                return lost;
            }
        }
    }

    /// Compares the messages held here with the broker's unacknowledged deliveries, once a comparison is
    /// due. Cancel safe.
    async fn compared(&mut self) -> Result<(), BusError> {
        let (at, asking) = (self.compare_at.as_mut(), &mut self.comparing);
        let compared = compare(&self.bus, self.stream, &self.consumer, at, asking).await;
        let next = tokio::time::Instant::now() + COMPARE_EVERY;
        self.compare_at.as_mut().reset(next);
        self.note(compared)
    }

    fn note(&mut self, compared: Result<Option<Handed>, BusError>) -> Result<(), BusError> {
        let Ok(Some(now)) = compared else {
            // The progress is unknown this time. The next comparison asks again, and the message stream
            // reports a lost consumer.
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

/// Returns the subject on which a delivery is acknowledged or given back.
///
/// The subject is documented (NATS ADR-15): stream, consumer, number of deliveries, sequence in the stream,
/// sequence of the consumer (`delivery`), time, and number of pending messages. For an acknowledgement the
/// broker uses only the sequence in the stream. It drops a give-back whose `delivery` lies below the consumer's
/// ack floor, so a give-back names the newest one. Tests show both for the version in use.
fn ack_subject(stream: Stream, consumer: &str, sequence: u64, delivery: u64) -> String {
    format!("$JS.ACK.{}.{consumer}.1.{sequence}.{delivery}.0.0", stream.name())
}

/// Returns the delivery progress of the consumer, once a comparison is due. Cancel safe.
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

/// Decodes a message.
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
    // Not `split`, which removes the reply subject from the message. The acknowledgement needs it.
    let message = message.message;
    let ack_subject = message.reply.clone();
    let ack = Ack {
        client: bus.client.clone(),
        subject: ack_subject
            .ok_or_else(|| BusError::unavailable(stream.name(), "a delivery has no reply subject"))?,
    };
    // The broker answers a read request on any subject that the request names, even one of another stream.
    // Such an answer has this header. Refusing it keeps users who may only read from writing that way.
    let is_copy = message
        .headers
        .as_ref()
        .is_some_and(|h| h.get("Nats-Stream").is_some());
    let body = if is_copy {
        Err(CodecError::Refused(
            "a copy of a stored message, sent by a read request".into(),
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
            waited: Duration::ZERO,
            ack,
        }))),
        Err(error) => Ok(Read::Unreadable(Box::new(Unreadable {
            subject: message.subject.to_string(),
            sequence,
            deliveries,
            body: message.payload,
            error,
            ack,
        }))),
    }
}
