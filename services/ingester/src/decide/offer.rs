//! Rules for submitted blocks: which ones follow, which replace others, which are refused.

use super::{Action, DEPTH, History, Link};
use push0_domain::{BlockHash, BlockRef, PipelineId};

/// A block as submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Number of the block.
    pub number: u64,
    /// Hash of the block, if given.
    pub hash: Option<BlockHash>,
    /// Hash of the parent, if given.
    pub parent_hash: Option<BlockHash>,
}

/// Reasons for refusing a block.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The block leaves a gap, or lies before the pipeline's first block.
    #[error("block {number} does not follow: expected {expected}")]
    Gap {
        /// Number of the refused block.
        number: u64,
        /// The number after the last published block.
        expected: u64,
    },
    /// The block names another parent than the published one.
    #[error("block {number} has the parent {found}: expected {expected}, the hash of block {}", number - 1)]
    Parent {
        /// Number of the refused block.
        number: u64,
        /// Hash of the parent given in the submission.
        found: BlockHash,
        /// Hash of the published parent.
        expected: BlockHash,
    },
    /// The parent of the block to replace is no longer remembered.
    #[error(
        "block {number} is too far back, only the last {DEPTH} blocks are remembered: expected a number of at least {oldest}"
    )]
    TooDeep {
        /// Number of the refused block.
        number: u64,
        /// Lowest number of a block open to replacement.
        oldest: u64,
    },
}

/// Returns the hash of a block submitted without one. Bare numbers thus form a chain too, the same chain
/// on every replay.
pub fn hash_of_number(pipeline: &PipelineId, number: u64) -> BlockHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"push0 block\0");
    hasher.update(pipeline.as_str().as_bytes());
    hasher.update(b"\0");
    hasher.update(&number.to_le_bytes());
    BlockHash(*hasher.finalize().as_bytes())
}

/// Returns how many blocks at the beginning of a submission were published too long ago to be remembered one by one. A
/// submission without an answer is sent again as a whole, and may be longer than the memory. Its blocks are known if their numbers
/// go on to the oldest remembered block, whose hash stands for the blocks before.
pub fn known_before(history: &History, pipeline: &PipelineId, offers: &[Offer]) -> usize {
    let Some(oldest) = history.oldest() else {
        return 0;
    };
    let Some(position) = offers.iter().position(|offer| offer.number == oldest) else {
        return 0;
    };
    let hash_of = |offer: &Offer| {
        offer
            .hash
            .unwrap_or_else(|| hash_of_number(pipeline, offer.number))
    };
    let follows = |pair: &[Offer]| {
        let is_child = pair[1]
            .parent_hash
            .is_none_or(|parent| parent == hash_of(&pair[0]));
        pair[0].number.checked_add(1) == Some(pair[1].number) && is_child
    };
    let is_of_pipeline = history.first().is_none_or(|first| first <= offers[0].number);
    let is_known = history.hash_at(oldest) == Some(hash_of(&offers[position]));
    if is_known && is_of_pipeline && offers[..=position].windows(2).all(follows) {
        position
    } else {
        0
    }
}

/// Adds a submitted block to the history and returns the resulting actions. A known block leads to no
/// action, for example when a submission is repeated because its answer was lost.
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
    // The parent of the first block is the one named by the submitter, by default the block before in the
    // chain of bare numbers.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_submission_that_reaches_the_remembered_blocks_may_be_sent_again() {
        let pipeline: PipelineId = "demo".parse().expect("a name");
        let bare = |number| Offer {
            number,
            hash: None,
            parent_hash: None,
        };
        let mut history = History::default();
        for number in 5..205 {
            offer(&mut history, &pipeline, &bare(number)).expect("it follows");
        }
        let oldest = history.oldest().expect("blocks");
        assert!(oldest > 100, "the first blocks are forgotten: {oldest}");
        let known = |offers: &[Offer]| known_before(&history, &pipeline, offers);
        let again: Vec<Offer> = (10..300).map(bare).collect();
        assert_eq!(known(&again) as u64, oldest - 10);
        let short: Vec<Offer> = (10..oldest).map(bare).collect();
        assert_eq!(known(&short), 0, "none of them is remembered");
        let early: Vec<Offer> = (4..300).map(bare).collect();
        assert_eq!(known(&early), 0, "block 4 was never taken");
        let position = usize::try_from(oldest - 10).expect("a small number");
        let other = Some(BlockHash([7; 32]));
        let changed = |at: usize, change: fn(&mut Offer, Option<BlockHash>)| {
            let mut offers = again.clone();
            change(&mut offers[at], other);
            known(&offers)
        };
        assert_eq!(
            changed(position, |offer, hash| offer.hash = hash),
            0,
            "another chain"
        );
        assert_eq!(changed(3, |offer, hash| offer.parent_hash = hash), 0, "no chain");
        assert_eq!(changed(3, |offer, _| offer.number = 99), 0, "a gap");
    }
}
