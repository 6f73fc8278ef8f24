//! The queue of each zkVM, counted over the blocks without a record. Blocks that wait in their stream and are not held
//! are counted by the stream.

use super::{
    Model,
    attempt::{Attempt, State},
};
use crate::view::{self, millis};
use push0_domain::{PipelineId, Timestamp, ZkvmId, subject::AttemptKey};
use std::collections::BTreeMap;

/// The queues by the name of their zkVM.
type Queues = BTreeMap<ZkvmId, view::Zkvm>;

/// Blocks of a pipeline that wait for their first task, as far as they are held.
struct Waiting {
    count: u64,
    oldest: Timestamp,
}

impl Model {
    /// Returns every zkVM that a pipeline or a prover names.
    pub(super) fn queues(&self, now: Timestamp) -> Queues {
        let mut queues = Queues::new();
        for definition in self.chains.values().filter_map(|chain| chain.definition()) {
            for zkvm in definition.zkvms() {
                entry(&mut queues, &zkvm);
            }
        }
        for heard in self.fleet.all_heard() {
            let queue = entry(&mut queues, heard.zkvm);
            if heard.verifies {
                queue.verifiers += 1;
            } else {
                queue.provers += 1;
                queue.slots += u64::from(heard.slots);
                queue.busy += heard.running;
            }
        }
        let mut oldest: BTreeMap<ZkvmId, Timestamp> = BTreeMap::new();
        let mut waiting: BTreeMap<&PipelineId, Waiting> = BTreeMap::new();
        for (id, block) in self.blocks.iter().filter(|(_, block)| block.is_open()) {
            for (_, attempt) in block.attempts() {
                count(&mut queues, &mut oldest, attempt);
            }
            if block.attempts().next().is_none() {
                let of_pipeline = waiting.entry(&id.pipeline).or_insert(Waiting {
                    count: 0,
                    oldest: block.at(),
                });
                of_pipeline.count += 1;
                of_pipeline.oldest = of_pipeline.oldest.min(block.at());
            }
        }
        self.add_waiting(&waiting, &mut queues, &mut oldest);
        for (zkvm, hold) in &self.holds {
            entry(&mut queues, zkvm).held = Some(view::Hold {
                since: millis(hold.since),
                failures: hold.failures,
                error: hold.error.clone(),
                task: hold.task.as_ref().map(AttemptKey::task_in_words),
            });
        }
        for (zkvm, since) in oldest {
            if let Some(queue) = queues.get_mut(&zkvm) {
                // Whole seconds: a wait that grows is no news by itself.
                queue.oldest_wait_ms = Some(now.since(since).as_secs() * 1000);
            }
        }
        queues
    }

    /// Adds the first tasks of the blocks that wait.
    fn add_waiting(
        &self,
        held: &BTreeMap<&PipelineId, Waiting>,
        queues: &mut Queues,
        oldest: &mut BTreeMap<ZkvmId, Timestamp>,
    ) {
        for (name, chain) in &self.chains {
            let Some(definition) = chain.definition() else {
                continue;
            };
            let of_pipeline = held.get(name);
            let blocks = chain.waiting(of_pipeline.map_or(0, |waiting| waiting.count));
            if blocks == 0 {
                continue;
            }
            for stage in definition.proofs.iter().filter_map(|proof| proof.stages.first()) {
                let queue = entry(queues, &stage.zkvm);
                queue.waiting = queue
                    .waiting
                    .saturating_add(usize::try_from(blocks).unwrap_or(usize::MAX));
                if let Some(waiting) = of_pipeline {
                    note(oldest, &stage.zkvm, waiting.oldest);
                }
            }
        }
    }
}

fn count(queues: &mut Queues, oldest: &mut BTreeMap<ZkvmId, Timestamp>, attempt: &Attempt) {
    match attempt.state {
        State::Released => {
            entry(queues, &attempt.zkvm).released += 1;
            if let Some(at) = attempt.released_at {
                note(oldest, &attempt.zkvm, at);
            }
        }
        State::Checking => entry(queues, &attempt.zkvm).checks += 1,
        State::Running | State::Done | State::Failed(_) => {}
    }
}

fn note(oldest: &mut BTreeMap<ZkvmId, Timestamp>, zkvm: &ZkvmId, at: Timestamp) {
    if let Some(known) = oldest.get_mut(zkvm) {
        *known = (*known).min(at);
    } else {
        oldest.insert(zkvm.clone(), at);
    }
}

fn entry<'a>(queues: &'a mut Queues, zkvm: &ZkvmId) -> &'a mut view::Zkvm {
    queues.entry(zkvm.clone()).or_insert_with(|| view::Zkvm {
        name: zkvm.to_string(),
        provers: 0,
        verifiers: 0,
        slots: 0,
        busy: 0,
        waiting: 0,
        released: 0,
        checks: 0,
        oldest_wait_ms: None,
        held: None,
    })
}
