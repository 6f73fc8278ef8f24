//! Blobs: large payloads, stored in parts under their writer, their block and their content hash, which is verified
//! when a blob is read.
//!
//! A subject takes one message, and no message is ever replaced (docs/adr/0038). So a part that is there already was
//! stored by an earlier try of the same writer, and a broken upload is finished by the next try.

mod error;
mod part;
mod parts;
mod reached;
mod stored;

pub use error::BlobError;
pub use parts::PayloadParts;
pub use reached::Reached;

use crate::{Bus, Message, PublishError, provision::BLOBS};
use async_nats::jetstream::stream;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use lru::LruCache;
use part::{Hasher, PART_LEN, part};
use push0_domain::{
    BlobPlace, BlobRef, Payload, Payloads, PipelineId, ProverId, ZkvmId,
    codec::{self, Encoding},
    payload::{CHUNK_LEN, INLINE_MAX, PAYLOAD_MAX},
    subject,
};
use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

/// How many chunks of long lists are kept in memory. Neighbouring entries of a list share a chunk.
const CHUNKS_KEPT: NonZeroUsize = NonZeroUsize::new(8).expect("not zero");

/// How many parts of one blob are under way at once.
const PARTS_IN_FLIGHT: usize = 4;

/// Decoded chunks of long lists, by content hash.
type Chunks = LruCache<[u8; 32], Arc<Vec<Payload>>>;

/// A handle to the blob store, for reading.
#[derive(Clone)]
pub struct Blobs {
    bus: Bus,
    chunks: Arc<Mutex<Chunks>>,
    reached: Reached,
}

/// A handle to store the blobs of one block.
#[derive(Clone)]
pub struct BlobWriter {
    blobs: Blobs,
    place: BlobPlace,
}

/// The blobs of the store by their place, as of one look.
#[derive(Debug, Default)]
pub struct StoredBlobs {
    /// The bytes at each place, at most: every part counts as a full one.
    pub places: BTreeMap<BlobPlace, u64>,
    /// Subjects that name no blob.
    pub strays: Vec<String>,
}

/// A service of push0 that stores blobs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Stores witnesses.
    Ingester,
    /// Stores long lists of inputs.
    Collector,
    /// A person at the command line, and tests.
    Operator,
}

impl Service {
    fn name(self) -> ProverId {
        let name = match self {
            Self::Ingester => "ingester",
            Self::Collector => "collector",
            Self::Operator => "operator",
        };
        ProverId::new(name).expect("a valid name")
    }
}

impl Bus {
    /// Returns a handle to the blob store. Asks the broker nothing.
    pub fn blobs(&self) -> Blobs {
        Blobs {
            bus: self.clone(),
            chunks: Arc::new(Mutex::new(LruCache::new(CHUNKS_KEPT))),
            reached: Reached::default(),
        }
    }
}

impl BlobWriter {
    /// Returns a handle for one transfer, and how far the transfer comes.
    pub fn watched(&self) -> (Self, Reached) {
        let (blobs, reached) = self.blobs.watched();
        let place = self.place.clone();
        (Self { blobs, place }, reached)
    }

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

    /// Returns the reference to bytes as [`Self::put`] stores them. Stores nothing.
    pub async fn name(&self, bytes: &[u8]) -> BlobRef {
        let mut hasher = Hasher::default();
        for part in bytes.chunks(PART_LEN) {
            hasher.add(part).await;
        }
        BlobRef {
            place: self.place.clone(),
            hash: hasher.hash(),
            len: bytes.len() as u64,
        }
    }

    /// Stores bytes as a blob, or the parts left by an earlier try.
    pub async fn put(&self, bytes: &[u8]) -> Result<BlobRef, BlobError> {
        self.put_parts(bytes, |range| Bytes::copy_from_slice(&bytes[range]))
            .await
    }

    /// Stores bytes like [`Self::put`], without a copy of each part.
    pub async fn put_shared(&self, bytes: &Bytes) -> Result<BlobRef, BlobError> {
        self.put_parts(bytes, |range| bytes.slice(range)).await
    }

