//! Room for the blocks next to each output: others go, and come back when the output nears them.

use super::{
    MISSING_MAX, Model,
    block::{Block, BlockId},
    chain::Chain,
};
use push0_domain::{PipelineId, Timestamp, message::EndReason};
use std::collections::BTreeSet;

/// How many numbers from the next one on are read again if they are not held.
const WINDOW: u64 = 512;

impl Model {
    /// Returns how far a block is ahead of what its pipeline emits next. A block behind it, or of a pipeline without a
    /// definition, is as far as can be: no record of it is awaited.
    pub(super) fn ahead(&self, id: &BlockId) -> u64 {
        let chain = self.chains.get(&id.pipeline);
        let ahead = chain.map(|chain| id.number.checked_sub(chain.next().unwrap_or_default()));
        ahead.flatten().unwrap_or(u64::MAX)
    }

    /// Returns whether there is no room for a block that was announced: the model holds others nearer to the output.
    pub(super) fn turns_away(&mut self, id: &BlockId) -> bool {
        if self.blocks.has(id) || !self.blocks.is_crowded() {
            return false;
        }
        let Some(chain) = self
            .chains
            .get_mut(&id.pipeline)
            .filter(|chain| chain.is_beyond(id.number))
        else {
            return false;
        };
        chain.turned_away();
        true
    }

    /// Removes blocks until the rest has room. Clients were not told of `newcomer` yet.
    pub(super) fn make_room(&mut self, newcomer: Option<&BlockId>) {
        while self.blocks.is_over() {
            let Some(id) = self.blocks.first_to_go(|id| self.ahead(id)) else {
                return;
            };
            let is_open = self.blocks.get(&id).is_some_and(Block::is_open);
            if let Some(chain) = self.chains.get_mut(&id.pipeline).filter(|_| is_open) {
                chain.cut(id.number);
            }
            self.remove(&id, newcomer != Some(&id));
        }
    }

    fn remove(&mut self, id: &BlockId, is_told: bool) {
        self.dirty.blocks.remove(id);
        let Some(block) = self.blocks.remove(id) else {
            return;
        };
        if is_told {
            let gone = (id.pipeline.to_string(), id.number, block.hash_text(id));
            self.dirty.gone.blocks.push(gone);
        }
    }

    /// Forgets a pipeline with its blocks.
    pub(super) fn drop_pipeline(&mut self, name: &PipelineId) {
        if self.chains.remove(name).is_some() {
            let blocks = self.blocks.of_numbers(name, 0..=u64::MAX);
            let ids: Vec<BlockId> = blocks.map(|(id, _)| id.clone()).collect();
            ids.iter().for_each(|id| self.remove(id, false));
            self.dirty.chains.remove(name);
            self.dirty.all = true;
        }
    }

    /// Marks blocks with a record as replaced from the number on which the output awaits: it went back.
    pub(super) fn take_back(&mut self, name: &PipelineId, now: Timestamp) {
        if let Some(next) = self.chains.get(name).and_then(Chain::next) {
            self.replaced_from(name, next, now);
        }
    }

    /// Marks blocks with a record from this number on as replaced.
    pub(crate) fn replaced_from(&mut self, name: &PipelineId, next: u64, now: Timestamp) {
        let of_numbers = self.blocks.of_numbers(name, next..=u64::MAX);
        let emitted = of_numbers.filter(|(_, block)| block.recorded().is_some() && block.stands());
        let ids: Vec<BlockId> = emitted.map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.blocks
                .change(&id, |block| block.end(&EndReason::Reorged, now));
            self.dirty.blocks.insert(id);
        }
    }

    /// Compares what is held with how far each pipeline is. Open blocks behind an output have a record that was not heard,
    /// and those beyond its head were replaced.
    pub(super) fn compare(&mut self, now: Timestamp) {
        let open = self.blocks.iter().filter(|(_, block)| block.is_open());
        let is_outside = |id: &BlockId| {
            let chain = self.chains.get(&id.pipeline);
            let next = chain.and_then(Chain::next);
            next.is_some_and(|next| id.number < next)
                || chain.is_some_and(|chain| chain.ends_before(id.number))
        };
        let outside: Vec<BlockId> = open
            .map(|(id, _)| id)
            .filter(|id| is_outside(id))
            .cloned()
            .collect();
        outside.iter().for_each(|id| self.remove(id, true));
        for name in self.names() {
            self.take_back(&name, now);
        }
        let is_crowded = self.blocks.is_crowded();
        for (name, chain) in &mut self.chains {
            let Some(numbers) = chain.unemitted() else {
                continue;
            };
            let held = self.blocks.of_numbers(name, numbers).map(|(id, _)| id.number);
            let held: BTreeSet<u64> = held.collect();
            chain.holds(held.len() as u64, is_crowded);
        }
    }

    /// Returns numbers next to the outputs of which no announced block is held, lowest first.
    pub fn missing(&self) -> Vec<(PipelineId, u64)> {
        let mut missing = Vec::new();
        for (name, chain) in &self.chains {
            let part = MISSING_MAX.saturating_sub(missing.len());
            let numbers = self.missing_of(name, chain);
            missing.extend(numbers.take(part).map(|number| (name.clone(), number)));
        }
        missing
    }

    fn missing_of(&self, name: &PipelineId, chain: &Chain) -> impl Iterator<Item = u64> {
        let numbers = chain.unemitted().map(|numbers| {
            let (next, head) = numbers.into_inner();
            next..=head.min(next.saturating_add(WINDOW - 1))
        });
        let is_crowded = self.blocks.is_crowded();
        let has_room = move |number: u64| !(is_crowded && chain.is_beyond(number));
        let held: BTreeSet<u64> = numbers
            .iter()
            .flat_map(|numbers| self.blocks.of_numbers(name, numbers.clone()))
            .filter(|(_, block)| block.hash().is_some())
            .map(|(id, _)| id.number)
            .collect();
        let numbers = numbers.into_iter().flatten();
        numbers.filter(move |number| has_room(*number) && !held.contains(number))
    }
}
