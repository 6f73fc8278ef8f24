//! Work that is wanted takes the place of work that nobody waits for.
//!
//! An attempt's subject holds one message, so that what is asked for twice is stored once. When a
//! block is given up or replaced, work for it may stay there: it is stopped or ignored. It would keep
//! out the same attempt of a retry, or of the same block when the chain comes back to it.

use crate::{Bus, Message, PublishError, Stored, Stream, inspect::decoded};
use async_nats::jetstream::{message::StreamMessage, stream::LastRawMessageErrorKind};
use push0_domain::wanted::{Claim, Claims};
use serde::de::DeserializeOwned;

/// Which messages a message takes the place of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Over {
    stream: Stream,
    claim: Claim,
    yields: fn(&StreamMessage, Claim) -> bool,
}

impl Message {
    /// Lets it take the place of an older claim to the same attempt, in a stream of `T`s whose subjects
    /// hold one message.
    #[must_use]
    pub fn claiming<T: Claims + DeserializeOwned>(mut self, stream: Stream, claim: Claim) -> Self {
        let yields = |there: &StreamMessage, claim| {
            let there = decoded::<T>(there).body;
            there.is_ok_and(|there| there.claim() < claim)
        };
        self.over = Some(Over {
            stream,
            claim,
            yields,
        });
        self
    }
}

impl Bus {
    /// Stores a message, also where an older claim lies.
    pub(crate) async fn publish_over(&self, message: Message) -> Result<Stored, PublishError> {
        let Some(over) = message.over else {
            return self.publish(message).await;
        };
        match self.publish(message.clone()).await {
            Err(PublishError::Occupied { subject }) => {
                if !self.make_way(over, &subject).await? {
                    return Err(PublishError::Occupied { subject });
                }
                match self.publish(message).await {
                    // Somebody was faster: it is to be looked at again.
                    Err(PublishError::Occupied { subject }) => Err(PublishError::Unavailable {
                        subject,
                        reason: "taken again by another message".into(),
                    }),
                    stored => stored,
                }
            }
            stored => stored,
        }
    }

    /// Removes what lies at a subject, if it is an older claim. Returns whether nothing lies there now.
    async fn make_way(&self, over: Over, subject: &str) -> Result<bool, PublishError> {
        let away = |reason: String| PublishError::Unavailable {
            subject: subject.to_owned(),
            reason,
        };
        let bound = self.stream(over.stream).await.map_err(|e| away(e.to_string()))?;
        // Asked of the stream's leader: a replica may not have the newest yet.
        let there = match bound.get_last_raw_message_by_subject(subject).await {
            Ok(there) => there,
            // Somebody has done it: it was asked for, as this message does.
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(false),
            Err(error) => return Err(away(error.to_string())),
        };
        if !(over.yields)(&there, over.claim) {
            return Ok(false);
        }
        tracing::info!(subject, "an older claim makes way");
        let purge = bound.purge().filter(subject).sequence(there.sequence + 1);
        purge.await.map(|_| true).map_err(|error| away(error.to_string()))
    }
}
