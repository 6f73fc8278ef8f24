//! Payloads: the opaque bytes that provers read and write.
//!
//! Small ones travel in the message. Larger ones lie in the blob store under their content hash,
//! and the message carries the reference; whoever reads one checks it against the hash.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};

/// The largest payload that a message carries itself, in bytes; above it the blob store is faster
/// (128 KiB in a message took 0.5 ms where a hop of 1 KiB took 0.1 ms).
pub const INLINE_MAX: usize = 64 * 1024;

/// The largest payload that is accepted at all, in bytes.
pub const PAYLOAD_MAX: u64 = 256 * 1024 * 1024;

/// How many payloads one chunk of a long list holds: a chunk of references stays below [`INLINE_MAX`].
pub const CHUNK_LEN: u32 = 256;

/// Bytes in the blob store, named by content.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BlobRef {
    /// BLAKE3 of the bytes.
    pub hash: BlobHash,
    /// How many bytes.
    pub len: u64,
}

impl BlobRef {
    /// The reference to `bytes`.
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

/// Opaque bytes of a prover, here or in the blob store.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payload {
    /// The bytes themselves; hex digits in JSON.
    Inline(#[serde(with = "hex_or_bytes")] Vec<u8>),
    /// Where they lie.
    Blob(BlobRef),
    /// One of a long list: entry `entry` of the chunk that lies at `chunk`.
    Entry {
        /// The blob that holds an encoded list of at most [`CHUNK_LEN`] payloads.
        chunk: BlobRef,
        /// The position in it.
        entry: u32,
    },
}

impl Payload {
    /// An empty payload.
    pub fn empty() -> Self {
        Self::Inline(Vec::new())
    }

    /// Its size as far as this message knows, in bytes; an entry of a list counts 0.
    pub fn len(&self) -> u64 {
        match self {
            Self::Inline(bytes) => bytes.len() as u64,
            Self::Blob(blob) => blob.len,
            Self::Entry { .. } => 0,
        }
    }

    /// Whether it is known to hold nothing.
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

/// A list of payloads: what a stage reads or writes.
///
/// A list of a hundred thousand costs a message a few hundred references, and whoever needs one
/// entry reads one chunk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Payloads {
    /// All of them here.
    List(Vec<Payload>),
    /// In blobs of [`CHUNK_LEN`] entries each, the last one shorter.
    Chunked {
        /// How many entries in all.
        count: u32,
        /// The chunks in order.
        chunks: Vec<BlobRef>,
    },
}

impl Payloads {
    /// The list of one.
    pub fn one(payload: Payload) -> Self {
        Self::List(vec![payload])
    }

    /// How many entries.
    pub fn count(&self) -> u32 {
        match self {
            Self::List(list) => u32::try_from(list.len()).unwrap_or(u32::MAX),
            Self::Chunked { count, .. } => *count,
        }
    }

    /// Entry `index`, without reading anything.
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

    /// How many bytes a message that carries the list spends on it, roughly.
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

/// Bytes as hex digits in JSON, which other languages can write, and as bytes in bincode.
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
