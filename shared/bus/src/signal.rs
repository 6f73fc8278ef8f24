//! Signals: messages received by a plain subscription as they are published, without a consumer and without
//! a delivery guarantee.
//!
//! Every message published to a stream also reaches plain subscribers at once, so a signal is a fast hint at
//! no cost. Anything that must not be missed is derived from stored state as well.
//!
//! A participant may publish faster than a listener reads. So a listener's queue is bounded in number and in bytes,
//! a participant may take up half of it, and all participants three quarters. A message beyond that, or larger than its
//! stream takes, is dropped before anything decodes it, as if the network had lost it. The drop of a service's message
//! counts as an interruption of the connection, after which listeners start over from stored state. Each listener also
//! looks again by itself:
//!
//! | listener | looks again |
//! |---|---|
//! | dispatcher | compares its releases with TASKS, and the outputs with PROOFS, every few ticks |
//! | watchdog | compares the leases with TASKS and CHECKS, and the outputs with PROOFS, every second. Leases come four times a second, and three lost ones make a prover suspected, which costs a second copy |
//! | gateway | reads outputs, holds and levels every two seconds |
//! | provers and verifiers | the watchdog repeats each order until it is obeyed |
//! | readers of facts | read the bucket every five seconds |
//! | processes of one name, replicas that sign in | ask again |

mod queue;

use crate::{
    Bus, BusError,
    decode::{decode, trace_of},
};
use async_nats::header::NATS_STREAM;
use futures::{StreamExt, stream::SelectAll};
use push0_domain::{
    codec::{BODY_MAX, CodecError},
    subject::Kind,
    trace::TraceContext,
};
pub use queue::Unread;
use queue::{Full, Queue};
use serde::de::DeserializeOwned;
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::Notify,
    task::{JoinSet, unconstrained},
};

/// How often a listener says at most that signals are dropped.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// A subscription to one or more subjects.
pub struct Signals {
    waiting: Arc<Waiting>,
    /// The task that takes messages from the connection. Ends, and the subscriptions with it, when this is dropped.
    _taking: JoinSet<()>,
}

/// The messages that came and were not read yet.
struct Waiting {
    queue: Mutex<(Queue<async_nats::Message>, IsOver)>,
    came: Notify,
    dropped: AtomicU64,
}

/// Whether no more messages will come.
type IsOver = bool;

/// A message received by a subscription.
pub struct Signal(async_nats::Message);

impl Bus {
    /// Subscribes to subjects, wildcards allowed.
    pub async fn listen(&self, subjects: impl IntoIterator<Item = String>) -> Result<Signals, BusError> {
        self.listen_within(subjects, Unread::default()).await
    }

    /// Subscribes to subjects, wildcards allowed, for a listener with room for so much.
    pub async fn listen_within(
        &self,
        subjects: impl IntoIterator<Item = String>,
        unread: Unread,
    ) -> Result<Signals, BusError> {
        let mut passing = SelectAll::new();
        for subject in subjects {
            let subscription = self.client.subscribe(subject.clone()).await;
            passing.push(subscription.map_err(|e| BusError::unavailable(subject, e))?);
        }
        let waiting = Arc::new(Waiting {
            queue: Mutex::new((Queue::new(unread), false)),
            came: Notify::new(),
            dropped: AtomicU64::new(0),
        });
        let mut taking = JoinSet::new();
        // Without a budget the task takes a burst at once, and little waits in front of the limits. The connection
        // shares its thread and brings nothing meanwhile.
        taking.spawn(unconstrained(take(self.clone(), passing, waiting.clone())));
        Ok(Signals {
            waiting,
            _taking: taking,
        })
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

impl Bus {
    /// Answers a request that came as a signal. Does nothing if the message asks for no answer.
    pub async fn answer(&self, request: &Signal, answer: String) -> Result<(), BusError> {
        let Some(to) = request.0.reply.clone() else {
            return Ok(());
        };
        let sent = self.client.publish(to, answer.into()).await;
        sent.map_err(|e| BusError::unavailable("answer", e))
    }
}

/// Takes messages from the connection as they come. Skips copies of stored messages: the broker sends one to any subject
/// that a request for it names, without a check of rights to publish there.
async fn take(bus: Bus, mut passing: SelectAll<async_nats::Subscriber>, waiting: Arc<Waiting>) {
    let mut said_at: Option<Instant> = None;
    while let Some(message) = passing.next().await {
        let headers = message.headers.as_ref();
        if headers.is_some_and(|headers| headers.get(NATS_STREAM).is_some()) {
            continue;
        }
        let (subject, bytes) = (message.subject.clone(), message.length);
        let Err(why) = waiting.push(message) else {
            continue;
        };
        let dropped = waiting.dropped.fetch_add(1, Ordering::Relaxed) + 1;
        if why == Dropped::All {
            bus.interrupt();
        }
        if said_at.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            said_at = Some(Instant::now());
            tracing::warn!(
                subject = subject.as_str(),
                bytes,
                dropped,
                reason = why.as_str(),
                "dropped a message that was heard; what it tells is read from the streams later. If it goes on, ban its \
                 sender: docs/runbooks/participant-flooding.md"
            );
        }
    }
    waiting.queue().1 = true;
    waiting.came.notify_one();
}

/// Why a message is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dropped {
    Size,
    Share,
    Participants,
    All,
}

