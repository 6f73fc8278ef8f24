//! Handling of messages. The shell has compared each message with its subject.
//!
//! Services announce blocks, release attempts and write records, so these make blocks known. What participants report
//! changes known blocks only: the gateway cannot read the keys of the seals, so a report may be made up.

use super::{
    Model,
    block::{Block, BlockId},
    fleet::{Ended, outcome_of},
};
use push0_domain::{
    Participant, ProverId, Timestamp,
    message::{
        BlockEnded, Emission, EndReason, Event, Happening, Lease, ObservedBlock, Outcome, Role, TaskResult,
    },
    pipeline::RANGE_MAX,
    subject::AttemptKey,
};

impl Model {
    /// Handles an announced block.
    pub fn observed(&mut self, observed: &ObservedBlock, trace: Option<&str>, now: Timestamp) {
        let id = BlockId::of(&observed.pipeline, &observed.block);
        let Some(chain) = self.chain(&observed.pipeline) else {
            return;
        };
        chain.ingested(observed.block.number);
        if self.turns_away(&id) {
            return;
        }
        self.known(&id, now, |block| block.announce(observed, trace, now));
        self.make_room(Some(&id));
    }

    /// Handles a block that was announced before the gateway listened, or while there was no room for it.
    pub fn recalled(&mut self, observed: &ObservedBlock, stored_at: Timestamp) {
        let id = BlockId::of(&observed.pipeline, &observed.block);
        if self.chain(&observed.pipeline).is_none() {
            return;
        }
        if self.blocks.get(&id).is_some_and(|block| block.hash().is_some()) {
            return;
        }
        self.known(&id, stored_at, |block| block.announce(observed, None, stored_at));
        self.make_room(Some(&id));
    }

    /// Handles a released attempt. A removed pipeline finishes its blocks.
    pub fn released(&mut self, key: &AttemptKey, now: Timestamp) {
        if !self.chains.contains_key(&key.pipeline) && self.chain(&key.pipeline).is_none() {
            return;
        }
        if let Some(chain) = self.chains.get_mut(&key.pipeline) {
            chain.saw(key.block.number);
        }
        self.known(&BlockId::of_key(key), now, |block| block.release(key, now));
        self.make_room(None);
    }

    /// Handles a heartbeat.
    pub fn heard(&mut self, lease: &Lease, now: Timestamp) {
        for held in &lease.held {
            let key = held.header.key();
            let id = BlockId::of_key(&key);
            // A lease may be older than the record: it makes no block known again.
            let is_news = self.blocks.change(&id, |block| {
                block.hold(&key, held, &lease.prover, lease.role, now)
            });
            if is_news == Some(true) {
                self.dirty.blocks.insert(id);
            }
        }
        let key = (lease.sender(), lease.role == Role::Verifier);
        if self.fleet.heard(lease, now) {
            self.dirty.provers.insert(key);
        }
        self.make_room(None);
    }

    /// Handles a heartbeat that was stored earlier. One that was heard is newer.
    pub fn heard_before(&mut self, lease: &Lease, stored_at: Timestamp) {
        let key = (lease.sender(), lease.role == Role::Verifier);
        if !self.fleet.knows(&key) {
            self.heard(lease, stored_at);
        }
    }

    /// Handles a completed attempt that waits for a verifier.
    pub fn checking(&mut self, key: &AttemptKey, result: &TaskResult, now: Timestamp) {
        self.change(&BlockId::of_key(key), |block| {
            block.stage_has(key, result.header.of);
            if let Some(attempt) = block.attempt(key) {
                attempt.complete(result, false, now);
            }
        });
        self.ended(key, &result.prover, false, "done", now);
        self.make_room(None);
    }

    /// Handles the end of an attempt, as a prover, the watchdog or a verifier tells it.
    pub fn result(&mut self, key: &AttemptKey, result: &TaskResult, now: Timestamp) {
        let was_checking = self.change(&BlockId::of_key(key), |block| {
            block.stage_has(key, result.header.of);
            let Some(attempt) = block.attempt(key) else {
                return false;
            };
            let was_checking = attempt.is_checking();
            match &result.outcome {
                Outcome::Completed { .. } => attempt.complete(result, true, now),
                Outcome::Failed(failure) => attempt.fail(result, failure, now),
            }
            if matches!(result.outcome, Outcome::Completed { .. }) {
                block.task_done(key);
            }
            was_checking
        });
        if let Some(verdict) = &result.verdict {
            let outcome = if verdict.invalid.is_none() {
                "done"
            } else {
                "failed"
            };
            self.ended(key, &verdict.verifier, true, outcome, now);
        }
        if was_checking != Some(true) {
            let outcome = match &result.outcome {
                Outcome::Completed { .. } => "done",
                Outcome::Failed(failure) => outcome_of(failure.class),
            };
            self.ended(key, &result.prover, false, outcome, now);
        }
        self.make_room(None);
    }

