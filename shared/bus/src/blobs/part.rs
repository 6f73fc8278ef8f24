//! Parts of blobs, and the hash of all parts.

use super::error::BlobError;
use async_nats::jetstream::stream::{self, DirectGetErrorKind, LastRawMessageErrorKind};
use bytes::Bytes;
use push0_domain::{
    BlobRef,
    payload::{BLOB_PART_LEN, BlobHash},
    subject,
};
use sha2::{Digest, Sha256};

/// A part's length in memory.
pub(super) const PART_LEN: usize = BLOB_PART_LEN as usize;

/// Reads one part. Any copy may answer, since a part never changes, but only the leader's word makes it missing.
pub(super) async fn part(stream: &stream::Stream<()>, blob: &BlobRef, at: u64) -> Result<Bytes, BlobError> {
    let unavailable = |e: &dyn std::fmt::Display| BlobError::Unavailable(e.to_string());
    let subject = subject::blobs::part(blob, at);
    let part = match stream.direct_get_last_for_subject(&subject).await {
        Ok(message) => message,
        Err(e) if e.kind() == DirectGetErrorKind::NotFound => {
            match stream.get_last_raw_message_by_subject(&subject).await {
                Ok(message) => message,
                Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => {
                    return Err(BlobError::Missing(blob.clone()));
                }
                Err(e) => return Err(unavailable(&e)),
            }
        }
        Err(e) => return Err(unavailable(&e)),
    };
    if part.payload.len() as u64 == blob.part_len(at) {
        Ok(part.payload)
    } else {
        Err(BlobError::Corrupt(blob.clone()))
    }
}

/// Computes a hash part by part: the hash of a large blob must not hold up other tasks.
#[derive(Default)]
pub(super) struct Hasher(Sha256);

impl Hasher {
    pub(super) async fn add(&mut self, part: &[u8]) {
        self.0.update(part);
        tokio::task::yield_now().await;
    }

    pub(super) fn hash(self) -> BlobHash {
        BlobHash(self.0.finalize().into())
    }
}
