//! Payloads: the opaque bytes that provers read and write.
//!
//! Small payloads travel inside the message. Larger ones lie in the blob store under their content hash,
//! and the message carries a reference; readers check the bytes against the hash.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};

/// Largest inline payload, in bytes. Above this size the blob store is faster (128 KiB in a message took
/// 0.5 ms where a hop of 1 KiB took 0.1 ms).
pub const INLINE_MAX: usize = 64 * 1024;

/// Largest accepted payload, in bytes.
pub const PAYLOAD_MAX: u64 = 256 * 1024 * 1024;

/// Number of payloads in one chunk of a long list. A chunk of references stays below [`INLINE_MAX`].
pub const CHUNK_LEN: u32 = 256;

/// Reference to bytes in the blob store, named by their content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BlobRef {
    /// BLAKE3 hash of the bytes.
    pub hash: BlobHash,
    /// Length of the blob in bytes.
    pub len: u64,
}

impl BlobRef {
    /// Returns the reference to `bytes`. Stores nothing.
    pub fn of(bytes: &[u8]) -> Self {
        Self {
            hash: BlobHash(*blake3::hash(bytes).as_bytes()),
            len: bytes.len() as u64,
        }
    }
}

impl fmt::Debug for BlobRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}", self.hash, self.len)
    }
}

/// A BLAKE3 hash. Text form: 64 hex digits, which is also the blob's name in the store.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlobHash(pub [u8; 32]);

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
#[serde(rename_all = "snake_case")]
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

impl Payloads {
    /// Returns a list of one payload.
    pub fn one(payload: Payload) -> Self {
        Self::List(vec![payload])
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
                let chunk = *chunks.get((index / CHUNK_LEN) as usize)?;
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
        match self {
            Self::List(list) => list
                .iter()
                .map(|p| {
                    if let Payload::Inline(b) = p {
                        b.len() + 8
                    } else {
                        48
                    }
                })
                .sum(),
            Self::Chunked { chunks, .. } => chunks.len() * 40,
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
