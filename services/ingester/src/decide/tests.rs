use super::ancestor::{AncestorSearch, Compared};
use super::follow::{Effect, Event, Follower, Stuck};
use super::offer::{Conflict, Offer, hash_of_number, offer};
use super::{Action, DEPTH, History, Link, RANGE};
use proptest::prelude::*;
use push0_domain::{BlockHash, BlockRef, PipelineId};
use std::collections::BTreeMap;

/// A chain for tests to grow and rewrite; block 0 is its genesis.
#[derive(Clone)]
struct Chain {
    blocks: Vec<BlockRef>,
    made: u64,
}

impl Chain {
    fn new() -> Self {
        let mut chain = Self {
            blocks: Vec::new(),
            made: 0,
        };
        chain.grow(1);
        chain
    }

    fn grow(&mut self, count: u64) {
        for _ in 0..count {
            self.made += 1;
            let number = self.blocks.len() as u64;
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&self.made.to_be_bytes());
            self.blocks.push(BlockRef {
                number,
                hash: BlockHash(hash),
            });
        }
    }

    /// Replaces the last `depth` blocks by `count` others.
    fn reorg(&mut self, depth: usize, count: u64) {
        self.blocks
            .truncate((self.blocks.len() - depth.min(self.blocks.len() - 1)).max(1));
        self.grow(count);
    }

    fn head(&self) -> BlockRef {
        *self.blocks.last().expect("a genesis")
    }

    fn link(&self, number: u64) -> Option<Link> {
        let block = *self.blocks.get(usize::try_from(number).ok()?)?;
        let parent = number
            .checked_sub(1)
            .map(|before| self.blocks[before as usize].hash);
        Some(Link {
            block,
            parent_hash: parent.unwrap_or_default(),
        })
    }
}

/// Result of the actions: the blocks still wanted, and the state that a restarted process would find.
#[derive(Default)]
struct Downstream {
    wanted: BTreeMap<u64, BlockHash>,
    first: Option<u64>,
    stored: Vec<BlockRef>,
    ahead: Vec<BlockRef>,
}

impl Downstream {
    /// Carries out actions as the publisher does. A crash stops before the action `crash`. Returns
    /// whether all actions were carried out.
    fn carry_out(&mut self, actions: &[Action], crash: Option<usize>) -> bool {
        let publishes = |a: &Action| match a {
            Action::Publish(link) => Some(link.block),
            Action::Cancel { .. } => None,
        };
        for (at, action) in actions.iter().enumerate() {
            let starts = at == 0 || publishes(&actions[at - 1]).is_none();
            if publishes(action).is_some() && starts {
                let run: Vec<BlockRef> = actions[at..].iter().map_while(publishes).collect();
                let last = run[run.len() - 1].number;
                let in_doubt = self.ahead.iter().filter(|block| block.number > last).copied();
                self.ahead = run.iter().copied().chain(in_doubt).collect();
                self.first = self.first.or(self.ahead.first().map(|block| block.number));
            }
            if crash == Some(at) {
                return false;
            }
            match action {
                Action::Publish(link) => self.publish(link),
                Action::Cancel { replaced, back_to } => {
                    for block in replaced {
                        // Blocks in doubt, which may never have been published, are cancelled as well.
                        if self.wanted.get(&block.number) == Some(&block.hash) {
                            self.wanted.remove(&block.number);
                        }
                    }
                    self.stored
                        .retain(|block| back_to.is_some_and(|back_to| block.number <= back_to.number));
                    self.ahead.clear();
                }
            }
            let ends = actions.get(at + 1).is_none_or(|next| publishes(next).is_none());
            if publishes(action).is_some() && ends {
                let last = publishes(action).map(|block| block.number);
                let (run, in_doubt) = self.ahead.iter().partition(|block| Some(block.number) <= last);
                self.ahead = in_doubt;
                self.stored.extend::<Vec<BlockRef>>(run);
            }
        }
        true
    }

    fn publish(&mut self, link: &Link) {
        let BlockRef { number, hash } = link.block;
        let there = self.wanted.insert(number, hash);
        assert!(
            there.is_none_or(|there| there == hash),
            "{number} replaces a block that was not cancelled"
        );
        if Some(number) != self.first {
            let parent = self.wanted.get(&(number - 1));
            assert_eq!(
                parent,
                Some(&link.parent_hash),
                "{number} is not the child of what was published"
            );
        }
    }

