//! Replacing a stored task with a newer one for the same attempt.
//!
//! An attempt's subject holds one message, so a task published twice is stored once. When a block is given up
//! or replaced, a task for it may stay on the subject, to be stopped or ignored. Left there, the old task
//! would keep out the same attempt of a retry, or of the same block when the chain returns to it.

use crate::{Bus, Message, PublishError, Stored, Stream, inspect::decoded, replacement::Over};
use async_nats::jetstream::{message::StreamMessage, stream::LastRawMessageErrorKind};
use push0_domain::wanted::{Claim, Claims};
use serde::de::DeserializeOwned;

impl Message {
    /// Lets the message replace an older claim to the same attempt. `stream` holds messages of type `T`,
    /// one per subject.
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
    /// Stores a message, replacing an older claim on its subject if the message has a claim.
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
                    // Another message was stored between the purge and this publish. The caller retries
                    // and compares again.
                    Err(PublishError::Occupied { subject }) => Err(PublishError::Unavailable {
                        subject,
                        reason: "another message took its place".into(),
                    }),
                    stored => stored,
                }
            }
            stored => stored,
        }
    }

    /// Purges the message on a subject if its claim is older. Returns whether the subject is free now.
    async fn make_way(&self, over: Over, subject: &str) -> Result<bool, PublishError> {
        let away = |reason: String| PublishError::Unavailable {
            subject: subject.to_owned(),
            reason,
        };
        let bound = self.stream(over.stream).await.map_err(|e| away(e.to_string()))?;
        // Asks the stream's leader: a replica may not have the newest message yet.
        let there = match bound.get_last_raw_message_by_subject(subject).await {
            Ok(there) => there,
            // The stored message was consumed or purged in the meantime. If it was consumed, this message asks
            // for the same attempt again, which costs a second run at most; if it was purged, nothing else asks.
            Err(error) if error.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(true),
            Err(error) => return Err(away(error.to_string())),
        };
        if !(over.yields)(&there, over.claim) {
            return Ok(false);
        }
        tracing::info!(subject, "replacing an older message for the same attempt");
        let purged = self.purge_up_to(over.stream, subject, there.sequence).await;
        purged.map(|()| true).map_err(|error| away(error.to_string()))
    }
}
