//! Why an operation did not succeed.

use push0_bus::{BusError, PublishError};
use push0_domain::codec::CodecError;

/// Why an operation did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    /// The broker was unreachable or refused a request.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// A message was not stored.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// A message cannot be encoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// There is no dead letter of this id.
    #[error("there is no dead letter `{0}`, or a retry deleted it: see `push0 dead list`")]
    NoLetter(String),
    /// No dead letter is selected.
    #[error("there are no such dead letters: see `push0 dead list`")]
    NoLetters,
}
