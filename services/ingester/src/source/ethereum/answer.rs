//! The reasons why a request got no usable answer, and the limits that a source sets.

use bytes::Bytes;
use std::time::Duration;

/// Limits of a node's answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct AnswerLimits {
    /// Time for an answer, up to its last byte, before any timeout.
    pub(super) timeout: Duration,
    /// Largest answer, in bytes.
    pub(super) bytes: usize,
}

/// Reasons why a request got no usable answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("no answer: {0}")]
    Unreachable(String),
    #[error("no answer within {0:?}: the limit begins with source.timeout and grows after timeouts")]
    Timeout(Duration),
    #[error("answered with HTTP status {0}")]
    Status(u16, Bytes),
    #[error("answered with HTTP status {0}: redirects are not followed, source.rpc_url must name their end")]
    Redirect(u16),
    #[error("an answer of more than {} MiB, the limit source.answer_max_mib", .0 / (1024 * 1024))]
    TooLarge(usize),
}
