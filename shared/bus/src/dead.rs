//! Dead letters: unreadable messages and work that was given up, kept until an operator decides.

use crate::{Bus, BusError, Message, PublishError, Stream, now};
use push0_domain::{
    PipelineId,
    codec::CodecError,
    message::{Dead, DeadLetter, Happening},
    subject,
    trace::TraceContext,
};
use std::time::Duration;

/// The most bytes of an unreadable message that its dead letter keeps: enough to recognize the message.
const BODY_KEPT_MAX: usize = 16 * 1024;
/// How long storing a dead letter may take before the receiver of the message starts over.
const PATIENCE: Duration = Duration::from_secs(30);

/// The header with the expected sequence of the subject's newest message, 0 for none.
const EXPECTED_NEWEST_OF_SUBJECT: &str = "Nats-Expected-Last-Subject-Sequence";

/// Writer of dead letters.
#[derive(Clone)]
pub struct DeadLetters {
    bus: Bus,
}

impl DeadLetters {
    /// Creates a writer on a bus.
    pub fn new(bus: Bus) -> Self {
        Self { bus }
    }

    /// Stores a dead letter about an undecodable message. Returns the letter's id.
    pub async fn unreadable(
        &self,
        stream: Stream,
        subject: &str,
        sequence: u64,
        body: &[u8],
        error: &CodecError,
    ) -> Result<String, BusError> {
        tracing::warn!(stream = stream.name(), subject, sequence, %error, "storing an unreadable message as a dead letter");
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

    /// Stores a dead letter about a message that was decoded but cannot be acted on. Returns the letter's id.
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

    /// Stores a dead letter and announces it as an event. Storing the same letter again has no effect.
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
        // DEAD would replace a letter that is there, and tell of it again.
        let message = message.header(EXPECTED_NEWEST_OF_SUBJECT, "0");
        match self.bus.publish_patiently(message, PATIENCE).await {
            Ok(_) => {
                let (id, reason) = (letter.id.clone(), letter.reason.clone());
                self.bus.announce(pipeline, Happening::DeadLetter { id, reason });
                Ok(())
            }
            Err(PublishError::Occupied { .. } | PublishError::Unexpected { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
