//! Whether the ingester may accept the node's chain from a block on, as an operator asked.
//!
//! The output stays a chain: the first block of the new branch must stand on a published block, or replace the
//! pipeline's first block, or begin below it.

use super::Link;
use push0_domain::{BlockHash, BlockRef};

/// The published blocks around a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// Number of the pipeline's first block; `None` if the pipeline has not begun.
    pub first: Option<u64>,
    /// The number after the last published block; `None` if nothing was published.
    pub next: Option<u64>,
    /// The hash published under the number before `from`; `None` if there is none or it is not known any more.
    pub parent: Option<BlockHash>,
}

/// The accepted reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The last published block that stays; `None` if none does.
    pub back_to: Option<BlockRef>,
    /// The published numbers that are replaced, both inclusive; `None` if there are none.
    pub replaced: Option<(u64, u64)>,
}

/// Reasons for refusing a reset, each with the way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The blocks between the last published one and this one would be left out.
    #[error("block {from} leaves a gap: expected at most {next}, the number after the last ingested block")]
    Gap {
        /// The number asked for.
        from: u64,
        /// The number after the last published block.
        next: u64,
    },
    /// The node's block does not stand on the published one before it.
    #[error(
        "the node's block {from} does not follow the ingested block {}: expected a lower number, or {first}, the first block of the pipeline",
        from - 1
    )]
    Parent {
        /// The number asked for.
        from: u64,
        /// The first number of the pipeline.
        first: u64,
    },
    /// The block published before this number is not known any more.
    #[error(
        "the ingested block {} is not known any more: expected a later number, or {first}, the first block of the pipeline",
        from - 1
    )]
    Forgotten {
        /// The number asked for.
        from: u64,
        /// The first number of the pipeline.
        first: u64,
    },
}

/// Decides whether a number can be reset to at all, before the node is asked for its block.
pub fn within(next: Option<u64>, from: u64) -> Result<(), Refused> {
    match next {
        Some(next) if from > next => Err(Refused::Gap { from, next }),
        _ => Ok(()),
    }
}

/// Decides on a reset. `link` is the node's block of the number asked for.
pub fn judge(published: &Published, link: &Link) -> Result<Accepted, Refused> {
    let from = link.block.number;
    let Some((first, next)) = published.first.zip(published.next) else {
        return Ok(Accepted {
            back_to: None,
            replaced: None,
        });
    };
    within(Some(next), from)?;
    let replaced = (from < next).then_some((from, next - 1));
    if from <= first {
        return Ok(Accepted {
            back_to: None,
            replaced,
        });
    }
    match published.parent {
        None => Err(Refused::Forgotten { from, first }),
        Some(parent) if parent != link.parent_hash => Err(Refused::Parent { from, first }),
        Some(hash) => Ok(Accepted {
            back_to: Some(BlockRef {
                number: from - 1,
                hash,
            }),
            replaced,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(number: u64, parent: u8) -> Link {
        Link {
            block: BlockRef {
                number,
                hash: BlockHash([9; 32]),
            },
            parent_hash: BlockHash([parent; 32]),
        }
    }

    fn published(parent: Option<u8>) -> Published {
        Published {
            first: Some(10),
            next: Some(21),
            parent: parent.map(|tag| BlockHash([tag; 32])),
        }
    }

    #[test]
    fn the_new_branch_stands_on_a_published_block() {
        let back_to = Some(BlockRef {
            number: 14,
            hash: BlockHash([7; 32]),
        });
        let replaced = Some((15, 20));
        assert_eq!(
            judge(&published(Some(7)), &link(15, 7)),
            Ok(Accepted { back_to, replaced })
        );
        let refused = Refused::Parent { from: 15, first: 10 };
        assert_eq!(judge(&published(Some(7)), &link(15, 8)), Err(refused));
        let refused = Refused::Forgotten { from: 15, first: 10 };
        assert_eq!(judge(&published(None), &link(15, 7)), Err(refused));
    }

    #[test]
    fn another_chain_replaces_everything_from_the_first_block_or_below() {
        for from in [0, 9, 10] {
            let replaced = Some((from, 20));
            let accepted = judge(&published(None), &link(from, 1));
            assert_eq!(
                accepted,
                Ok(Accepted {
                    back_to: None,
                    replaced
                })
            );
        }
    }

    #[test]
    fn no_block_is_left_out() {
        let accepted = judge(&published(Some(7)), &link(21, 7)).expect("the next block");
        assert_eq!(accepted.replaced, None);
        let refused = Refused::Gap { from: 22, next: 21 };
        assert_eq!(judge(&published(Some(7)), &link(22, 7)), Err(refused));
        let nothing = Published {
            first: None,
            next: None,
            parent: None,
        };
        assert!(judge(&nothing, &link(5000, 1)).is_ok());
    }
}
