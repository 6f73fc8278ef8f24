//! Payloads: the opaque bytes that provers read and write.
//!
//! Small payloads travel inside the message. Larger ones lie in the blob store under their writer, their block and
//! their content hash, and the message carries a reference; readers check the bytes against the hash.

use crate::{PipelineId, ProverId, ZkvmId};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};
use std::{fmt, str::FromStr};

/// Largest inline payload, in bytes. Above this size the blob store is faster (128 KiB in a message took
/// 0.5 ms where a hop of 1 KiB took 0.1 ms).
pub const INLINE_MAX: usize = 64 * 1024;

/// Largest accepted payload, in bytes.
pub const PAYLOAD_MAX: u64 = 256 * 1024 * 1024;

/// Number of payloads in one chunk of a long list. A chunk of references stays below [`INLINE_MAX`].
pub const CHUNK_LEN: u32 = 256;

/// Most payloads in a list, and so most tasks of a stage.
pub const PAYLOADS_MAX: u32 = 100_000;

/// Length of a blob's parts in bytes; only the last part may be shorter. The leader of a stream answers in base64,
/// and such an answer must stay below 1 MiB, the least `max_payload` that brokers are run with.
pub const BLOB_PART_LEN: u64 = 512 * 1024;

/// The place of a blob: its writer and its block. Both are in the blob's subject, so that
/// permissions say who writes where, and the blobs of a block can be removed at once.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlobPlace {
    /// The zkVM of the prover that wrote the blob; `None` for a service of push0, `_` in the subject.
    pub zkvm: Option<ZkvmId>,
    /// The prover or service that wrote the blob.
    pub writer: ProverId,
    /// The pipeline of the block.
    pub pipeline: PipelineId,
    /// The number of the block; for a range, of its last block.
    pub number: u64,
}

impl fmt::Display for BlobPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            zkvm,
            writer,
            pipeline,
            number,
        } = self;
        let zkvm = zkvm.as_ref().map_or("_", ZkvmId::as_str);
        write!(f, "{zkvm}.{writer}.{pipeline}.{number}")
    }
}

impl fmt::Debug for BlobPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Reference to bytes in the blob store.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BlobRef {
    /// Where the blob lies.
    pub place: BlobPlace,
    /// The name of the bytes.
    pub hash: BlobHash,
    /// Length of the blob in bytes.
    pub len: u64,
}

impl BlobRef {
    /// Returns the reference to `bytes` at `place`. Stores nothing.
    pub fn of(place: BlobPlace, bytes: &[u8]) -> Self {
        Self {
            place,
            hash: BlobHash::of(bytes),
            len: bytes.len() as u64,
        }
    }

    /// Returns the number of the blob's parts. An empty blob has none.
    pub fn parts(&self) -> u64 {
        self.len.div_ceil(BLOB_PART_LEN)
    }

    /// Returns the length of a part in bytes.
    pub fn part_len(&self, part: u64) -> u64 {
        self.len
            .saturating_sub(part.saturating_mul(BLOB_PART_LEN))
            .min(BLOB_PART_LEN)
    }
}

impl fmt::Debug for BlobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}+{}", self.place, self.hash, self.len)
    }
}

/// A SHA-256 hash. Text form: 64 hex digits, which is also the blob's name in its subject.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlobHash(pub [u8; 32]);

impl BlobHash {
    /// Returns the hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Debug for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl FromStr for BlobHash {
    type Err = hex::FromHexError;
    fn from_str(text: &str) -> Result<Self, hex::FromHexError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(Self(bytes))
    }
}

impl Serialize for BlobHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for BlobHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return Ok(Self(<[u8; 32]>::deserialize(deserializer)?));
        }
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?
            .parse()
            .map_err(|_| de::Error::custom("expected 64 hex digits"))
    }
}

/// Opaque bytes of a prover, inline or in the blob store.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// The bytes themselves; hex digits in JSON.
    Inline(#[serde(with = "hex_or_bytes")] Vec<u8>),
    /// Reference to the blob that holds the bytes.
    Blob(BlobRef),
    /// One payload of a long list: entry `entry` of the blob `chunk`.
    Entry {
        /// The blob that holds an encoded list of at most [`CHUNK_LEN`] payloads.
        chunk: BlobRef,
        /// Position of the payload in the chunk, from 0.
        entry: u32,
    },
}

impl Payload {
    /// Returns an empty inline payload.
    pub fn empty() -> Self {
        Self::Inline(Vec::new())
    }

    /// Returns the payload's size in bytes, or 0 for an entry of a list, whose size the message
    /// does not hold.
    pub fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Blob(blob) => blob.len,
            Self::Entry { .. } => 0,
        }
    }

    /// Returns whether the payload may be in a message: inline bytes have a limit.
    pub fn is_inline_short(&self) -> bool {
        !matches!(self, Self::Inline(bytes) if bytes.len() > INLINE_MAX)
    }

    /// Returns whether the payload is known to be empty: only empty inline bytes are.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Inline(bytes) if bytes.is_empty())
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inline(bytes) => write!(f, "Inline({} bytes)", bytes.len()),
            Self::Blob(blob) => write!(f, "Blob({blob:?})"),
            Self::Entry { chunk, entry } => write!(f, "Entry({chunk:?}[{entry}])"),
        }
    }
}