    fn history(&self) -> History {
        let skip = self.stored.len().saturating_sub(DEPTH);
        History::resumed(
            DEPTH,
            self.first,
            self.stored[skip..].to_vec(),
            self.ahead.clone(),
        )
    }
}

/// Looks at the node once, as the service does. The chain may change between two answers.
fn look(
    follower: &mut Follower,
    chain: &mut Chain,
    changes: &mut Vec<Change>,
) -> (Vec<Action>, Option<Stuck>) {
    let mut actions = Vec::new();
    let mut todo: Vec<Effect> = follower.step(Event::Head(chain.head()));
    while let Some(effect) = todo.pop() {
        let Effect::Fetch { first, last } = effect else {
            let Effect::Stuck(stuck) = effect else {
                unreachable!("acts are taken out below")
            };
            return (actions, Some(stuck));
        };
        assert!(last - first < RANGE);
        for number in first..=last {
            if let Some(change) = changes.pop() {
                change.apply(chain);
            }
            let Some(link) = chain.link(number) else { break };
            let mut other = Vec::new();
            for effect in follower.step(Event::Block(link)) {
                match effect {
                    Effect::Act(action) => actions.push(action),
                    effect => other.push(effect),
                }
            }
            if !other.is_empty() {
                todo = other;
                break;
            }
        }
    }
    (actions, None)
}

#[derive(Clone, Copy, Debug)]
enum Change {
    Grow(u64),
    Reorg(usize, u64),
    Nothing,
}

impl Change {
    fn apply(self, chain: &mut Chain) {
        match self {
            Self::Grow(count) => chain.grow(count),
            Self::Reorg(depth, count) => chain.reorg(depth, count),
            Self::Nothing => {}
        }
    }
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (0..50u64).prop_map(Change::Grow),
        2 => (1..12usize, 0..14u64).prop_map(|(depth, count)| Change::Reorg(depth, count)),
        2 => Just(Change::Nothing),
    ]
}

/// Generates a change before a look, changes during it, and the action before which the process crashes.
fn round() -> impl Strategy<Value = (Change, Vec<Change>, Option<usize>)> {
    let during = prop::collection::vec(change(), 0..4);
    (change(), during, prop::option::weighted(0.2, 0..40usize))
}

proptest! {
    #[test]
    fn every_canonical_block_is_published_in_order_and_every_replaced_one_cancelled(
        rounds in prop::collection::vec(round(), 1..25),
        confirmations in 0..4u64,
        start in prop::option::of(0..20u64),
    ) {
        let mut chain = Chain::new();
        let mut downstream = Downstream { first: start, ..Downstream::default() };
        let mut follower = Follower::new(downstream.history(), confirmations);
        for (before, mut during, crash) in rounds {
            before.apply(&mut chain);
            let (actions, stuck) = look(&mut follower, &mut chain, &mut during);
            prop_assert!(matches!(stuck, None | Some(Stuck::Behind { .. })), "{:?}", stuck);
            if !downstream.carry_out(&actions, crash) || crash.is_some() {
                follower = Follower::new(downstream.history(), confirmations);
            }
        }
        // The chain grows past its old length, and the follower looks until nothing new appears.
        chain.grow(60);
        for _ in 0..chain.blocks.len() / RANGE as usize + 10 {
            let (actions, stuck) = look(&mut follower, &mut chain, &mut Vec::new());
            prop_assert_eq!(stuck, None);
            downstream.carry_out(&actions, None);
        }
        let first = downstream.first.expect("something was published");
        let target = chain.head().number - confirmations;
        let canonical: BTreeMap<u64, BlockHash> =
            chain.blocks.iter().filter(|b| (first..=target).contains(&b.number)).map(|b| (b.number, b.hash)).collect();
        prop_assert_eq!(&downstream.wanted, &canonical);
        // With nothing new, a look requests only the head.
        let quiet = follower.step(Event::Head(chain.head()));
        prop_assert!(quiet.is_empty() || confirmations > 0, "{:?}", quiet);
    }

    #[test]
    fn whatever_is_submitted_the_published_chain_has_no_gap(
        offers in prop::collection::vec((0..90u64, 0..3u8, any::<bool>()), 1..300),
    ) {
        let pipeline = PipelineId::new("demo").expect("a name");
        let (mut history, mut downstream) = (History::default(), Downstream::default());
        for (number, variant, near) in offers {
            let number = if near { history.next().unwrap_or(number) } else { number };
            let hash = (variant > 0).then_some(BlockHash([variant; 32]));
            let wanted = Offer { number, hash, parent_hash: None };
            if let Ok(actions) = offer(&mut history, &pipeline, &wanted) {
                downstream.carry_out(&actions, None);
                prop_assert_eq!(history.tip().map(|tip| tip.number), Some(number).max(history.tip().map(|t| t.number)));
            }
            prop_assert_eq!(downstream.wanted.last_key_value().map(|(n, _)| *n), history.tip().map(|t| t.number));
        }
    }
}

