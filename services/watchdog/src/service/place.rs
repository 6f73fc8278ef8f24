//! The place of a message to a prover or verifier: its stream, its consumer and its subject.

use push0_bus::{Stream, consumer_of_checks, consumer_of_tasks};
use push0_domain::{
    message::Role,
    subject::{self, AttemptKey, Kind},
};

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
