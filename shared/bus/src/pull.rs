//! Pulling work by credit: as many deliveries as there are free places, never more.
//!
//! A consumer that buffers ahead would hold tasks that another prover could start. Here each free place is
//! one credit. A credit is requested once and comes back as a delivery or unused.

use crate::{
    Bus, BusError, Connection, Delivery, Stream,
    consumer_names::GROUP,
    credits::Credits,
    delivery::{self, Read, SettingAside, Unreadable},
    now,
};
use async_nats::{
    StatusCode,
    jetstream::{
        self,
        consumer::{PullConsumer, pull::BatchConfig},
        context::ConsumerInfoErrorKind,
    },
};
use futures::{FutureExt, StreamExt};
use push0_domain::Timestamp;
use serde::de::DeserializeOwned;
use std::{collections::VecDeque, time::Duration};
use tokio::{sync::watch, time::Instant};

/// How long the broker keeps a pull request open. A request may get lost, by a restart of the broker or with
/// the consumer's leader. The loss is noticed only when the request should have expired, so this time bounds
/// how long a place stays free without cause. The time adds to an election, so it is short.
const REQUEST_EXPIRES: Duration = Duration::from_secs(2);
/// How long the broker's report of an expired request may be late.
const REQUEST_GRACE: Duration = Duration::from_millis(500);
/// The last rank of a standby. The broker knows no higher number.
pub const STANDBY_MAX: u8 = 9;
/// Pauses of a message that cannot be decoded: the first one and the longest one.
const UNREAD_FIRST: Duration = Duration::from_millis(200);
const UNREAD_LONGEST: Duration = Duration::from_secs(30);
/// The delivery at which a check that cannot be decoded ends, about two minutes after the first one. Its sender may be
/// hostile, and the block must not wait for ever.
const CHECK_DELIVERIES_MAX: u32 = 11;
/// How long the end of the subscription may take when a puller is closed.
const CLOSE_MAX: Duration = Duration::from_millis(500);

/// A receiver of deliveries from a shared durable consumer, limited to the requested number.
pub struct Puller {
    bus: Bus,
    stream: Stream,
    consumer: PullConsumer,
    inbox: async_nats::Subscriber,
    inbox_name: async_nats::Subject,
    /// Deliveries received on an abandoned inbox.
    early: VecDeque<async_nats::Message>,
    aside: Option<SettingAside>,
    rank: u8,
    credits: Credits,
    asked_until: Instant,
    connection: watch::Receiver<Connection>,
    interruptions: u64,
}

impl Bus {
    /// Binds to a shared durable consumer, which provisioning creates.
    pub async fn puller(&self, stream: Stream, consumer: &str) -> Result<Puller, BusError> {
        let what = format!("consumer {consumer} on {}", stream.name());
        let bound = self.jetstream.get_stream_no_info(stream.name()).await;
        let bound = bound.map_err(|e| BusError::unavailable(stream.name(), e))?;
        if let Err(error) = bound.consumer_info(consumer).await {
            return Err(match error.kind() {
                ConsumerInfoErrorKind::NotFound | ConsumerInfoErrorKind::StreamNotFound => {
                    BusError::Missing { what }
                }
                _ => BusError::unavailable(what, error),
            });
        }
        let consumer: PullConsumer = bound
            .get_consumer(consumer)
            .await
            .map_err(|e| BusError::unavailable(what, e))?;
        let connection = self.connection();
        let interruptions = connection.borrow().interruptions;
        let (inbox_name, inbox) = self.inbox().await?;
        Ok(Puller {
            bus: self.clone(),
            stream,
            consumer,
            inbox,
            inbox_name,
            early: VecDeque::new(),
            aside: None,
            rank: 0,
            credits: Credits::default(),
            asked_until: Instant::now(),
            connection,
            interruptions,
        })
    }