    async fn put_parts(
        &self,
        bytes: &[u8],
        part: impl Fn(Range<usize>) -> Bytes,
    ) -> Result<BlobRef, BlobError> {
        let blob = self.name(bytes).await;
        if blob.len > PAYLOAD_MAX {
            return Err(BlobError::TooLarge(blob.len));
        }
        let starts = (0_u64..).zip((0..bytes.len()).step_by(PART_LEN));
        let stored = starts.map(|(at, start)| {
            let end = bytes.len().min(start + PART_LEN);
            self.put_part(subject::blobs::part(&blob, at), part(start..end))
        });
        let mut stored = futures::stream::iter(stored).buffered(PARTS_IN_FLIGHT);
        let mut sent = 0;
        while let Some(len) = stored.try_next().await? {
            sent += len;
            self.blobs.reached.note(sent);
        }
        drop(stored);
        Ok(blob)
    }

    /// Stores one part. Returns its length.
    async fn put_part(&self, subject: String, part: Bytes) -> Result<usize, BlobError> {
        let len = part.len();
        match self.blobs.bus.publish(Message::raw(subject, part)).await {
            Ok(_) | Err(PublishError::Occupied { .. }) => Ok(len),
            Err(error @ PublishError::Full { .. }) => Err(BlobError::Full(error.to_string())),
            Err(error) => Err(BlobError::Unavailable(error.to_string())),
        }
    }
}

impl Blobs {
    /// Returns a handle for a service of push0 to store blobs of a block of this number.
    pub fn of_service(&self, writer: Service, pipeline: &PipelineId, number: u64) -> BlobWriter {
        self.of(None, writer.name(), pipeline, number)
    }

    /// Returns a handle for a prover to store blobs of a block of this number, for a range to its last block.
    pub fn of_prover(
        &self,
        zkvm: &ZkvmId,
        prover: &ProverId,
        pipeline: &PipelineId,
        number: u64,
    ) -> BlobWriter {
        self.of(Some(zkvm.clone()), prover.clone(), pipeline, number)
    }

    fn of(&self, zkvm: Option<ZkvmId>, writer: ProverId, pipeline: &PipelineId, number: u64) -> BlobWriter {
        BlobWriter {
            blobs: self.clone(),
            place: BlobPlace {
                zkvm,
                writer,
                pipeline: pipeline.clone(),
                number,
            },
        }
    }

    /// Returns a handle for one transfer, and how far the transfer comes.
    pub fn watched(&self) -> (Self, Reached) {
        let reached = Reached::default();
        let watched = Self {
            reached: reached.clone(),
            ..self.clone()
        };
        (watched, reached)
    }

    /// Reads a blob and verifies its length and hash.
    pub async fn get(&self, blob: &BlobRef) -> Result<Vec<u8>, BlobError> {
        if blob.len > PAYLOAD_MAX {
            return Err(BlobError::TooLarge(blob.len));
        }
        let stream = &self.stream().await?;
        let parts: Vec<_> = (0..blob.parts()).map(|at| part(stream, blob, at)).collect();
        let mut parts = futures::stream::iter(parts).buffered(PARTS_IN_FLIGHT);
        let (mut bytes, mut hasher) = (Vec::new(), Hasher::default());
        while let Some(part) = parts.try_next().await? {
            hasher.add(&part).await;
            bytes.extend_from_slice(&part);
            self.reached.note(bytes.len());
        }
        if hasher.hash() == blob.hash {
            Ok(bytes)
        } else {
            Err(BlobError::Corrupt(blob.clone()))
        }
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
                chunk: chunk.clone(),
                entry: *entry,
                reason: "the entry refers to another chunk".into(),
            }),
        }
    }

    /// Returns the bytes of a payload like [`Self::resolve`], to be read part by part.
    pub async fn parts(&self, payload: &Payload) -> Result<PayloadParts, BlobError> {
        let direct = match payload {
            Payload::Entry { chunk, entry } => &self.entry(chunk, *entry).await?,
            other => other,
        };
        match direct {
            Payload::Blob(blob) if blob.len > PAYLOAD_MAX => Err(BlobError::TooLarge(blob.len)),
            Payload::Blob(blob) => Ok(PayloadParts::stored(self.stream().await?, blob.clone())),
            inline => Ok(PayloadParts::inline(self.resolve(inline).await?)),
        }
    }

    async fn stream(&self) -> Result<stream::Stream<()>, BlobError> {
        let stream = self.bus.jetstream.get_stream_no_info(BLOBS).await;
        stream.map_err(|e| BlobError::Unavailable(e.to_string()))
    }

    async fn entry(&self, chunk: &BlobRef, entry: u32) -> Result<Payload, BlobError> {
        let wrong = |reason: String| BlobError::Entry {
            chunk: chunk.clone(),
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
