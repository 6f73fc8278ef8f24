//! Blobs: large payloads stored under their content hash, which is verified when a blob is read.

use crate::{
    Bus,
    provision::{BLOBS, BLOBS_STREAM},
};
use async_nats::jetstream::{
    Context,
    message::StreamMessage,
    object_store::{GetErrorKind, InfoErrorKind, ObjectInfo, ObjectStore},
    stream::{self, DirectGetErrorKind, LastRawMessageErrorKind},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE};
use lru::LruCache;
use push0_domain::{
    BlobRef, Payload, Payloads,
    codec::{self, CodecError, Encoding},
    payload::{CHUNK_LEN, INLINE_MAX, PAYLOAD_MAX},
};
use std::{
    io::ErrorKind,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::io::AsyncReadExt;

/// How many chunks of long lists are kept in memory. Neighbouring entries of a list share a chunk.
const CHUNKS_KEPT: NonZeroUsize = NonZeroUsize::new(8).expect("not zero");

/// How long a read may receive no bytes before it checks whether the blob's bytes exist at all.
const STALL: Duration = Duration::from_secs(2);

/// The reason why a blob was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The store does not have the blob: it expired, or its producer must run again.
    #[error("blob {0:?} is not in the store")]
    Missing(BlobRef),
    /// The store has other bytes under the blob's name.
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
    /// A list could not be encoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl BlobError {
    /// Returns whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// Decoded chunks of long lists, by content hash.
type Chunks = LruCache<[u8; 32], Arc<Vec<Payload>>>;

/// A handle to the blob store.
#[derive(Clone)]
pub struct Blobs {
    store: ObjectStore,
    jetstream: Context,
    chunks: Arc<Mutex<Chunks>>,
}

impl Bus {
    /// Binds to the blob store.
    pub async fn blobs(&self) -> Result<Blobs, crate::BusError> {
        let store = self
            .jetstream
            .get_object_store(BLOBS)
            .await
            .map_err(|e| crate::BusError::unavailable(BLOBS, e))?;
        Ok(Blobs {
            store,
            jetstream: self.jetstream.as_ref().clone(),
            chunks: Arc::new(Mutex::new(LruCache::new(CHUNKS_KEPT))),
        })
    }
}

impl Blobs {
    /// Makes a payload of bytes: up to [`INLINE_MAX`] bytes stay inline, more are stored as a blob.
    pub async fn payload(&self, bytes: &[u8]) -> Result<Payload, BlobError> {
        if bytes.len() <= INLINE_MAX {
            Ok(Payload::Inline(bytes.to_vec()))
        } else {
            Ok(Payload::Blob(self.put(bytes).await?))
        }
    }

    /// Makes a list of payloads that fits into a message. A short list stays as it is, a long one is
    /// stored in chunks.
    pub async fn list(&self, payloads: Vec<Payload>) -> Result<Payloads, BlobError> {
        let list = Payloads::List(payloads);
        if list.inline_len() <= INLINE_MAX {
            return Ok(list);
        }
        let count = list.count();
        let Payloads::List(payloads) = list else {
            return Ok(list);
        };
        let mut chunks = Vec::new();
        for chunk in payloads.chunks(CHUNK_LEN as usize) {
            chunks.push(
                self.put(&codec::encode(&self.spilled(chunk).await?, Encoding::Bincode)?)
                    .await?,
            );
        }
        Ok(Payloads::Chunked { count, chunks })
    }

    /// Moves a chunk's large entries to blobs of their own, so the chunk can be decoded as one body.
    async fn spilled(&self, chunk: &[Payload]) -> Result<Vec<Payload>, BlobError> {
        let each_max = codec::BODY_MAX / 2 / CHUNK_LEN as usize;
        let mut entries = Vec::with_capacity(chunk.len());
        for payload in chunk {
            entries.push(match payload {
                Payload::Inline(bytes) if bytes.len() > each_max => Payload::Blob(self.put(bytes).await?),
                other => other.clone(),
            });
        }
        Ok(entries)
    }

    /// Stores bytes as a blob. The same bytes are stored once.
    pub async fn put(&self, bytes: &[u8]) -> Result<BlobRef, BlobError> {
        let blob = BlobRef::of(bytes);
        if blob.len > PAYLOAD_MAX {
            return Err(BlobError::TooLarge(blob.len));
        }
        let name = blob.hash.to_string();
        let stored = match self.store.info(&name).await {
            // The bytes may have expired or been removed while the description stayed.
            Ok(info) if info.size as u64 == blob.len && !info.deleted => {
                blob.len == 0 || self.has_parts(&info.nuid).await?
            }
            Err(e) if e.kind() != InfoErrorKind::NotFound => {
                return Err(BlobError::Unavailable(e.to_string()));
            }
            _ => false,
        };
        if stored {
            return Ok(blob);
        }
        let mut reader = bytes;
        self.store
            .put(name.as_str(), &mut reader)
            .await
            .map_err(|e| BlobError::Unavailable(e.to_string()))?;
        Ok(blob)
    }

    /// Reads a blob and verifies its length and hash.
    pub async fn get(&self, blob: &BlobRef) -> Result<Vec<u8>, BlobError> {
        if blob.len > PAYLOAD_MAX {
            return Err(BlobError::TooLarge(blob.len));
        }
        let object = match self.store.get(blob.hash.to_string()).await {
            Ok(object) => object,
            Err(e) if e.kind() == GetErrorKind::NotFound => return Err(self.not_found(blob).await),
            Err(e) => return Err(BlobError::Unavailable(e.to_string())),
        };
        let nuid = object.info.nuid.clone();
        if object.info.chunks == 1 {
            return self.only_part(blob, &nuid).await;
        }
        let mut bytes = Vec::new();
        let mut object = object.take(blob.len + 1);
        loop {
            match tokio::time::timeout(STALL, object.read_buf(&mut bytes)).await {
                Ok(Ok(0)) => break,
                Ok(Ok(_)) => {}
                Ok(Err(e)) if e.kind() == ErrorKind::InvalidData => return Err(BlobError::Corrupt(*blob)),
                Ok(Err(e)) => return Err(BlobError::Unavailable(e.to_string())),
                Err(_) => return Err(self.stalled(blob, &nuid).await),
            }
        }
        checked(blob, bytes)
    }

    /// Reads a blob stored as one part. The client reads through a consumer of its own, which the broker
    /// keeps for some seconds afterwards: many tasks that read small blobs at once would use up all consumers
    /// the broker allows.
    async fn only_part(&self, blob: &BlobRef, nuid: &str) -> Result<Vec<u8>, BlobError> {
        let part = self.last_part(nuid).await?.ok_or(BlobError::Missing(*blob))?;
        checked(blob, part.payload.to_vec())
    }

    /// Returns the reason why a blob's bytes do not arrive. If they expired or were removed while the
    /// description stayed, the client waits for them for ever.
    async fn stalled(&self, blob: &BlobRef, nuid: &str) -> BlobError {
        match self.has_parts(nuid).await {
            Ok(true) => BlobError::Unavailable(format!("no bytes of {blob:?} for {STALL:?}")),
            Ok(false) => BlobError::Missing(*blob),
            Err(error) => error,
        }
    }

    /// Returns whether the store has bytes of the object with this id.
    async fn has_parts(&self, nuid: &str) -> Result<bool, BlobError> {
        Ok(self.last_part(nuid).await?.is_some())
    }

    async fn last_part(&self, nuid: &str) -> Result<Option<StreamMessage>, BlobError> {
        let stream = self.bound().await?;
        let parts = format!("$O.{BLOBS}.C.{nuid}");
        match stream.direct_get_last_for_subject(&parts).await {
            Ok(message) => Ok(Some(message)),
            Err(e) if e.kind() == DirectGetErrorKind::NotFound => led(&stream, &parts).await,
            Err(e) => Err(BlobError::Unavailable(e.to_string())),
        }
    }

    /// Returns the reason why the client did not find a blob. The client asks any copy of the store, and a
    /// lagging copy may not have the blob yet: only the leader's word makes a blob missing.
    async fn not_found(&self, blob: &BlobRef) -> BlobError {
        let name = BASE64_URL_SAFE.encode(blob.hash.to_string());
        let known = async { led(&self.bound().await?, &format!("$O.{BLOBS}.M.{name}")).await };
        match known.await {
            Ok(None) => BlobError::Missing(*blob),
            // A deleted description belongs to a removed blob. Otherwise a copy lags, and the
            // next try decides.
            Ok(Some(message)) if is_deleted(&message) => BlobError::Missing(*blob),
            Ok(Some(_)) => BlobError::Unavailable(format!("a copy of the store does not have {blob:?} yet")),
            Err(error) => error,
        }
    }

    async fn bound(&self) -> Result<stream::Stream<()>, BlobError> {
        let stream = self.jetstream.get_stream_no_info(BLOBS_STREAM).await;
        stream.map_err(|e| BlobError::Unavailable(e.to_string()))
    }

    /// Returns the bytes of a payload, read from the store if they are not inline.
    pub async fn resolve(&self, payload: &Payload) -> Result<Vec<u8>, BlobError> {
        let direct = match payload {
            Payload::Entry { chunk, entry } => &self.entry(chunk, *entry).await?,
            other => other,
        };
        match direct {
            Payload::Inline(bytes) => Ok(bytes.clone()),
            Payload::Blob(blob) => self.get(blob).await,
            Payload::Entry { chunk, entry } => Err(BlobError::Entry {
                chunk: *chunk,
                entry: *entry,
                reason: "the entry refers to another chunk".into(),
            }),
        }
    }

    async fn entry(&self, chunk: &BlobRef, entry: u32) -> Result<Payload, BlobError> {
        let wrong = |reason: String| BlobError::Entry {
            chunk: *chunk,
            entry,
            reason,
        };
        let kept = self.kept().get(&chunk.hash.0).cloned();
        let entries = match kept {
            Some(entries) => entries,
            None => {
                let decoded = codec::decode(&self.get(chunk).await?, Encoding::Bincode);
                let entries: Arc<Vec<Payload>> = Arc::new(decoded.map_err(|e| wrong(e.to_string()))?);
                self.kept().put(chunk.hash.0, entries.clone());
                entries
            }
        };
        entries
            .get(entry as usize)
            .cloned()
            .ok_or_else(|| wrong(format!("the chunk has {} entries", entries.len())))
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Chunks> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the newest message on a subject, read from the leader of the store's stream.
async fn led(stream: &stream::Stream<()>, subject: &str) -> Result<Option<StreamMessage>, BlobError> {
    match stream.get_last_raw_message_by_subject(subject).await {
        Ok(message) => Ok(Some(message)),
        Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => Ok(None),
        Err(e) => Err(BlobError::Unavailable(e.to_string())),
    }
}

fn is_deleted(description: &StreamMessage) -> bool {
    let info = serde_json::from_slice::<ObjectInfo>(&description.payload);
    info.is_ok_and(|info| info.deleted)
}

fn checked(blob: &BlobRef, bytes: Vec<u8>) -> Result<Vec<u8>, BlobError> {
    if BlobRef::of(&bytes) == *blob {
        Ok(bytes)
    } else {
        Err(BlobError::Corrupt(*blob))
    }
}
