//! Reading of a payload part by part, for payloads that a process cannot hold as a whole.

use super::{
    error::BlobError,
    part::{Hasher, part},
};
use async_nats::jetstream::stream;
use bytes::Bytes;
use push0_domain::BlobRef;

/// The bytes of a payload, of which one part is in memory at a time.
pub struct PayloadParts {
    len: u64,
    source: Source,
}

enum Source {
    Inline(Option<Bytes>),
    Stored(Box<Stored>),
}

struct Stored {
    stream: stream::Stream<()>,
    blob: BlobRef,
    next: u64,
    hasher: Hasher,
}

impl PayloadParts {
    pub(super) fn stored(stream: stream::Stream<()>, blob: BlobRef) -> Self {
        Self {
            len: blob.len,
            source: Source::Stored(Box::new(Stored {
                stream,
                blob,
                next: 0,
                hasher: Hasher::default(),
            })),
        }
    }

    pub(super) fn inline(bytes: Vec<u8>) -> Self {
        Self {
            len: bytes.len() as u64,
            source: Source::Inline(Some(bytes.into()).filter(|bytes: &Bytes| !bytes.is_empty())),
        }
    }

    /// Returns the number of bytes in all parts.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Returns whether there is no byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the next part, `None` after the last one. The last part is returned only if the hash of all of them is
    /// the blob's, so a receiver with all bytes has the right ones.
    pub async fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        match &mut self.source {
            Source::Inline(bytes) => Ok(bytes.take()),
            Source::Stored(stored) => stored.next().await,
        }
    }
}

impl Stored {
    async fn next(&mut self) -> Result<Option<Bytes>, BlobError> {
        let parts = self.blob.parts();
        if self.next >= parts {
            return Ok(None);
        }
        let bytes = part(&self.stream, &self.blob, self.next).await?;
        self.hasher.add(&bytes).await;
        self.next += 1;
        if self.next == parts && std::mem::take(&mut self.hasher).hash() != self.blob.hash {
            return Err(BlobError::Corrupt(self.blob.clone()));
        }
        Ok(Some(bytes))
    }
}
