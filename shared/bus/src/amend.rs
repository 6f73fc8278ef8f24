//! Work of a retry takes the place of work that was left over.
//!
//! An attempt's subject holds one message, so that what is asked for twice is stored once. When a
//! block was given up, work for it may lie there that nobody waits for any more. It is stopped or
//! ignored, and would keep out the same attempt of a retry, which somebody does wait for.

use crate::{Bus, Message, PublishError, Stored, Stream};
use async_nats::jetstream::stream::LastRawMessageErrorKind;

/// The header that marks the work of a retry.
const AMENDS: &str = "Push0-Amends";

impl Message {
    /// Marks it as the work of a retry, if it is, for a stream whose subjects hold one message.
    #[must_use]
    pub fn amending(mut self, amends: bool, stream: Stream) -> Self {
        if amends {
            self.headers.insert(AMENDS, "true");
            self.amends = Some(stream);
        }
        self
    }
}

impl Bus {
    /// Stores a message; that of a retry also where one lies that is of none.
    pub(crate) async fn publish_over(&self, message: Message) -> Result<Stored, PublishError> {
        let Some(stream) = message.amends else {
            return self.publish(message).await;
        };
        match self.publish(message.clone()).await {
            Err(PublishError::Occupied { subject }) => {
                self.make_way(stream, subject).await?;
                self.publish(message).await
            }
            stored => stored,
        }
    }

    /// Removes what lies at a subject, unless it is the work of a retry itself.
    async fn make_way(&self, stream: Stream, subject: String) -> Result<(), PublishError> {
        let away = |reason: String| PublishError::Unavailable {
            subject: subject.clone(),
            reason,
        };
        let bound = self.stream(stream).await.map_err(|e| away(e.to_string()))?;
        // Asked of the stream's leader: a replica may not have the newest yet.
        let there = match bound.get_last_raw_message_by_subject(&subject).await {
            Ok(there) => there,
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(()),
            Err(error) => return Err(away(error.to_string())),
        };
        if there.headers.get(AMENDS).is_some() {
            return Ok(());
        }
        tracing::info!(subject, "what was left over makes way for a retry");
        let purge = bound.purge().filter(&subject).sequence(there.sequence + 1);
        purge.await.map(|_| ()).map_err(|error| away(error.to_string()))
    }
}