fn followed(chain: &Chain, count: u64) -> History {
    History::resumed(
        DEPTH,
        Some(0),
        chain.blocks[..count as usize].to_vec(),
        Vec::new(),
    )
}

/// Looks twice, as the service does before it believes in a reorg.
fn look_twice(follower: &mut Follower, chain: &mut Chain) -> (Vec<Action>, Option<Stuck>) {
    let first = look(follower, chain, &mut Vec::new());
    assert_eq!(first, (Vec::new(), None), "one look is not enough");
    look(follower, chain, &mut Vec::new())
}

fn cancelled(actions: &[Action]) -> Vec<u64> {
    let replaced = actions.iter().filter_map(|action| match action {
        Action::Cancel { replaced, .. } => Some(replaced),
        Action::Publish(_) => None,
    });
    replaced.flatten().map(|block| block.number).collect()
}

#[test]
fn a_reorg_is_cancelled_back_to_the_common_ancestor() {
    for depth in 1..=40 {
        let mut chain = Chain::new();
        chain.grow(50);
        let mut follower = Follower::new(followed(&chain, 51), 0);
        let old = chain.blocks.clone();
        chain.reorg(depth, depth as u64 + 1);
        let (actions, stuck) = look_twice(&mut follower, &mut chain);
        assert_eq!(stuck, None);
        let from = 51 - depth;
        let cancel = Action::Cancel {
            replaced: old[from..].to_vec(),
            back_to: Some(old[from - 1]),
        };
        let link = |number| Action::Publish(chain.link(number).expect("mined"));
        assert_eq!(actions, [cancel, link(from as u64)]);
        let (actions, _) = look(&mut follower, &mut chain.clone(), &mut Vec::new());
        let rest = from as u64 + 1..=51;
        assert_eq!(actions, rest.map(link).collect::<Vec<_>>());
    }
}

#[test]
fn a_reorg_of_the_same_height_is_seen() {
    let mut chain = Chain::new();
    chain.grow(5);
    let mut follower = Follower::new(followed(&chain, 6), 0);
    look(&mut follower, &mut chain, &mut Vec::new());
    chain.reorg(1, 1);
    let (actions, _) = look_twice(&mut follower, &mut chain);
    assert_eq!(cancelled(&actions), [5]);
}

#[test]
fn a_reorg_that_only_one_look_shows_cancels_nothing() {
    let mut chain = Chain::new();
    chain.grow(10);
    let mut follower = Follower::new(followed(&chain, 11), 0);
    let mut branch = chain.clone();
    branch.made = 1000;
    branch.reorg(3, 3);
    for _ in 0..3 {
        for seen in [&mut branch, &mut chain] {
            let (actions, stuck) = look(&mut follower, seen, &mut Vec::new());
            assert_eq!((actions, stuck), (Vec::new(), None));
        }
    }
    // A look at another branch does not confirm the first one.
    let mut other = chain.clone();
    other.made = 2000;
    other.reorg(3, 3);
    look(&mut follower, &mut branch, &mut Vec::new());
    let (actions, _) = look(&mut follower, &mut other, &mut Vec::new());
    assert_eq!(actions, []);
}

