//! A chain and its ingester: blocks, reorgs, reorgs of reorgs, and an operator who cancels blocks.

use crate::{
    broker::{Body, Stream},
    chance::{Chance, mix},
    plan::Lane,
    world::{Event, MS, Reply, World},
};
use push0_domain::{
    Announcement, BlockHash, BlockRef,
    message::{BlockEvent, BlockFacts, Cancel, Dead, DeadLetter, EndReason, KnownBlock, ObservedBlock},
};
use std::{collections::VecDeque, rc::Rc};

/// A block and its parent's hash.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Link {
    pub(crate) block: BlockRef,
    parent_hash: BlockHash,
}

#[derive(Clone, Debug)]
enum Word {
    Block(Link),
    Cancel(Vec<Link>),
    /// A cancel by an operator: first and last number, and whether the cancel names hashes.
    Operator(u64, u64, bool),
}

/// The chain of one pipeline.
#[derive(Debug)]
pub(crate) struct Chain {
    pub(crate) canonical: Vec<Link>,
    replaced: Vec<Link>,
    words: VecDeque<Word>,
    first: u64,
    blocks: u64,
    turns: u64,
    salt: u64,
}

impl Chain {
    pub(crate) fn new(lane: &Lane, chance: &mut Chance) -> Self {
        Self {
            canonical: Vec::new(),
            replaced: Vec::new(),
            words: VecDeque::new(),
            first: lane.first,
            blocks: lane.blocks,
            turns: lane.blocks * 2,
            salt: chance.next(),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.words.is_empty() && self.canonical.len() as u64 >= self.blocks
    }

    pub(crate) fn tip(&self) -> Option<BlockRef> {
        self.canonical.last().map(|link| link.block)
    }

    fn child(&mut self) -> Link {
        self.salt = mix(self.salt);
        let mut hash = [0; 32];
        hash[..8].copy_from_slice(&self.salt.to_le_bytes());
        let block = BlockRef {
            number: self.first + self.canonical.len() as u64,
            hash: BlockHash(hash),
        };
        let parent_hash = self.tip().map_or(BlockHash::default(), |tip| tip.hash);
        Link { block, parent_hash }
    }

    fn grow(&mut self, link: Link) {
        self.canonical.push(link);
        self.words.push_back(Word::Block(link));
    }

    /// Replaces the last blocks by new ones, or by the blocks that they had replaced.
    fn reorg(&mut self, depth: usize, back: bool) {
        let keep = self.canonical.len().saturating_sub(depth);
        let replaced = self.canonical.split_off(keep);
        self.words.push_back(Word::Cancel(replaced.clone()));
        let tip = self.tip().map_or(BlockHash::default(), |tip| tip.hash);
        let old = std::mem::take(&mut self.replaced);
        let fits = old.first().is_some_and(|link| {
            link.parent_hash == tip && link.block.number == self.first + self.canonical.len() as u64
        });
        if back && fits {
            old.into_iter().for_each(|link| self.grow(link));
        }
        while self.canonical.len() < keep + replaced.len() {
            let link = self.child();
            self.grow(link);
        }
        self.replaced = replaced;
    }
}

impl World {
    /// Draws the chain's next move, then publishes the next message of its ingester.
    pub(crate) fn chain_moves(&mut self, lane: usize) {
        let faults = self.plan.faults;
        let chain = &mut self.chains[lane];
        if chain.words.is_empty() {
            let turns = chain.turns;
            chain.turns = turns.saturating_sub(1);
            let count = chain.canonical.len();
            if turns > 0 && count > 0 && self.chance.hit(faults.reorgs) {
                let depth = self.chance.between(1, 3.min(count as u64)) as usize;
                let back = self.chance.hit(faults.flips);
                chain.reorg(depth, back);
            } else if turns > 0 && count > 0 && self.chance.hit(faults.cancels) {
                let first = chain.first + self.chance.below(count) as u64;
                let last = first + self.chance.between(0, 2);
                chain
                    .words
                    .push_back(Word::Operator(first, last, self.chance.hit(500)));
            } else if (count as u64) < chain.blocks {
                let link = chain.child();
                chain.grow(link);
            }
        }
        if let Some(word) = self.chains[lane].words.pop_front() {
            self.say(lane, word);
        }
        if !self.chains[lane].is_over() {
            let wait = if self.chance.hit(300) {
                self.chance.between(60, 3 * MS)
            } else {
                self.chance.between(5 * MS, 500 * MS)
            };
            self.after(wait, Event::Chain(lane));
        }
    }

    /// Retries some dead tasks like an operator. A retry can only succeed for a task that needs no other part
    /// of its block, because all other proofs of the block are gone with its record.
    pub(crate) fn operator_reads(&mut self, letter: &DeadLetter) {
        let Dead::Task { retry, .. } = &letter.what else {
            return;
        };
        let lane = self.lane_of(&retry.stage.pipeline);
        let alone = retry.tasks.of == 1 && self.plan.lanes[lane].pipeline.quorum == 1;
        if alone && self.chance.hit(self.plan.faults.retries) {
            let wait = self.chance.between(MS, 3000 * MS);
            let again = Rc::new(Body::Stage(retry.clone()));
            self.after(wait, Event::Arrive(again, Reply::Nobody));
            self.after(wait + 1, Event::DropLetter(letter.id.clone()));
        }
    }

    fn say(&mut self, lane: usize, word: Word) {
        let pipeline = self.plan.lanes[lane].pipeline.clone();
        let event = match word {
            Word::Block(Link { block, parent_hash }) => {
                let known = KnownBlock {
                    block,
                    parent_hash,
                    revision: pipeline.revision,
                    observed_at: self.now,
                    announced_after: Announcement(self.broker.queue(Stream::Blocks).newest()),
                    input: None,
                    facts: BlockFacts::default(),
                };
                self.broker.known[lane].insert((block.number, block.hash), known);
                BlockEvent::Observed(ObservedBlock {
                    pipeline: pipeline.name.clone(),
                    revision: pipeline.revision,
                    block,
                    parent_hash,
                    input: crate::proofs::payload(crate::proofs::witness(&block)),
                    observed_at: self.now,
                    deadline_at: pipeline.deadline_at(self.now),
                    facts: BlockFacts::default(),
                })
            }
            Word::Cancel(replaced) => BlockEvent::Cancelled(Cancel {
                pipeline: pipeline.name.clone(),
                first: replaced.first().map_or(0, |link| link.block.number),
                last: replaced.last().map_or(0, |link| link.block.number),
                hashes: replaced.iter().map(|link| link.block.hash).collect(),
                reason: EndReason::Reorged,
            }),
            Word::Operator(first, last, names) => {
                let named = self.chains[lane].canonical.iter().map(|link| link.block);
                let named = named.filter(|block| names && (first..=last).contains(&block.number));
                BlockEvent::Cancelled(Cancel {
                    pipeline: pipeline.name.clone(),
                    first,
                    last,
                    hashes: named.map(|block| block.hash).collect(),
                    reason: EndReason::Cancelled {
                        note: "by lot".into(),
                    },
                })
            }
        };
        let body = Rc::new(Body::Block(event));
        // The ingester waits for each answer, so a repeated message arrives directly behind the first.
        let repeats = self.chance.hit(self.plan.faults.repeated);
        self.after(0, Event::Arrive(body.clone(), Reply::Nobody));
        if repeats {
            self.after(1, Event::Arrive(body, Reply::Nobody));
        }
    }
}
