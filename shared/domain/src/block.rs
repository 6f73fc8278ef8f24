//! Blocks are always named by number and hash, so that a reorg cannot be mistaken for progress.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::{fmt, str::FromStr};

/// Error for a text that is not a valid block hash or block key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {expected}")]
pub struct InvalidBlock {
    text: String,
    expected: &'static str,
}

/// The 32-byte hash of a block. Text form: `0x` and 64 hex digits.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockHash(pub [u8; 32]);

impl fmt::Display for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{}", hex::encode(self.0))
    }
}

impl fmt::Debug for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BlockHash {
    type Err = InvalidBlock;
    fn from_str(text: &str) -> Result<Self, InvalidBlock> {
        let digits = text.strip_prefix("0x").unwrap_or(text);
        let mut bytes = [0; 32];
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| InvalidBlock {
            text: text.chars().take(80).collect(),
            expected: "a block hash (0x and 64 hex digits)",
        })?;
        Ok(Self(bytes))
    }
}

impl Serialize for BlockHash {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            self.0.serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for BlockHash {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            return Ok(Self(<[u8; 32]>::deserialize(deserializer)?));
        }
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?
            .parse()
            .map_err(de::Error::custom)
    }
}

/// A block of a chain, named by number and hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BlockRef {
    /// The block's number in its chain.
    pub number: u64,
    /// The block's full hash.
    pub hash: BlockHash,
}

impl BlockRef {
    /// The largest number of a block: the largest that every reader of JSON keeps exact. Above all chains, and a block
    /// near the end of all numbers would leave none for the next.
    pub const NUMBER_MAX: u64 = 1 << 53;

    /// Returns the block's short form, used in subjects.
    pub fn key(&self) -> BlockKey {
        let [a, b, c, d, ..] = self.hash.0;
        BlockKey {
            number: self.number,
            hash_prefix: [a, b, c, d],
            blocks: 1,
        }
    }
}

impl fmt::Display for BlockRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key().fmt(f)
    }
}

/// A block as one token of a subject: its number and the first 8 hex digits of its hash, `1234-0a1b2c3d`. A
/// range is named by its last block and the number of blocks in the range, `1299-0a1b2c3d-100`.
///
/// Two blocks of the same number have different keys unless their hashes share the first 32 bits. Keys are
/// used for routing and deduplication; accepting a proof always takes the full hash as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockKey {
    /// The block's number; for a range, the number of its last block.
    pub number: u64,
    /// The first four bytes of the block's hash.
    pub hash_prefix: [u8; 4],
    /// Number of blocks in the range ending with this block; 1 for a single block.
    pub blocks: u32,
}

impl BlockKey {
    /// Returns the number of the first block of the range, or the block's own number if it is no range.
    pub fn first(&self) -> u64 {
        self.number
            .saturating_sub(u64::from(self.blocks.saturating_sub(1)))
    }
}

impl fmt::Display for BlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.number, hex::encode(self.hash_prefix))?;
        if self.blocks == 1 {
            return Ok(());
        }
        write!(f, "-{}", self.blocks)
    }
}

impl FromStr for BlockKey {
    type Err = InvalidBlock;
    fn from_str(text: &str) -> Result<Self, InvalidBlock> {
        let parse = || {
            let (number, rest) = text.split_once('-')?;
            let (prefix, blocks) = rest.split_once('-').unwrap_or((rest, "1"));
            let mut hash_prefix = [0; 4];
            hex::decode_to_slice(prefix, &mut hash_prefix).ok()?;
            let key = Self {
                number: number.parse().ok()?,
                hash_prefix,
                blocks: blocks.parse().ok()?,
            };
            // Only one spelling is accepted: `+1`, `01` and upper-case digits would give one
            // block several subjects.
            (key.to_string() == text).then_some(key)
        };
        parse().ok_or_else(|| InvalidBlock {
            text: text.chars().take(80).collect(),
            expected: "a block key (NUMBER-8 hex digits, of a range with -COUNT)",
        })
    }
}