/// Passes one answer for each of these numbers, as far as the follower asks for them.
fn answer(follower: &mut Follower, head: BlockRef, answers: &[Option<Link>]) -> Vec<Action> {
    let mut actions = Vec::new();
    let mut answers = answers.iter();
    let mut todo = follower.step(Event::Head(head));
    while let Some(Effect::Fetch { .. }) = todo.pop() {
        let Some(Some(link)) = answers.next() else { break };
        for effect in follower.step(Event::Block(*link)) {
            match effect {
                Effect::Act(action) => actions.push(action),
                effect => todo.push(effect),
            }
        }
    }
    actions
}

#[test]
fn a_load_balancer_that_lags_in_a_reorg_cancels_no_block_that_stayed() {
    let mut chain = Chain::new();
    chain.grow(100);
    let mut follower = Follower::new(followed(&chain, 101), 0);
    look(&mut follower, &mut chain, &mut Vec::new());
    let old = chain.clone();
    for depth in [1, 3, 20] {
        let (mut follower, mut chain) = (follower.clone(), old.clone());
        chain.reorg(depth, depth as u64);
        let mut actions = answer(&mut follower, chain.head(), &[chain.link(100), None]);
        for lagging in [90, 70, 95] {
            let link = old.link(lagging).expect("mined");
            actions.extend(answer(&mut follower, link.block, &[Some(link)]));
        }
        for _ in 0..4 {
            actions.extend(look(&mut follower, &mut chain, &mut Vec::new()).0);
        }
        let replaced: Vec<u64> = (101 - depth as u64..=100).collect();
        assert_eq!(cancelled(&actions), replaced, "a reorg of {depth}");
    }
}

#[test]
fn another_chain_is_refused_until_the_known_one_is_back() {
    let mut known = Chain::new();
    known.grow(200);
    let history = History::resumed(DEPTH, Some(0), known.blocks[137..].to_vec(), Vec::new());
    let mut follower = Follower::new(history, 0);
    let mut other = known.clone();
    other.reorg(150, 160);
    let too_deep = Stuck::TooDeep {
        oldest: 137,
        tip: 200,
    };
    assert_eq!(
        look_twice(&mut follower, &mut other),
        (Vec::new(), Some(too_deep))
    );
    for _ in 0..3 {
        let looked = look(&mut follower, &mut other, &mut Vec::new());
        assert_eq!(looked, (Vec::new(), Some(too_deep)), "the trouble persists");
    }
    let behind = Stuck::Behind { target: 0, tip: 200 };
    let mut short = Chain::new();
    assert_eq!(look_twice(&mut follower, &mut short), (Vec::new(), Some(behind)));
    known.grow(1);
    look(&mut follower, &mut known, &mut Vec::new());
    look(&mut follower, &mut known, &mut Vec::new());
    let (actions, stuck) = look(&mut follower, &mut known, &mut Vec::new());
    assert_eq!((actions.len(), stuck), (1, None), "{actions:?}");
}