    async fn inbox(&self) -> Result<(async_nats::Subject, async_nats::Subscriber), BusError> {
        let name: async_nats::Subject = self.client.new_inbox().into();
        let inbox = self.client.subscribe(name.clone()).await;
        Ok((name, inbox.map_err(|e| BusError::unavailable("inbox", e))?))
    }
}

impl Puller {
    /// Makes this a standby: it gets work only while no puller of a lower rank has a request open. Without
    /// this call the rank is 0; the last is [`STANDBY_MAX`].
    pub fn standby(mut self, rank: u8) -> Self {
        self.rank = rank.min(STANDBY_MAX);
        self
    }

    /// Returns the next delivery, given `free` places. Waits for ever if no place is free.
    ///
    /// Cancel safe. Undecodable messages are skipped: another version of this program may decode them. They go back, after
    /// a growing pause; a check ends after some deliveries, and the collector has its attempt released again.
    pub async fn next<T: DeserializeOwned>(&mut self, free: usize) -> Result<Delivery<T>, BusError> {
        loop {
            delivery::finish(&mut self.aside).await?;
            self.start_over_if_interrupted().await?;
            self.ask(free).await?;
            let message = if let Some(message) = self.early.pop_front() {
                message
            } else {
                tokio::select! {
                    message = self.inbox.next() => message.ok_or(BusError::Interrupted)?,
                    () = tokio::time::sleep_until(self.asked_until), if self.credits.asked() > 0 => {
                        self.start_over().await?;
                        continue;
                    }
                    () = interrupted_since(&mut self.connection, self.interruptions) => continue,
                }
            };
            match message.status {
                _ if is_work(&message) => {
                    let message = jetstream::Message {
                        message,
                        context: self.bus.jetstream.as_ref().clone(),
                    };
                    match delivery::read(&self.bus, self.stream, message)? {
                        Read::Delivery(mut delivery) => {
                            delivery.waited = self.filled(delivery.stored_at);
                            return Ok(*delivery);
                        }
                        Read::Unreadable(message) => {
                            self.filled(Timestamp::default());
                            self.aside = Some(self.pass_on(*message));
                        }
                    }
                }
                None | Some(StatusCode::IDLE_HEARTBEAT) => {}
                Some(status) => self.refused(status, &message).await?,
            }
        }
    }

    /// Starts over after an interruption, because requests end with their connection. Waits for the
    /// new connection first: a request made before would stay in the client and reach the broker
    /// beside its successors.
    async fn start_over_if_interrupted(&mut self) -> Result<(), BusError> {
        while self.connection.borrow().interruptions != self.interruptions {
            let up = self.connection.wait_for(|c| c.up).await.map(|c| c.interruptions);
            self.interruptions = up.map_err(|_| BusError::Interrupted)?;
            self.start_over().await?;
        }
        Ok(())
    }

    /// Forgets all open requests and moves to a new inbox. A request still open at the broker finds no
    /// subscriber on the old inbox, so no more is delivered than there are free places.
    async fn start_over(&mut self) -> Result<(), BusError> {
        let (name, inbox) = self.bus.inbox().await?;
        let mut old = std::mem::replace(&mut self.inbox, inbox);
        self.inbox_name = name;
        while let Some(Some(message)) = old.next().now_or_never() {
            if is_work(&message) {
                self.early.push_back(message);
            }
        }
        self.credits.lost(self.early.len());
        Ok(())
    }

    /// Stops receiving and returns the deliveries received meanwhile to the broker. Otherwise other provers
    /// would get them only after the ack wait.
    pub async fn close(mut self) {
        if let Err(error) = delivery::finish(&mut self.aside).await {
            tracing::debug!(%error, "an unreadable message is left to its next receiver");
        }
        let rest = async {
            if self.inbox.drain().await.is_ok() {
                while let Some(message) = self.inbox.next().await {
                    self.early.push_back(message);
                }
            }
        };
        let all = tokio::time::timeout(CLOSE_MAX, rest).await;
        let unasked = self.early.drain(..).filter(is_work).filter_map(|m| m.reply);
        for ack_subject in unasked {
            self.bus.ack_of(&ack_subject).give_back(Duration::ZERO).await;
        }
        if all.is_err() {
            tracing::debug!("subscription not closed in time; late deliveries return after the ack wait");
        }
    }

