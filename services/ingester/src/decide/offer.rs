//! Blocks that somebody submits: which ones follow, which replace, which are refused.

use super::{Action, DEPTH, History, Link};
use push0_domain::{BlockHash, BlockRef, PipelineId};

/// A block as it was submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its number.
    pub number: u64,
    /// Its hash, if it was said.
    pub hash: Option<BlockHash>,
    /// Its parent's hash, if it was said.
    pub parent_hash: Option<BlockHash>,
}

/// Why a block is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// It leaves a gap, or lies before the first.
    #[error("block {number} does not follow: expected {expected}")]
    Gap {
        /// Its number.
        number: u64,
        /// The number after the last one.
        expected: u64,
    },
    /// It names another parent.
    #[error("block {number} has the parent {found}: expected {expected}, the hash of block {}", number - 1)]
    Parent {
        /// Its number.
        number: u64,
        /// The parent that it names.
        found: BlockHash,
        /// The parent that it should have.
        expected: BlockHash,
    },
    /// It would replace a block that is no longer remembered.
    #[error("block {number} would replace one more than {DEPTH} blocks back: expected at least {oldest}")]
    TooDeep {
        /// Its number.
        number: u64,
        /// The lowest number that can be replaced.
        oldest: u64,
    },
}

/// The hash of a block that has none: bare numbers form a chain too, the same one on every replay.
pub fn hash_of_number(pipeline: &PipelineId, number: u64) -> BlockHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"push0 block\0");
    hasher.update(pipeline.as_str().as_bytes());
    hasher.update(b"\0");
    hasher.update(&number.to_le_bytes());
    BlockHash(*hasher.finalize().as_bytes())
}

/// What a submitted block leads to; nothing if it is known already, as when a submission whose
/// answer was lost is repeated.
pub fn offer(history: &mut History, pipeline: &PipelineId, offer: &Offer) -> Result<Vec<Action>, Conflict> {
    let number = offer.number;
    let block = BlockRef {
        number,
        hash: offer.hash.unwrap_or_else(|| hash_of_number(pipeline, number)),
    };
    if history.hash_at(number) == Some(block.hash) {
        return Ok(Vec::new());
    }
    if let Some(expected) = history.next()
        && (number > expected || history.first().is_some_and(|first| number < first))
    {
        return Err(Conflict::Gap { number, expected });
    }
    let before = number.checked_sub(1).and_then(|before| history.hash_at(before));
    let is_first = history.first() == Some(number) && history.oldest() == Some(number);
    if before.is_none() && history.tip().is_some() && !is_first {
        let oldest = history.oldest().map_or(number, |oldest| oldest + 1);
        return Err(Conflict::TooDeep { number, oldest });
    }
    if let (Some(expected), Some(found)) = (before, offer.parent_hash)
        && expected != found
    {
        return Err(Conflict::Parent {
            number,
            found,
            expected,
        });
    }
    // Of the first block the parent is whatever the submitter says, and by default the one before it
    // in the chain of bare numbers.
    let parent_hash = before
        .or(offer.parent_hash)
        .unwrap_or_else(|| hash_of_number(pipeline, number.wrapping_sub(1)));
    let cancel = if history.next().is_some_and(|next| number < next) {
        history.roll_back(number)
    } else {
        None
    };
    let publish = history.append(Link { block, parent_hash });
    Ok(cancel.into_iter().chain(publish).collect())
}
