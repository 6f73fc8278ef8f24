//! Limits of a node's answer, and the reasons why there is none.

use std::time::Duration;

/// Time limit for an answer, up to its last byte.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer, in bytes. A full block with as much calldata as the gas limit pays for is well
/// below this limit.
pub(super) const ANSWER_MAX: usize = 32 * 1024 * 1024;

/// Reasons why a request got no usable answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    #[error("no answer: {0}")]
    Unreachable(String),
    #[error("no answer within {TIMEOUT:?}")]
    Timeout,
    #[error("answered with HTTP status {0}")]
    Status(u16),
    #[error("an answer of more than {0} bytes")]
    TooLarge(usize),
}
