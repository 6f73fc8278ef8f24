//! The place of a message to a prover or verifier.

use push0_bus::{Ack, Stream, consumer_of_checks, consumer_of_tasks};
use push0_domain::{
    message::Role,
    subject::{self, AttemptKey, Kind},
};

/// The newest message of an attempt, and the acknowledgement of its delivery.
pub(super) struct Place {
    pub(super) stream: Stream,
    pub(super) subject: String,
    pub(super) sequence: u64,
    pub(super) ack: Ack,
}

/// Returns the stream of the messages to a role, the consumer of a zkVM's processes, and the filter for an attempt.
pub(super) fn place_of(role: Role, key: &AttemptKey) -> (Stream, String, String) {
    match role {
        Role::Prover => (Stream::Tasks, consumer_of_tasks(&key.zkvm), subject::task(key)),
        Role::Verifier => (
            Stream::Checks,
            consumer_of_checks(&key.zkvm),
            subject::reports_of_attempt(Kind::Check, key),
        ),
    }
}
