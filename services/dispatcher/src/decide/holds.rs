//! Learns from the outcomes of attempts whether the queue of their zkVM is held.

use super::{Dispatcher, Effect};
use crate::{capacity::Capacity, hold::Turn, outcome::Outcome};
use push0_domain::{Timestamp, ZkvmId, message::HeldQueue, subject::AttemptKey};
use std::time::Duration;

impl Dispatcher {
    /// Handles the outcome of an attempt: its prover has a free slot.
    pub fn came(&mut self, key: &AttemptKey, outcome: Outcome, now: Timestamp) -> Vec<Effect> {
        let capacity = self.capacity.get(&key.zkvm);
        let ran = capacity.and_then(|capacity| capacity.released_at(key));
        let ran = ran.map_or(Duration::ZERO, |at| now.since(at));
        if outcome == Outcome::Unverified {
            // The prover has a free slot. A probe is out until its verdict.
            if let Some(capacity) = self.capacity.get_mut(&key.zkvm) {
                capacity.ended(key);
            }
            if let Some(hold) = self.holds.get_mut(&key.zkvm) {
                hold.completed(key);
            }
            return Vec::new();
        }
        self.ended(key);
        let turn = match outcome {
            Outcome::Completed => self.holds.get_mut(&key.zkvm).and_then(|hold| hold.succeeded()),
            Outcome::Failed(error) => {
                let hold = self.holds.entry(key.zkvm.clone()).or_default();
                hold.failed(key, ran, &error, now)
            }
            Outcome::Unverified | Outcome::Unknown => None,
        };
        self.turn(&key.zkvm, turn)
    }

    /// Restores a hold that an earlier dispatcher stored.
    pub fn recall_hold(&mut self, zkvm: ZkvmId, held: HeldQueue, now: Timestamp) {
        self.holds.entry(zkvm).or_default().recall(held, now);
    }

    /// Opens the queues whose probe has run for long enough, and those without work.
    pub(super) fn tick_holds(&mut self, now: Timestamp) -> Vec<Effect> {
        let (waiting, capacity) = (&self.waiting, &self.capacity);
        let has_work = |zkvm: &ZkvmId| {
            let is_out = |capacity: &Capacity| capacity.out() > 0;
            waiting.has(zkvm) || capacity.get(zkvm).is_some_and(is_out)
        };
        let turns = self
            .holds
            .iter_mut()
            .map(|(zkvm, hold)| (zkvm.clone(), hold.tick(now, || has_work(zkvm))));
        let turns: Vec<(ZkvmId, Option<Turn>)> = turns.collect();
        let effects = turns.into_iter().flat_map(|(zkvm, turn)| self.turn(&zkvm, turn));
        effects.collect()
    }

    fn turn(&mut self, zkvm: &ZkvmId, turn: Option<Turn>) -> Vec<Effect> {
        if let Some(Turn::Opened(..)) = turn {
            // The tasks paused because of the outage are tried at once.
            self.waiting.resume_all(zkvm);
        }
        turn.map(|turn| Effect::Hold(zkvm.clone(), turn))
            .into_iter()
            .collect()
    }

    /// Returns the held queues.
    pub fn held(&self) -> impl Iterator<Item = (&ZkvmId, &HeldQueue)> {
        self.holds
            .iter()
            .filter_map(|(zkvm, hold)| Some((zkvm, hold.reason()?)))
    }
}
