//! Blobs: large payloads by content hash, checked when they are read.

use crate::{
    Bus,
    streams::{BLOBS, BLOBS_STREAM},
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

/// How many chunks of long lists are kept in memory: neighbours of one list share a chunk.
const CHUNKS_KEPT: NonZeroUsize = NonZeroUsize::new(8).expect("not zero");

/// How long the next bytes of a blob may take before one looks whether they are there at all.
const STALL: Duration = Duration::from_secs(2);

/// Why a blob was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The store does not have it: it expired, or its producer must run again.
    #[error("blob {0:?} is not in the store")]
    Missing(BlobRef),
    /// The store has other bytes under this name.
    #[error("blob {0:?} is corrupt: its bytes have another hash or length")]
    Corrupt(BlobRef),
    /// The payload is larger than is allowed.
    #[error("payload of {0} bytes: expected at most {PAYLOAD_MAX}")]
    TooLarge(u64),
    /// A chunk of a list does not hold the entry that a message names.
    #[error("entry {entry} is not in chunk {chunk:?}: {reason}")]
    Entry {
        /// The chunk.
        chunk: BlobRef,
        /// The position.
        entry: u32,
        /// What is wrong.
        reason: String,
    },
    /// The store did not answer.
    #[error("blob store: {0}")]
    Unavailable(String),
    /// A list could not be written.
    #[error(transparent)]
    Codec(#[from] CodecError),
}

impl BlobError {
    /// Whether the same call may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unavailable(_))
    }
}

/// Decoded chunks of long lists, by content hash.
type Chunks = LruCache<[u8; 32], Arc<Vec<Payload>>>;

/// The blob store.
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
    /// Makes a payload of bytes: small ones stay inline, larger ones go to the store first.
    pub async fn payload(&self, bytes: &[u8]) -> Result<Payload, BlobError> {
        if bytes.len() <= INLINE_MAX {
            Ok(Payload::Inline(bytes.to_vec()))
        } else {
            Ok(Payload::Blob(self.put(bytes).await?))
        }
    }

    /// Makes a list of payloads fit a message: a short one stays, a long one goes to the store in chunks.
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

    /// A chunk whose entries are small enough for it to be decoded as one body.
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

    /// Stores bytes; the same bytes twice are stored once.
    pub async fn put(&self, bytes: &[u8]) -> Result<BlobRef, BlobError> {
        let blob = BlobRef::of(bytes);
        if blob.len > PAYLOAD_MAX {
            return Err(BlobError::TooLarge(blob.len));
        }
        let name = blob.hash.to_string();
        let stored = match self.store.info(&name).await {
            // Its bytes may have expired or been removed while its description stayed.
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

    /// Reads bytes and checks them.
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

    /// The bytes of an object of one part. The client reads through a consumer of its own, which the
    /// broker keeps for seconds after; many tasks that read small blobs at once would use up all the
    /// consumers that it allows.
    async fn only_part(&self, blob: &BlobRef, nuid: &str) -> Result<Vec<u8>, BlobError> {
        let part = self.last_part(nuid).await?.ok_or(BlobError::Missing(*blob))?;
        checked(blob, part.payload.to_vec())
    }

    /// Why a blob's bytes do not come. The client waits for them for ever when they expired or were
    /// removed while its description stayed.
    async fn stalled(&self, blob: &BlobRef, nuid: &str) -> BlobError {
        match self.has_parts(nuid).await {
            Ok(true) => BlobError::Unavailable(format!("no bytes of {blob:?} for {STALL:?}")),
            Ok(false) => BlobError::Missing(*blob),
            Err(error) => error,
        }
    }

    /// Whether the store has bytes of the object of this id.
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

    /// Why the client did not find a blob. It asks any copy of the store, and one that lags does not have
    /// it yet: only the leader's word makes it missing.
    async fn not_found(&self, blob: &BlobRef) -> BlobError {
        let name = BASE64_URL_SAFE.encode(blob.hash.to_string());
        let known = async { led(&self.bound().await?, &format!("$O.{BLOBS}.M.{name}")).await };
        match known.await {
            Ok(None) => BlobError::Missing(*blob),
            // Its description says that it was removed, or a copy did not have it yet: the next try tells.
            Ok(Some(message)) if is_deleted(&message) => BlobError::Missing(*blob),
            Ok(Some(_)) => BlobError::Unavailable(format!("a copy of the store does not have {blob:?} yet")),
            Err(error) => error,
        }
    }

    async fn bound(&self) -> Result<stream::Stream<()>, BlobError> {
        let stream = self.jetstream.get_stream_no_info(BLOBS_STREAM).await;
        stream.map_err(|e| BlobError::Unavailable(e.to_string()))
    }

    /// The bytes of a payload, wherever they lie.
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
                reason: "a list within a list".into(),
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
            .ok_or_else(|| wrong(format!("it has {} entries", entries.len())))
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Chunks> {
        self.chunks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The newest message on a subject, as the leader of the store knows it.
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