impl Dropped {
    fn as_str(self) -> &'static str {
        match self {
            Self::Size => "it is larger than its stream takes",
            Self::Share => "too many messages of its sender wait",
            Self::Participants => "too many messages of provers and verifiers wait",
            Self::All => "too many messages wait",
        }
    }
}

/// Returns the size of the largest body on a subject: the limit of its stream.
fn body_max(kind: Option<Kind>) -> usize {
    match kind {
        Some(Kind::Check | Kind::Result | Kind::Verdict | Kind::Ended) => 256 << 10,
        Some(Kind::Event | Kind::Notice) => 32 << 10,
        _ => BODY_MAX,
    }
}

/// Returns a number that tells participants apart; `None` for services' messages. The permissions of a participant fix
/// the two tokens after the kind.
fn sender_of(kind: Option<Kind>, subject: &str) -> Option<u64> {
    let (Kind::Lease | Kind::Check | Kind::Result | Kind::Verdict | Kind::Notice) = kind? else {
        return None;
    };
    let mut hasher = DefaultHasher::new();
    let tokens = subject.split('.').skip(3).take(2);
    tokens.for_each(|token| token.hash(&mut hasher));
    Some(hasher.finish())
}

impl Waiting {
    fn queue(&self) -> MutexGuard<'_, (Queue<async_nats::Message>, IsOver)> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a message, unless it is too large or too much waits.
    fn push(&self, message: async_nats::Message) -> Result<(), Dropped> {
        let kind = Kind::of(&message.subject);
        if message.payload.len() > body_max(kind) {
            return Err(Dropped::Size);
        }
        let (sender, bytes) = (sender_of(kind, &message.subject), message.length);
        let pushed = self.queue().0.push(message, sender, bytes);
        pushed.map_err(|full| match full {
            Full::Share => Dropped::Share,
            Full::Participants => Dropped::Participants,
            Full::All => Dropped::All,
        })?;
        self.came.notify_one();
        Ok(())
    }
}

impl Signals {
    /// Returns the next message. Cancel safe.
    pub async fn next(&mut self) -> Result<Signal, BusError> {
        loop {
            {
                let mut queue = self.waiting.queue();
                if let Some(message) = queue.0.pop() {
                    return Ok(Signal(message));
                }
                if queue.1 {
                    return Err(BusError::Interrupted);
                }
            }
            self.waiting.came.notified().await;
        }
    }

    /// Returns how many messages were dropped so far, because they were too large or too many waited.
    pub fn dropped(&self) -> u64 {
        self.waiting.dropped.load(Ordering::Relaxed)
    }
}

impl Signal {
    /// Returns the message's subject.
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// Returns the message's body as it came.
    pub fn bytes(&self) -> &[u8] {
        &self.0.payload
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
