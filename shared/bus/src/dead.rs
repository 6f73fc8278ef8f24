//! Dead letters: what could not be read or was given up, kept until an operator decides.

use crate::{Bus, BusError, Message, PublishError, Stream};
use push0_domain::{
    PipelineId, Timestamp,
    codec::CodecError,
    message::{Dead, DeadLetter, Happening},
    subject,
    trace::TraceContext,
};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How much of an unreadable message is kept, in bytes: enough to see what it was.
const BODY_KEPT_MAX: usize = 16 * 1024;
/// How long a dead letter waits for the broker before its receiver starts over.
const PATIENCE: Duration = Duration::from_secs(30);

/// The writer of dead letters.
#[derive(Clone)]
pub struct DeadLetters {
    bus: Bus,
}

impl DeadLetters {
    /// A writer on this bus.
    pub fn new(bus: Bus) -> Self {
        Self { bus }
    }

    /// Stores a letter about a message that could not be read. Returns its id.
    pub async fn unreadable(
        &self,
        stream: Stream,
        subject: &str,
        sequence: u64,
        body: &[u8],
        error: &CodecError,
    ) -> Result<String, BusError> {
        tracing::warn!(stream = stream.name(), subject, sequence, %error, "unreadable message set aside as a dead letter");
        let letter = DeadLetter {
            id: format!("{}-{sequence}", stream.name().to_ascii_lowercase()),
            reason: error.to_string(),
            at: now(),
            what: Dead::Message {
                stream: stream.name().into(),
                subject: subject.into(),
                sequence,
                body: body.iter().copied().take(BODY_KEPT_MAX).collect(),
            },
        };
        self.store(None, &letter, &TraceContext::default()).await?;
        Ok(letter.id)
    }

    /// Stores a letter about a message that can be read but not acted on. Returns its id.
    pub async fn refused(
        &self,
        stream: Stream,
        subject: &str,
        sequence: u64,
        reason: &str,
    ) -> Result<String, BusError> {
        let malformed = CodecError::Refused(reason.into());
        self.unreadable(stream, subject, sequence, &[], &malformed).await
    }

    /// Stores a letter; the same letter twice is stored once.
    pub async fn store(
        &self,
        pipeline: Option<&PipelineId>,
        letter: &DeadLetter,
        trace: &TraceContext,
    ) -> Result<(), BusError> {
        let subject = subject::dead(pipeline, &letter.id);
        let message = Message::new(subject.clone(), letter, trace).map_err(|source| BusError::Corrupt {
            what: subject,
            source,
        })?;
        match self.bus.publish_patiently(message, PATIENCE).await {
            Ok(_) => {
                let (id, reason) = (letter.id.clone(), letter.reason.clone());
                self.bus.announce(pipeline, Happening::DeadLetter { id, reason });
                Ok(())
            }
            Err(PublishError::Occupied { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// The time, for what is about to be written. Decisions get it as an argument.
pub fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(push0_domain::time::micros(since))
}
