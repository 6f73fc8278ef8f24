//! Errors of the blob store.

use crate::BusError;
use push0_domain::{BlobRef, codec::CodecError, payload::PAYLOAD_MAX};

/// The reason why a blob was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The store does not have the blob: it made room after its blocks were emitted, or was never stored.
    #[error("blob {0:?} is not in the store")]
    Missing(BlobRef),
    /// The blob's writer has stored other bytes under its name.
    #[error("blob {0:?} is corrupt: its bytes have another hash or length")]
    Corrupt(BlobRef),
    /// The payload is larger than [`PAYLOAD_MAX`].
    #[error("payload of {0} bytes: expected at most {PAYLOAD_MAX}")]
    TooLarge(u64),
    /// A message refers to an entry beyond the end of its chunk, or to a chunk that is no list.
    #[error("entry {entry} is not in chunk {chunk:?}: {reason}")]
    Entry {
        /// The blob of the chunk.
        chunk: BlobRef,
        /// The entry's position in the chunk, from 0.
        entry: u32,
        /// A description of the defect.
        reason: String,
    },
    /// The store did not answer, or refused for the moment.
    #[error("blob store: {0}")]
    Unavailable(String),
    /// The store is full.
    #[error("blob store: {0}")]
    Full(String),
    /// A list could not be encoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl BlobError {
    /// Returns whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Full(_))
    }
}

impl From<BlobError> for BusError {
    fn from(error: BlobError) -> Self {
        Self::unavailable("blob store", error)
    }
}