/// A list of payloads: the inputs or outputs of a stage.
///
/// A list of a hundred thousand entries adds only a few hundred references to a message, and reading one
/// entry takes reading one chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", try_from = "Unchecked")]
pub enum Payloads {
    /// All payloads of the list, inside the message.
    List(Vec<Payload>),
    /// References to blobs of [`CHUNK_LEN`] payloads each, the last one shorter.
    Chunked {
        /// Number of payloads in all chunks together.
        count: u32,
        /// The chunks in the order of the list.
        chunks: Vec<BlobRef>,
    },
}

/// A list of payloads as it comes in a message, which may claim more payloads than it has chunks for.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Unchecked {
    List(Vec<Payload>),
    Chunked { count: u32, chunks: Vec<BlobRef> },
}

/// Error for a list that is too long, or whose count does not fit its chunks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a list of {count} payloads in {chunks} chunks: expected at most {PAYLOADS_MAX}, {CHUNK_LEN} in each chunk but the last"
)]
struct InvalidList {
    count: usize,
    chunks: usize,
}

impl TryFrom<Unchecked> for Payloads {
    type Error = InvalidList;

    fn try_from(list: Unchecked) -> Result<Self, InvalidList> {
        let (count, chunks) = match &list {
            Unchecked::List(list) => (list.len(), 0),
            Unchecked::Chunked { count, chunks } => (*count as usize, chunks.len()),
        };
        let is_chunked = matches!(list, Unchecked::Chunked { .. });
        let fits = !is_chunked || count.div_ceil(CHUNK_LEN as usize) == chunks;
        if count > PAYLOADS_MAX as usize || !fits {
            return Err(InvalidList { count, chunks });
        }
        Ok(match list {
            Unchecked::List(list) => Self::List(list),
            Unchecked::Chunked { count, chunks } => Self::Chunked { count, chunks },
        })
    }
}

impl Payloads {
    /// Returns a list of one payload.
    pub fn one(payload: Payload) -> Self {
        Self::List(vec![payload])
    }

    /// Returns the blobs that the list itself names: those of its payloads, or its chunks.
    pub fn blobs(&self) -> impl Iterator<Item = &BlobRef> {
        let (list, chunks): (&[Payload], &[BlobRef]) = match self {
            Self::List(list) => (list, &[]),
            Self::Chunked { chunks, .. } => (&[], chunks),
        };
        let named = list.iter().filter_map(|payload| match payload {
            Payload::Inline(_) => None,
            Payload::Blob(blob) | Payload::Entry { chunk: blob, .. } => Some(blob),
        });
        named.chain(chunks)
    }

    /// Returns the bytes that the list is known to take up in the blob store. A list may claim any lengths.
    pub fn blob_len(&self) -> u64 {
        let sum = |total: u64, len: u64| total.saturating_add(len);
        match self {
            Self::List(list) => {
                let blobs = list.iter().filter(|p| matches!(p, Payload::Blob(_)));
                blobs.map(Payload::len).fold(0, sum)
            }
            Self::Chunked { chunks, .. } => chunks.iter().map(|chunk| chunk.len).fold(0, sum),
        }
    }

    /// Returns the number of payloads in the list.
    pub fn count(&self) -> u32 {
        match self {
            Self::List(list) => u32::try_from(list.len()).unwrap_or(u32::MAX),
            Self::Chunked { count, .. } => *count,
        }
    }

    /// Returns the payload at `index` without reading from the store; `None` beyond the end of the list.
    pub fn get(&self, index: u32) -> Option<Payload> {
        match self {
            Self::List(list) => list.get(index as usize).cloned(),
            Self::Chunked { count, chunks } if index < *count => {
                let chunk = chunks.get((index / CHUNK_LEN) as usize)?.clone();
                Some(Payload::Entry {
                    chunk,
                    entry: index % CHUNK_LEN,
                })
            }
            Self::Chunked { .. } => None,
        }
    }

    /// Returns roughly how many bytes the list takes up in a message.
    pub fn inline_len(&self) -> usize {
        let blob = |blob: &BlobRef| {
            let BlobPlace {
                zkvm,
                writer,
                pipeline,
                ..
            } = &blob.place;
            let zkvm = zkvm.as_ref().map_or(0, |zkvm| zkvm.as_str().len());
            zkvm + writer.as_str().len() + pipeline.as_str().len() + 56
        };
        match self {
            Self::List(list) => list
                .iter()
                .map(|payload| match payload {
                    Payload::Inline(bytes) => bytes.len() + 8,
                    Payload::Blob(at) | Payload::Entry { chunk: at, .. } => blob(at) + 8,
                })
                .sum(),
            Self::Chunked { chunks, .. } => chunks.iter().map(blob).sum(),
        }
    }
}

/// Serializes bytes as hex digits in JSON, which other languages can write, and as bytes in bincode.
pub(crate) mod hex_or_bytes {
    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.serialize_str(&format!("0x{}", hex::encode(bytes)))
        } else {
            serde_bytes::serialize(bytes, serializer)
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        if !deserializer.is_human_readable() {
            return serde_bytes::deserialize(deserializer);
        }
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        hex::decode(text.strip_prefix("0x").unwrap_or(&text))
            .map_err(|_| de::Error::custom("expected 0x and hex digits"))
    }
}
