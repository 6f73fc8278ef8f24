//! Appending to a log in order, each message only behind what its writer knows.
//!
//! Each append names the sequence that the newest message of the stream must have. Several messages go
//! as one atomic batch: the broker stores all of them, one right behind the other, or none. So no
//! message is stored behind one that its writer has not seen (docs/adr/0003).
//!
//! Several logs share a stream. When another one has grown, the writer looks whether its own has too;
//! if not, the append is repeated behind the newest message. The same look tells what became of an
//! append whose answer was lost: its messages carry the id of the append.

use crate::{Backoff, Bus, BusError, Message, PublishError, Stored, Stream};
use std::time::Duration;
use tokio::time::Instant;

/// The header that names the append with which a message was stored.
const APPEND: &str = "Push0-Append";
/// The most messages that the broker takes as one batch.
const BATCH_MAX: usize = 1000;

/// The end of a log, as one writer knows it.
#[derive(Clone)]
pub struct Log {
    bus: Bus,
    stream: Stream,
    subjects: String,
    own: u64,
    newest: u64,
}

/// What a refused writer found in its log.
enum Found {
    /// Its own messages: the append was stored, and its answer lost.
    Ours,
    /// Nothing of this log: another log has grown.
    Nothing,
}

impl Log {
    /// The log on `subjects`, whose newest message has the sequence `own`; 0 if it has none.
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

    /// Appends these messages in order. Up to 1,000 of them are stored together or not at all; of more, the
    /// first thousands may be stored when an error ends the rest.
    ///
    /// # Errors
    /// [`PublishError::Unexpected`] if another writer has appended to this log, or if the broker cannot
    /// tell what became of the messages; any other if the broker is away or full for longer than `budget`.
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
        // Drawn once, so that an append whose answer was lost is recognized in the log.
        let id = format!("{:016x}", rand::random::<u64>());
        let messages: Vec<Message> = messages.iter().map(|m| m.clone().header(APPEND, &id)).collect();
        loop {
            // A message that is sent while the broker is away would be stored beside its repetition.
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
                        // The first of them ends the part of the log that was known before.
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

    /// Looks what the log has that its writer has not seen, and goes on behind the newest message of the
    /// stream if there is nothing.
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