    fn ended(
        &mut self,
        key: &AttemptKey,
        name: &ProverId,
        verifies: bool,
        outcome: &'static str,
        now: Timestamp,
    ) {
        let block = self.blocks.get(&BlockId::of_key(key));
        let started = block.and_then(|block| block.started_at(key, verifies));
        let ended = Ended {
            key,
            started_at: started.unwrap_or(now),
            ended_at: now,
            outcome,
        };
        let participant = Participant {
            zkvm: key.zkvm.clone(),
            name: name.clone(),
        };
        let member = (participant, verifies);
        if self.fleet.ended(&member, &ended) {
            self.dirty.provers.insert(member);
        }
    }

    /// Handles blocks that end without a proof.
    pub fn end(&mut self, ended: &BlockEnded, now: Timestamp) {
        let of_numbers = self.blocks.of_numbers(&ended.pipeline, ended.first..=ended.last);
        let is_named = |id: &BlockId| ended.hashes.is_empty() || ended.hashes.iter().any(|hash| id.is(hash));
        let named: Vec<BlockId> = of_numbers
            .map(|(id, _)| id)
            .filter(|id| is_named(id))
            .cloned()
            .collect();
        for id in named {
            self.change(&id, |block| block.end(&ended.reason, now));
        }
        self.make_room(None);
    }

    /// Handles a record, the newest of its pipeline.
    pub fn record(&mut self, record: &Emission, now: Timestamp, trace: Option<&str>) {
        if self
            .chain(&record.pipeline)
            .is_some_and(|chain| chain.moved(record))
        {
            self.take_back(&record.pipeline, now);
        }
        self.recorded_before(record, now, trace);
    }

    /// Handles a record that was stored earlier. Newer ones may have been heard.
    pub fn recorded_before(&mut self, record: &Emission, stored_at: Timestamp, trace: Option<&str>) {
        let id = BlockId::of(&record.pipeline, &record.last);
        let known = self.blocks.get(&id);
        if known.is_some_and(|block| block.is_recorded_since(stored_at)) {
            return;
        }
        let Some(chain) = self.chain(&record.pipeline) else {
            return;
        };
        chain.recorded(record, stored_at);
        // No range of a pipeline is longer.
        let excess = record.hashes.len().saturating_sub(RANGE_MAX as usize);
        for part in record.blocks().skip(excess) {
            let part_id = BlockId::of(&record.pipeline, &part);
            self.replaced_by(&part_id, stored_at);
            self.known(&part_id, stored_at, |block| {
                block.record(record, &part, stored_at, trace);
            });
            self.make_room(None);
        }
    }

    /// Marks other blocks of this number as replaced.
    fn replaced_by(&mut self, id: &BlockId, now: Timestamp) {
        let of_number = self.blocks.of_numbers(&id.pipeline, id.number..=id.number);
        let others: Vec<BlockId> = of_number
            .map(|(other, _)| other)
            .filter(|other| *other != id)
            .cloned()
            .collect();
        for other in others {
            if self
                .blocks
                .change(&other, |block| block.end(&EndReason::Reorged, now))
                == Some(true)
            {
                self.dirty.blocks.insert(other);
            }
        }
    }

    /// Handles an event.
    pub fn happened(&mut self, event: Event, now: Timestamp) {
        match event.what {
            Happening::QueueHeld { zkvm, held } => self.hold(zkvm, held),
            Happening::QueueOpened { zkvm, .. } => drop(self.holds.remove(&zkvm)),
            Happening::DeadLetter { .. } => self.letters = self.letters.saturating_add(1),
            what => {
                for key in self.fleet.happened(what, now) {
                    self.dirty.provers.insert(key);
                }
            }
        }
    }

    /// Changes a block, which is new if nothing was told of it yet.
    fn known<T>(&mut self, id: &BlockId, now: Timestamp, change: impl FnOnce(&mut Block) -> T) {
        self.blocks.add(id, now);
        self.change(id, change);
    }

    /// Changes a block if it is known, and tells clients.
    fn change<T>(&mut self, id: &BlockId, change: impl FnOnce(&mut Block) -> T) -> Option<T> {
        let told = self.blocks.change(id, change)?;
        self.dirty.blocks.insert(id.clone());
        Some(told)
    }
}
