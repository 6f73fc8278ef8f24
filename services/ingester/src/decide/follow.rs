//! Following a chain that somebody else grows, and sometimes rewrites.

use super::{Action, History, Link, RANGE};
use push0_domain::{BlockHash, BlockRef};

/// What the node said.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// Its newest block.
    Head(BlockRef),
    /// The block under a number that was asked for.
    Block(Link),
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Ask for these blocks and hand them over in ascending order. After an effect of another kind
    /// than [`Effect::Act`], the rest is not needed.
    Fetch {
        /// The first number.
        first: u64,
        /// The last number, inclusive.
        last: u64,
    },
    /// Publish or cancel.
    Act(Action),
    /// There is no way on until the node says something else.
    Stuck(Stuck),
}

/// Why there is no way on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stuck {
    /// All remembered blocks were replaced.
    #[error(
        "the node's chain differs from what was published at every block from {oldest} to {tip}: expected the same chain with a reorg of less than {} blocks",
        super::DEPTH
    )]
    TooDeep {
        /// The oldest remembered number.
        oldest: u64,
        /// The last published number.
        tip: u64,
    },
    /// The node is so far behind that nothing can be compared.
    #[error(
        "the node's chain ends before block {oldest}, but block {tip} was published: expected the same chain"
    )]
    Behind {
        /// The oldest remembered number.
        oldest: u64,
        /// The last published number.
        tip: u64,
    },
}

/// Where the follower looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looking {
    Forward,
    /// For the last block that both chains have; `replaced` when a published one is known to be gone.
    Back {
        at: u64,
        replaced: bool,
    },
}

/// Follows a chain's head at a distance.
#[derive(Clone, Debug)]
pub struct Follower {
    history: History,
    confirmations: u64,
    looking: Looking,
    head: Option<BlockHash>,
    /// The head whose chain was last seen to hold the tip, or where the node's part of it ends.
    agreed: Option<BlockHash>,
}

impl Follower {
    /// Goes on from a history, whose tip is compared with the chain before anything is added.
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

    /// What was published so far.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Takes one answer of the node.
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
            // No proof yet that the tip is gone: the node may have changed its mind between answers.
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
            // Nothing of ours lies below: the pipeline begins anew with the block that replaces it.
            self.looking = Looking::Forward;
            let cancel = self.history.roll_back(number);
            let again = self.history.append(link);
            return cancel.into_iter().chain(again).map(Effect::Act).collect();
        }
        if oldest == Some(number) {
            // Looked at again from the top, in case the node comes back to the chain that we know.
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