    /// Passes an undecodable message on, and tells the operator.
    fn pass_on(&self, message: Unreadable) -> SettingAside {
        let Unreadable {
            subject,
            deliveries,
            error,
            ack,
            ..
        } = message;
        let is_given_up = self.stream == Stream::Checks && deliveries >= CHECK_DELIVERIES_MAX;
        if is_given_up {
            tracing::error!(subject, %error, "dropping a check that no verifier can read, its attempt is released again");
            return async move {
                ack.done().await;
                Ok(())
            }
            .boxed();
        }
        tracing::error!(
            subject,
            deliveries,
            %error,
            "cannot read a message, which waits for an adapter that can: run one of the version of the other services"
        );
        let pause = unread_pause(deliveries);
        async move {
            ack.give_back(pause).await;
            Ok(())
        }
        .boxed()
    }

    /// Handles a delivery of a message that was stored then. Returns how long the message waited for an open place.
    fn filled(&mut self, stored_at: Timestamp) -> Duration {
        self.credits.filled(now().since(stored_at), Instant::now())
    }

    async fn ask(&mut self, free: usize) -> Result<(), BusError> {
        let batch = self.credits.frees(free, Instant::now());
        if batch == 0 {
            return Ok(());
        }
        let request = BatchConfig {
            batch,
            expires: Some(REQUEST_EXPIRES),
            group: Some(GROUP.to_owned()),
            priority: Some(self.rank.into()),
            ..BatchConfig::default()
        };
        let asked = self
            .consumer
            .request_batch(request, self.inbox_name.clone())
            .await;
        asked.map_err(|e| BusError::unavailable("pull", e))?;
        self.credits.requested(batch);
        self.asked_until = Instant::now() + REQUEST_EXPIRES + REQUEST_GRACE;
        Ok(())
    }

    /// Handles a refused request: an expired one returns its unused credits, any other status
    /// ends all requests.
    async fn refused(&mut self, status: StatusCode, message: &async_nats::Message) -> Result<(), BusError> {
        let unused = message
            .headers
            .as_ref()
            .and_then(|h| h.get("Nats-Pending-Messages"));
        let unused = unused.and_then(|n| n.as_str().parse::<usize>().ok());
        if let (StatusCode::TIMEOUT, Some(unused)) = (status, unused) {
            self.credits.expired(unused);
            return Ok(());
        }
        let reason = message.description.clone().unwrap_or_else(|| status.to_string());
        if reason.to_ascii_lowercase().contains("consumer deleted") || status == StatusCode::NO_RESPONDERS {
            return Err(BusError::unavailable(
                format!("pull from {}", self.stream.name()),
                reason,
            ));
        }
        tracing::debug!(%status, reason, "pull request refused");
        tokio::time::sleep(REQUEST_GRACE / 10).await;
        self.start_over().await
    }
}

/// Returns for how long a message that cannot be decoded stays away: twice as long with each delivery.
fn unread_pause(deliveries: u32) -> Duration {
    let doubled = UNREAD_FIRST.saturating_mul(1 << deliveries.saturating_sub(1).min(16));
    doubled.min(UNREAD_LONGEST)
}

/// Returns whether a message is a delivery, not a status of a request.
fn is_work(message: &async_nats::Message) -> bool {
    matches!(message.status, None | Some(StatusCode::OK))
}

async fn interrupted_since(connection: &mut watch::Receiver<Connection>, seen: u64) {
    // The sender lives in the puller's bus: the channel cannot close.
    let _ = connection.wait_for(|c| c.interruptions != seen).await;
}