#[test]
fn a_reorg_as_deep_as_the_source_permits_is_followed() {
    let mut chain = Chain::new();
    chain.grow(400);
    let history = History::resumed(300, Some(0), chain.blocks[101..].to_vec(), Vec::new());
    let mut follower = Follower::new(history, 0);
    chain.reorg(299, 310);
    let (actions, stuck) = look_twice(&mut follower, &mut chain);
    assert_eq!(stuck, None);
    assert_eq!(cancelled(&actions), (102..=400).collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn nodes_that_lag_never_make_a_reorg_deeper_than_it_is(
        depth in 0..60usize,
        longer in 0..3u64,
        heights in prop::collection::vec((30..103u64, 30..103u64), 1..20),
    ) {
        let mut chain = Chain::new();
        chain.grow(100);
        let mut follower = Follower::new(followed(&chain, 101), 0);
        look(&mut follower, &mut chain, &mut Vec::new());
        chain.reorg(depth, depth as u64 + longer);
        let mut actions = Vec::new();
        // One node tells the head, and another one that has blocks up to a height of its own tells the rest.
        for (head, height) in heights {
            let head = chain.link(head.min(chain.head().number)).expect("mined").block;
            let mut todo = follower.step(Event::Head(head));
            while let Some(Effect::Fetch { first, last }) = todo.pop() {
                for number in first..=last.min(height) {
                    let Some(link) = chain.link(number) else { break };
                    for effect in follower.step(Event::Block(link)) {
                        match effect {
                            Effect::Act(action) => actions.push(action),
                            effect => todo.push(effect),
                        }
                    }
                    if !todo.is_empty() {
                        break;
                    }
                }
            }
        }
        for _ in 0..3 {
            let (more, stuck) = look(&mut follower, &mut chain, &mut Vec::new());
            prop_assert_eq!(stuck, None);
            actions.extend(more);
        }
        let replaced: Vec<u64> = (101 - depth as u64..=100).collect();
        prop_assert_eq!(cancelled(&actions), replaced);
        prop_assert_eq!(follower.history().tip(), Some(chain.head()));
    }

    #[test]
    fn the_first_block_that_differs_is_found_below_what_is_remembered(
        first in 0..50u64,
        length in 0..3000u64,
        equal in 0..3000u64,
        expired in 0..3000u64,
    ) {
        let (last, equal) = (first + length, equal.min(length));
        let differs_from = first + equal;
        // Facts expire from the first block on, at most up to the last common block.
        let known_from = first + expired.min(equal);
        let mut search = AncestorSearch::among(first, last);
        let mut asked = 0;
        while let Some(number) = search.next() {
            prop_assert!((first..=last).contains(&number));
            asked += 1;
            let compared = match number {
                _ if number >= differs_from => Compared::Different,
                _ if number < known_from => Compared::Unknown,
                _ => Compared::Same,
            };
            search.told(number, compared);
        }
        prop_assert!(asked <= 13, "{} questions", asked);
        let wanted = if known_from < differs_from { differs_from } else { first };
        // Without a difference, the block after the last one to compare is the first that differs.
        let wanted = if differs_from > last && known_from <= last { last + 1 } else { wanted };
        prop_assert_eq!(search.replaced_from(), wanted);
    }
}

#[test]
fn a_node_that_lags_cancels_nothing() {
    let mut chain = Chain::new();
    chain.grow(10);
    let mut lagging = chain.clone();
    lagging.blocks.truncate(5);
    for mut follower in [
        Follower::new(followed(&chain, 11), 0),
        Follower::new(followed(&chain, 11), 2),
    ] {
        for chain in [&mut lagging, &mut chain.clone()] {
            let (actions, stuck) = look(&mut follower, chain, &mut Vec::new());
            assert_eq!((actions, stuck), (Vec::new(), None));
        }
    }
}

#[test]
fn a_block_that_does_not_follow_says_what_is_expected() {
    let pipeline = PipelineId::new("demo").expect("a name");
    let mut history = History::default();
    let bare = |number| Offer {
        number,
        hash: None,
        parent_hash: None,
    };
    for number in 5..8 {
        assert_eq!(
            offer(&mut history, &pipeline, &bare(number)).map(|a| a.len()),
            Ok(1)
        );
    }
    for number in [9, 4] {
        assert_eq!(
            offer(&mut history, &pipeline, &bare(number)),
            Err(Conflict::Gap { number, expected: 8 })
        );
    }
    assert_eq!(
        offer(&mut history, &pipeline, &bare(6)),
        Ok(Vec::new()),
        "the same block again is known"
    );
    let orphan = Offer {
        parent_hash: Some(BlockHash([1; 32])),
        ..bare(8)
    };
    let refused = offer(&mut history, &pipeline, &orphan).expect_err("another parent");
    assert!(refused.to_string().contains("expected 0x"), "{refused}");
    let other = Offer {
        hash: Some(BlockHash([2; 32])),
        ..bare(6)
    };
    let actions = offer(&mut history, &pipeline, &other).expect("a reorg");
    let gone: Vec<_> = [6, 7]
        .map(|n| BlockRef {
            number: n,
            hash: hash_of_number(&pipeline, n),
        })
        .into();
    assert!(
        matches!(&actions[..], [Action::Cancel { replaced, .. }, Action::Publish(_)] if *replaced == gone)
    );
}
