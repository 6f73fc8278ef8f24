//! The rule by which a message may replace the one that its subject holds.

use crate::Stream;
use async_nats::jetstream::message::StreamMessage;
use push0_domain::wanted::Claim;

/// A rule for the stored messages that a new message may replace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Over {
    pub(crate) stream: Stream,
    pub(crate) claim: Claim,
    pub(crate) yields: fn(&StreamMessage, Claim) -> bool,
}
