//! Following an external chain, which grows and is sometimes rewritten.
//!
//! A published block counts as replaced only after two looks at the node that agree. Between the looks lies a
//! pause, because a load balancer may answer one look from a node that lags behind or is on a branch of its own. The
//! blocks cancelled are exactly those above the last common block.

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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// All remembered blocks were replaced.
    TooDeep {
        /// Number of the oldest remembered block.
        oldest: u64,
        /// Number of the last published block.
        tip: u64,
    },
    /// The node is so far behind that no remembered block can be compared.
    Behind {
        /// Number of the node's last confirmed block.
        target: u64,
        /// Number of the last published block.
        tip: u64,
    },
    /// The node's block of this number does not follow the block that the node has before it.
    Contradiction {
        /// Number of the block.
        number: u64,
    },
}

/// State of the comparison with the node's chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Looking {
    Forward,
    /// Back to the last block common to both chains.
    Back(Search),
    /// A look found that the chain carries this block in the place of a published one, on top of a block that it
    /// has in common with the published chain, or in the place of the oldest remembered block. The next look must
    /// find the same.
    Doubt(Link),
}

/// Search for the last common block, between a block found equal and a block found different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Search {
    /// The number asked for last.
    asked: u64,
    /// The highest number found equal.
    same: Option<u64>,
    /// The lowest block found different, as the node has it.
    different: Option<Link>,
    /// How far back the next question goes while no block was found equal.
    step: u64,
}

/// Follower of a chain's head, at a distance of `confirmations` blocks.
#[derive(Clone, Debug)]
pub struct Follower {
    history: History,
    confirmations: u64,
    looking: Looking,
    head: Option<BlockHash>,
    /// Number of the node's last confirmed block.
    target: u64,
    /// Whether the look before found the node too far behind to compare anything.
    was_behind: bool,
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
            target: 0,
            was_behind: false,
            agreed: None,
        }
    }

    /// Returns the history of published blocks.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Returns whether the node's chain is followed, as far as looks so far tell.
    pub fn is_settled(&self) -> bool {
        matches!(self.looking, Looking::Forward) && !self.was_behind
    }

    /// Returns whether the node's chain seems to have replaced a block, and another look must confirm it. That look
    /// comes after a pause.
    pub fn is_in_doubt(&self) -> bool {
        matches!(self.looking, Looking::Doubt(_))
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
        self.target = target;
        let Some((oldest, tip)) = self.history.oldest().zip(self.history.tip()) else {
            let first = self.history.first().unwrap_or(target);
            return forward(first, target);
        };
        if target < oldest {
            // One of several nodes behind a load balancer may lag; the next look may meet another one.
            let persists = std::mem::replace(&mut self.was_behind, true);
            let tip = tip.number;
            return persists.then_some(Effect::Stuck(Stuck::Behind { target, tip }));
        }
        self.was_behind = false;
        match self.looking {
            Looking::Back(search) => self.search(search).pop(),
            Looking::Doubt(seen) => {
                let at = seen.block.number;
                (at <= target).then_some(Effect::Fetch { first: at, last: at })
            }
            Looking::Forward if target > tip.number => forward(tip.number + 1, target),
            Looking::Forward if self.agreed == self.head => None,
            Looking::Forward if self.confirmations == 0 && self.history.hash_at(target) == self.head => {
                self.agreed = self.head;
                None
            }
            Looking::Forward => self.search(Search::at(target)).pop(),
        }
    }

    fn block(&mut self, link: Link) -> Vec<Effect> {
        let number = link.block.number;
        match self.looking {
            Looking::Forward if self.history.next().is_none_or(|next| next == number) => self.next(link),
            Looking::Doubt(seen) if seen.block.number == number => self.confirm(link, seen),
            Looking::Back(search) if search.asked == number => self.compare(link, search),
            _ => Vec::new(),
        }
    }

    fn next(&mut self, link: Link) -> Vec<Effect> {
        if let Some(tip) = self.history.tip()
            && tip.hash != link.parent_hash
        {
            // The tip is not proved to be gone: the node may have switched chains between two answers.
            return self.search(Search::at(tip.number));
        }
        self.history.append(link).into_iter().map(Effect::Act).collect()
    }

    fn compare(&mut self, link: Link, mut search: Search) -> Vec<Effect> {
        let number = link.block.number;
        match self.history.hash_at(number) {
            None => return Vec::new(),
            Some(hash) if hash == link.block.hash => search.same = search.same.max(Some(number)),
            Some(_) => search.different = Some(link),
        }
        match search.different {
            None => {
                self.agreed = self.head;
                self.looking = Looking::Forward;
                Vec::new()
            }
            Some(link) if self.history.carries(&link) || self.is_oldest(&link) => {
                self.looking = Looking::Doubt(link);
                Vec::new()
            }
            Some(_) => self.search(search),
        }
    }

    /// Asks the next question of a search, unless the node's chain is too short for it at the moment.
    fn search(&mut self, mut search: Search) -> Vec<Effect> {
        let (Some(oldest), Some(tip)) = (self.history.oldest(), self.history.tip()) else {
            return Vec::new();
        };
        let asked = match (search.different.map(|link| link.block.number), search.same) {
            (None, _) => tip.number,
            (Some(different), None) => {
                let back = different.saturating_sub(search.step).max(oldest);
                search.step = search.step.saturating_mul(2);
                back
            }
            (Some(different), Some(same)) => same + (different - same) / 2,
        };
        search.asked = asked.min(self.target);
        if search.same.is_some_and(|same| search.asked <= same) {
            if search.different.map(|link| link.block.number) <= search.same.map(|same| same + 1) {
                // The chain changed between two answers, or the node makes no sense. The next look begins anew.
                let number = search.asked + 1;
                self.looking = start(&self.history);
                return vec![Effect::Stuck(Stuck::Contradiction { number })];
            }
            // The node lags. Nothing that was found is given up.
            self.looking = Looking::Back(search);
            return Vec::new();
        }
        self.looking = Looking::Back(search);
        vec![Effect::Fetch {
            first: search.asked,
            last: search.asked,
        }]
    }

    /// Acts on a replacement that a second look found as well.
    fn confirm(&mut self, link: Link, seen: Link) -> Vec<Effect> {
        let number = link.block.number;
        if link != seen {
            self.looking = start(&self.history);
            return Vec::new();
        }
        if !self.history.carries(&link) {
            // Every further look asks for this block again, in case the node returns to the published chain.
            let tip = self.history.tip().map_or(number, |tip| tip.number);
            return vec![Effect::Stuck(Stuck::TooDeep { oldest: number, tip })];
        }
        self.looking = Looking::Forward;
        let cancel = self.history.roll_back(number);
        let again = self.history.append(link);
        cancel.into_iter().chain(again).map(Effect::Act).collect()
    }

    fn is_oldest(&self, link: &Link) -> bool {
        self.history.oldest() == Some(link.block.number)
    }
}

impl Search {
    fn at(number: u64) -> Self {
        Self {
            asked: number,
            same: None,
            different: None,
            step: 1,
        }
    }
}

fn start(history: &History) -> Looking {
    history
        .tip()
        .map_or(Looking::Forward, |tip| Looking::Back(Search::at(tip.number)))
}

fn forward(first: u64, target: u64) -> Option<Effect> {
    let last = target.min(first.saturating_add(RANGE - 1));
    (first <= target).then_some(Effect::Fetch { first, last })
}
