//! The statement, its encoding as public inputs, and the same checks in plain Rust.

use miden_core_lib::handlers::keccak256::KeccakPreimage;
use miden_verifier::{StackInputs, math::Felt};

use crate::program::hex;

/// Smallest header in bytes: an RLP list with a two-byte length holds at least 256 bytes.
pub const MIN_HEADER_BYTES: usize = 259;

/// Largest header in bytes accepted by the program.
pub const MAX_HEADER_BYTES: usize = 4096;

/// Length of the list prefix in bytes: `f9` and a two-byte length.
const LIST_PREFIX_BYTES: usize = 3;

/// The public claim: the block with this hash has this parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Statement {
    /// Keccak-256 of the RLP of the header.
    pub block_hash: [u8; 32],
    /// First field of the header.
    pub parent_hash: [u8; 32],
}

impl Statement {
    /// Encodes the statement as the 16 public stack inputs: block hash, then parent hash.
    pub(crate) fn stack_inputs(&self) -> StackInputs {
        let mut inputs = [Felt::from_u32(0); 16];
        let words = words(&self.block_hash).chain(words(&self.parent_hash));
        for (input, word) in inputs.iter_mut().zip(words) {
            *input = word;
        }
        inputs.into()
    }
}

/// Splits bytes into 32-bit words, little-endian, the last one padded with zeros.
pub(crate) fn words(bytes: &[u8]) -> impl Iterator<Item = Felt> + '_ {
    bytes.chunks(4).map(|chunk| {
        let mut word = [0; 4];
        word[..chunk.len()].copy_from_slice(chunk);
        Felt::from_u32(u32::from_le_bytes(word))
    })
}

/// First rule of the statement broken by a header.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The header is shorter than [`MIN_HEADER_BYTES`] or longer than [`MAX_HEADER_BYTES`].
    #[error("a header of {0} bytes is outside {MIN_HEADER_BYTES} to {MAX_HEADER_BYTES} bytes")]
    Length(usize),
    /// The header is not an RLP list with a two-byte length.
    #[error("the header starts with byte {0:#04x}, not with 0xf9 (a list with a two-byte length)")]
    NotALongList(u8),
    /// The length in the list prefix does not match the number of bytes.
    #[error("the header's list claims {claimed} bytes but {present} follow its prefix")]
    ListLength {
        /// Number of bytes promised by the list prefix.
        claimed: usize,
        /// Number of bytes after the prefix.
        present: usize,
    },
    /// The first item of the list is not a 32-byte string.
    #[error("the header's first item starts with byte {0:#04x}, not with 0xa0 (a 32-byte string)")]
    NoParentHash(u8),
    /// The header names another parent.
    #[error("the header names parent {found}, the statement {expected}")]
    ParentHash {
        /// Parent hash of the statement, in hexadecimal.
        expected: String,
        /// Parent hash in the header, in hexadecimal.
        found: String,
    },
    /// The header has another Keccak-256 digest.
    #[error("the header hashes to {found}, the statement says {expected}")]
    BlockHash {
        /// Block hash of the statement, in hexadecimal.
        expected: String,
        /// Keccak-256 of the header, in hexadecimal.
        found: String,
    },
}

/// Checks a header against the statement without a proof, with the same rules as the program.
///
/// # Errors
///
/// [`HeaderError`] names the first broken rule.
pub fn check_header(statement: &Statement, header_rlp: &[u8]) -> Result<(), HeaderError> {
    if !(MIN_HEADER_BYTES..=MAX_HEADER_BYTES).contains(&header_rlp.len()) {
        return Err(HeaderError::Length(header_rlp.len()));
    }
    let Some((&[list, hi, lo, item], rest)) = header_rlp.split_first_chunk() else {
        return Err(HeaderError::Length(header_rlp.len()));
    };
    let Some((found, _)) = rest.split_first_chunk::<32>() else {
        return Err(HeaderError::Length(header_rlp.len()));
    };
    if list != 0xf9 {
        return Err(HeaderError::NotALongList(list));
    }
    let claimed = usize::from(u16::from_be_bytes([hi, lo]));
    let present = header_rlp.len() - LIST_PREFIX_BYTES;
    if claimed != present {
        return Err(HeaderError::ListLength { claimed, present });
    }
    if item != 0xa0 {
        return Err(HeaderError::NoParentHash(item));
    }
    if *found != statement.parent_hash {
        return Err(HeaderError::ParentHash {
            expected: hex(&statement.parent_hash),
            found: hex(found),
        });
    }
    check_block_hash(statement, header_rlp)
}

fn check_block_hash(statement: &Statement, header_rlp: &[u8]) -> Result<(), HeaderError> {
    let digest = KeccakPreimage::new(header_rlp.to_vec()).digest();
    let digest: &[Felt] = digest.as_ref();
    if words(&statement.block_hash).eq(digest.iter().copied()) {
        return Ok(());
    }
    let found: Vec<u8> = digest
        .iter()
        .flat_map(|word| word.as_canonical_u64().to_le_bytes().into_iter().take(4))
        .collect();
    Err(HeaderError::BlockHash {
        expected: hex(&statement.block_hash),
        found: hex(&found),
    })
}
