//! The queue of each zkVM, counted over the blocks without a record.

use super::{
    Model,
    block::{Attempt, State},
    chain::Chain,
};
use crate::view::{self, millis};
use push0_domain::{Timestamp, ZkvmId, message::Role};
use std::collections::BTreeMap;

impl Model {
    /// Returns every zkVM that a pipeline or a prover names.
    pub(super) fn queues(&self, now: Timestamp) -> BTreeMap<String, view::Zkvm> {
        let mut queues: BTreeMap<String, view::Zkvm> = BTreeMap::new();
        let definitions = self.chains.values().filter_map(Chain::definition);
        for zkvm in definitions.flat_map(|definition| definition.zkvms()) {
            entry(&mut queues, &zkvm);
        }
        for lease in self.fleet.leases() {
            let queue = entry(&mut queues, &lease.zkvm);
            match lease.role {
                Role::Verifier => queue.verifiers += 1,
                Role::Prover => {
                    queue.provers += 1;
                    queue.slots += u64::from(lease.slots);
                    queue.busy += lease.held.iter().filter(|held| held.running_ms.is_some()).count();
                }
            }
        }
        let mut oldest: BTreeMap<String, Timestamp> = BTreeMap::new();
        for (id, block) in self.blocks.iter().filter(|(_, block)| block.is_open()) {
            for (_, attempt) in block.attempts() {
                count(&mut queues, &mut oldest, attempt);
            }
            if block.attempts().next().is_none()
                && let Some(definition) = self.chains.get(&id.pipeline).and_then(Chain::definition)
            {
                for stage in definition.proofs.iter().filter_map(|proof| proof.stages.first()) {
                    entry(&mut queues, &stage.zkvm).waiting += 1;
                    note(&mut oldest, &stage.zkvm, block.at());
                }
            }
        }
        for (zkvm, hold) in &self.holds {
            entry(&mut queues, zkvm).held = Some(view::Hold {
                since: millis(hold.since),
                failures: hold.failures,
                error: hold.error.clone(),
            });
        }
        for (name, since) in oldest {
            if let Some(queue) = queues.get_mut(&name) {
                // Whole seconds: a wait that grows is no news by itself.
                queue.oldest_wait_ms = Some(now.since(since).as_secs() * 1000);
            }
        }
        queues
    }
}

fn count(
    queues: &mut BTreeMap<String, view::Zkvm>,
    oldest: &mut BTreeMap<String, Timestamp>,
    attempt: &Attempt,
) {
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

fn note(oldest: &mut BTreeMap<String, Timestamp>, zkvm: &ZkvmId, at: Timestamp) {
    let known = oldest.entry(zkvm.to_string()).or_insert(at);
    *known = (*known).min(at);
}

fn entry<'a>(queues: &'a mut BTreeMap<String, view::Zkvm>, zkvm: &ZkvmId) -> &'a mut view::Zkvm {
    queues.entry(zkvm.to_string()).or_insert_with(|| view::Zkvm {
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
