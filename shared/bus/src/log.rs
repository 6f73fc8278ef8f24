//! Appending to a log in order, never behind a message unknown to the writer.
//!
//! Each append names the expected sequence of the stream's newest message. Several messages go as one atomic
//! batch: the broker stores all of them, one right behind the other, or none. So no message is stored behind
//! one its writer has not seen (docs/adr/0003).
//!
//! Several logs share a stream. When the stream has grown, the writer reads whether its own log has grown
//! too. If not, another log has, and the append is repeated behind the newest message. The same read resolves
//! an append whose answer was lost: the messages carry the id of their append.

use crate::{Backoff, Bus, BusError, Message, PublishError, Stored, Stream};
use std::time::Duration;
use tokio::time::Instant;

/// The header with the id of the append that stored a message.
const APPEND: &str = "Push0-Append";
/// The most messages the broker accepts in a batch.
const BATCH_MAX: usize = 1000;

/// The end of a log, as known to one writer.
#[derive(Clone)]
pub struct Log {
    bus: Bus,
    stream: Stream,
    subjects: String,
    own: u64,
    newest: u64,
}

/// The messages found in the log after a refused append.
enum Found {
    /// The writer's own messages: the append was stored and its answer was lost.
    Ours,
    /// No new message of this log: another log has grown.
    Nothing,
}

impl Log {
    /// Creates the log on `subjects`. `own` is the sequence of its newest message, 0 if there is none.
    pub fn new(bus: Bus, stream: Stream, subjects: String, own: u64) -> Self {
        let newest = own;
        Self {
            bus,
            stream,
            subjects,
            own,
            newest,
        }
    }

    /// Appends messages in order. Up to 1,000 messages are stored together or not at all. Of a longer list,
    /// the first thousands may be stored although the rest fails.
    ///
    /// Fails with [`PublishError::Unexpected`] if another writer has appended to this log, or if the broker
    /// cannot tell whether the messages were stored, and with any other error if the broker is away or full
    /// for longer than `budget`.
    pub async fn append(&mut self, messages: &[Message], budget: Duration) -> Result<(), PublishError> {
        let give_up_at = Instant::now() + budget;
        for batch in messages.chunks(BATCH_MAX) {
            self.append_batch(batch, give_up_at).await?;
        }
        Ok(())
    }

    async fn append_batch(&mut self, messages: &[Message], give_up_at: Instant) -> Result<(), PublishError> {
        let Some(first) = messages.first() else {
            return Ok(());
        };
        let (mut backoff, mut said) = (Backoff::default(), false);
        // The id is drawn once, so an append whose answer was lost is recognized in the log.
        let id = format!("{:016x}", rand::random::<u64>());
        let messages: Vec<Message> = messages.iter().map(|m| m.clone().header(APPEND, &id)).collect();
        loop {
            // Waits for the connection: a message sent while the broker is away would be stored
            // beside its retry.
            let _ = tokio::time::timeout_at(give_up_at, self.bus.connected()).await;
            let refused = match self.try_append(&messages).await {
                Ok(stored) => {
                    self.ends_at(stored.sequence);
                    return Ok(());
                }
                Err(error) => error,
            };
            let in_time = Instant::now() < give_up_at;
            match refused {
                PublishError::Unexpected { .. } if in_time => match self.look(first.subject(), &id).await? {
                    Found::Ours => {
                        // `own` is now the first message of the batch, so only the other messages are added.
                        let others = messages.len() as u64 - 1;
                        self.ends_at(self.own + others);
                        return Ok(());
                    }
                    Found::Nothing => {}
                },
                error if error.is_transient() && in_time => {
                    if !said {
                        tracing::warn!(%error, "records are not stored yet, trying again");
                        said = true;
                    }
                    backoff.pause().await;
                }
                error => return Err(error),
            }
        }
    }

    async fn try_append(&self, messages: &[Message]) -> Result<Stored, PublishError> {
        let subject = messages
            .first()
            .map(Message::subject)
            .unwrap_or_default()
            .to_owned();
        tokio::select! {
            biased;
            () = self.bus.interrupted() => Err(PublishError::Unavailable {
                subject,
                reason: "the connection was interrupted".into(),
            }),
            stored = self.bus.publish_all(messages, self.newest) => stored,
        }
    }

    fn ends_at(&mut self, sequence: u64) {
        (self.own, self.newest) = (sequence, sequence);
    }

    /// Looks for messages of this log unknown to the writer. If there are none, the next append goes behind
    /// the newest message of the stream.
    async fn look(&mut self, subject: &str, id: &str) -> Result<Found, PublishError> {
        let unavailable = |error: BusError| PublishError::Unavailable {
            subject: subject.to_owned(),
            reason: error.to_string(),
        };
        let newest = self.bus.newest(self.stream).await.map_err(unavailable)?;
        let unseen = self.bus.next_raw(self.stream, &self.subjects, self.own + 1);
        let Some(unseen) = unseen.await.map_err(unavailable)? else {
            self.newest = newest;
            return Ok(Found::Nothing);
        };
        if unseen
            .headers
            .get(APPEND)
            .is_some_and(|append| append.as_str() == id)
        {
            self.own = unseen.sequence;
            return Ok(Found::Ours);
        }
        let subject = subject.to_owned();
        Err(PublishError::Unexpected { subject })
    }
}
