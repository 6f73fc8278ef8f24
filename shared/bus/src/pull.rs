//! Taking work by credit: as many deliveries as there are free places, never more.
//!
//! A consumer that buffers ahead would hold tasks that another prover could start. Here each free
//! place is one credit: it is asked for once, and comes back as a delivery or unused.

use crate::{
    Bus, BusError, Connection, Delivery, Stream,
    delivery::{self, Read, SettingAside},
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
use serde::de::DeserializeOwned;
use std::{collections::VecDeque, time::Duration};
use tokio::{sync::watch, time::Instant};

/// How long the broker keeps a request open. Requests that were lost on the way (a restart of the
/// broker, a copy that led the consumer and is away) are missed after it, so it bounds how long a free
/// place can stay empty without cause. It comes on top of an election, so that it has to be short.
const REQUEST_EXPIRES: Duration = Duration::from_secs(2);
/// What the broker's word on an expired request may take on top.
const REQUEST_GRACE: Duration = Duration::from_millis(500);
/// The one group of each consumer: the broker ranks requests only within a group.
pub(crate) const GROUP: &str = "work";
/// The last rank that a standby can have: the broker knows no more.
pub const STANDBY_MAX: u8 = 9;
/// How long the broker's word may take that nothing more comes.
const CLOSE_MAX: Duration = Duration::from_millis(500);

/// Deliveries from a shared durable consumer, as many as were asked for.
pub struct Puller {
    bus: Bus,
    stream: Stream,
    consumer: PullConsumer,
    inbox: async_nats::Subscriber,
    inbox_name: async_nats::Subject,
    /// What came on an inbox that was given up.
    early: VecDeque<async_nats::Message>,
    aside: Option<SettingAside>,
    rank: u8,
    asked: usize,
    asked_until: Instant,
    connection: watch::Receiver<Connection>,
    interruptions: u64,
}

impl Bus {
    /// Binds to a shared durable consumer; provisioning makes it.
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
            asked: 0,
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
    /// Takes work only while nobody of a lower rank asks for it. Without this the rank is 0, the
    /// highest is [`STANDBY_MAX`].
    pub fn standby(mut self, rank: u8) -> Self {
        self.rank = rank.min(STANDBY_MAX);
        self
    }

    /// The next delivery, given that `free` places are free now. Waits for ever if none is.
    ///
    /// Cancel safe. One that cannot be read goes to the dead letters and is passed over.
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
                    () = tokio::time::sleep_until(self.asked_until), if self.asked > 0 => {
                        self.start_over().await?;
                        continue;
                    }
                    () = interrupted_since(&mut self.connection, self.interruptions) => continue,
                }
            };
            match message.status {
                _ if is_work(&message) => {
                    self.asked = self.asked.saturating_sub(1);
                    let message = jetstream::Message {
                        message,
                        context: self.bus.jetstream.as_ref().clone(),
                    };
                    match delivery::read(&self.bus, self.stream, message)? {
                        Read::Delivery(delivery) => return Ok(*delivery),
                        Read::Unreadable(aside) => self.aside = Some(aside),
                    }
                }
                None | Some(StatusCode::IDLE_HEARTBEAT) => {}
                Some(status) => self.refused(status, &message).await?,
            }
        }
    }

    /// Requests do not outlive the connection that they were made on; and one that is made while it
    /// is down would wait in the client and reach the broker beside its successors.
    async fn start_over_if_interrupted(&mut self) -> Result<(), BusError> {
        while self.connection.borrow().interruptions != self.interruptions {
            let up = self.connection.wait_for(|c| c.up).await.map(|c| c.interruptions);
            self.interruptions = up.map_err(|_| BusError::Interrupted)?;
            self.start_over().await?;
        }
        Ok(())
    }

    /// Forgets what was asked for. On a new inbox: an old request that the broker still knows finds
    /// nobody there, and cannot bring more than there are free places.
    async fn start_over(&mut self) -> Result<(), BusError> {
        let (name, inbox) = self.bus.inbox().await?;
        let mut old = std::mem::replace(&mut self.inbox, inbox);
        self.inbox_name = name;
        self.asked = self.early.len();
        while let Some(Some(message)) = old.next().now_or_never() {
            if is_work(&message) {
                self.asked += 1;
                self.early.push_back(message);
            }
        }
        Ok(())
    }

    /// Takes no more, and gives back what came meanwhile: else it would go to others only after the
    /// ack wait.
    pub async fn close(mut self) {
        if let Err(error) = delivery::finish(&mut self.aside).await {
            tracing::debug!(%error, "an unreadable message is left to the next one who takes it");
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
            tracing::debug!("the broker did not say that nothing more comes");
        }
    }

    async fn ask(&mut self, free: usize) -> Result<(), BusError> {
        let Some(batch) = free.checked_sub(self.asked).filter(|more| *more > 0) else {
            return Ok(());
        };
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
        self.asked += batch;
        self.asked_until = Instant::now() + REQUEST_EXPIRES + REQUEST_GRACE;
        Ok(())
    }

    /// An expired request gives its unused credits back; any other refusal ends all of them.
    async fn refused(&mut self, status: StatusCode, message: &async_nats::Message) -> Result<(), BusError> {
        let unused = message
            .headers
            .as_ref()
            .and_then(|h| h.get("Nats-Pending-Messages"));
        let unused = unused.and_then(|n| n.as_str().parse::<usize>().ok());
        if let (StatusCode::TIMEOUT, Some(unused)) = (status, unused) {
            self.asked = self.asked.saturating_sub(unused);
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

/// Whether it is a delivery, and not the broker's word on a request.
fn is_work(message: &async_nats::Message) -> bool {
    matches!(message.status, None | Some(StatusCode::OK))
}

async fn interrupted_since(connection: &mut watch::Receiver<Connection>, seen: u64) {
    // The sender lives in the bus that the puller holds: the channel cannot close.
    let _ = connection.wait_for(|c| c.interruptions != seen).await;
}
