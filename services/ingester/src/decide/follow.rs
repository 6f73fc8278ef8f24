//! Following an external chain, which grows and is sometimes rewritten.

use super::{Action, History, Link, RANGE};
use push0_domain::{BlockHash, BlockRef};

/// An answer of the node.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// The newest block of the node.
    Head(BlockRef),
    /// The block under a requested number.
    Block(Link),
}

/// A reaction to an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Request these blocks and pass them to [`Follower::step`] in ascending order. After an effect other
    /// than [`Effect::Act`], the remaining blocks are not needed.
    Fetch {
        /// First number of the range.
        first: u64,
        /// Last number of the range, inclusive.
        last: u64,
    },
    /// Publish or cancel blocks.
    Act(Action),
    /// The follower cannot continue until the node's answers change.
    Stuck(Stuck),
}

/// Reasons why the follower cannot continue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stuck {
    /// All remembered blocks were replaced.
    #[error(
        "the node's chain has none of the published blocks from {oldest} to {tip}: expected the same chain with a reorg of fewer than {} blocks",
        super::DEPTH
    )]
    TooDeep {
        /// Number of the oldest remembered block.
        oldest: u64,
        /// Number of the last published block.
        tip: u64,
    },
    /// The node is so far behind that no remembered block can be compared.
    #[error(
        "the node's chain ends before block {oldest}, but blocks up to {tip} were published: expected the same chain"
    )]
    Behind {
        /// Number of the oldest remembered block.
        oldest: u64,
        /// Number of the last published block.
        tip: u64,
    },
}

/// Direction of the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looking {
    Forward,
    /// Back to the last block common to both chains. `replaced` is set once a published block is known
    /// to be gone.
    Back {
        at: u64,
        replaced: bool,
    },
}

/// Follower of a chain's head, at a distance of `confirmations` blocks.
#[derive(Clone, Debug)]
pub struct Follower {
    history: History,
    confirmations: u64,
    looking: Looking,
    head: Option<BlockHash>,
    /// The head at which the node's chain was last found to agree with the published one: at the
    /// published tip, or at the end of the node's confirmed blocks if the node is behind.
    agreed: Option<BlockHash>,
}

impl Follower {
    /// Continues from a history. The tip is compared with the chain before any block is added.
    pub fn new(history: History, confirmations: u64) -> Self {
        let looking = start(&history);
        Self {
            history,
            confirmations,
            looking,
            head: None,
            agreed: None,
        }
    }

    /// Returns the history of published blocks.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Processes one answer of the node.
    pub fn step(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::Head(head) => self.head(head).into_iter().collect(),
            Event::Block(link) => self.block(link),
        }
    }

    fn head(&mut self, head: BlockRef) -> Option<Effect> {
        self.head = Some(head.hash);
        let target = head.number.checked_sub(self.confirmations)?;
        let Some((oldest, tip)) = self.history.oldest().zip(self.history.tip()) else {
            let first = self.history.first().unwrap_or(target);
            return forward(first, target);
        };
        if target < oldest {
            let tip = tip.number;
            return Some(Effect::Stuck(Stuck::Behind { oldest, tip }));
        }
        match self.looking {
            Looking::Back { at, replaced } => {
                let at = at.min(target);
                self.looking = Looking::Back { at, replaced };
                Some(Effect::Fetch { first: at, last: at })
            }
            Looking::Forward if target > tip.number => forward(tip.number + 1, target),
            Looking::Forward if self.agreed == self.head => None,
            Looking::Forward if self.confirmations == 0 && self.history.hash_at(target) == self.head => {
                self.agreed = self.head;
                None
            }
            Looking::Forward => Some(Effect::Fetch {
                first: target,
                last: target,
            }),
        }
    }

    fn block(&mut self, link: Link) -> Vec<Effect> {
        let number = link.block.number;
        match self.looking {
            Looking::Back { at, .. } if at != number => return Vec::new(),
            Looking::Back { .. } => {}
            Looking::Forward if self.history.next().is_none_or(|next| next == number) => {
                return self.next(link);
            }
            Looking::Forward => {}
        }
        match self.history.hash_at(number) {
            None => Vec::new(),
            Some(hash) if hash == link.block.hash => self.same(number),
            Some(_) => self.different(link),
        }
    }

    fn next(&mut self, link: Link) -> Vec<Effect> {
        if let Some(tip) = self.history.tip()
            && tip.hash != link.parent_hash
        {
            // The tip is not proved to be gone: the node may have switched chains between two answers.
            self.looking = Looking::Back {
                at: tip.number,
                replaced: false,
            };
            return vec![Effect::Fetch {
                first: tip.number,
                last: tip.number,
            }];
        }
        self.history.append(link).into_iter().map(Effect::Act).collect()
    }

    fn same(&mut self, number: u64) -> Vec<Effect> {
        self.agreed = self.head;
        let was = std::mem::replace(&mut self.looking, Looking::Forward);
        if matches!(was, Looking::Back { replaced: true, .. }) {
            self.history
                .roll_back(number + 1)
                .map(Effect::Act)
                .into_iter()
                .collect()
        } else {
            Vec::new()
        }
    }

    fn different(&mut self, link: Link) -> Vec<Effect> {
        let number = link.block.number;
        let (oldest, tip) = (self.history.oldest(), self.history.tip());
        if self.history.first() == Some(number) {
            // No published block lies below, so the pipeline begins again with the replacement.
            self.looking = Looking::Forward;
            let cancel = self.history.roll_back(number);
            let again = self.history.append(link);
            return cancel.into_iter().chain(again).map(Effect::Act).collect();
        }
        if oldest == Some(number) {
            // The search begins again at the tip, in case the node returns to the published chain.
            self.looking = start(&self.history);
            let tip = tip.map_or(number, |tip| tip.number);
            return vec![Effect::Stuck(Stuck::TooDeep { oldest: number, tip })];
        }
        self.looking = Looking::Back {
            at: number - 1,
            replaced: true,
        };
        vec![Effect::Fetch {
            first: number - 1,
            last: number - 1,
        }]
    }
}

fn start(history: &History) -> Looking {
    history.tip().map_or(Looking::Forward, |tip| Looking::Back {
        at: tip.number,
        replaced: false,
    })
}

fn forward(first: u64, target: u64) -> Option<Effect> {
    let last = target.min(first.saturating_add(RANGE - 1));
    (first <= target).then_some(Effect::Fetch { first, last })
}
